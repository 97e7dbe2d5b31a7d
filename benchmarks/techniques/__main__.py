"""What does a setting of fine-tuning buy? Out-of-fold accuracy on the training pictures; no other is looked at.

    python -m benchmarks.techniques --dataset_path PICTURES --pretrain_ckpt MOBILENETV2_1.0.ckpt \
        --vary model.train_from=block_14 --vary data.views_per_picture=1

Each variant is the recipe `best` with settings changed (several with a space between them). The training pictures are
dealt into folds; each is predicted by a network that was trained on the others, the linear head that it begins with
among them. There are no validation pictures.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from functools import partial
from pathlib import Path

import numpy as np

RECIPE = Path(__file__).parents[2] / "finetune" / "configs" / "best.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.techniques", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset_path", required=True, help="photographs, <root>/{train,eval}/<class>")
    parser.add_argument("--pretrain_ckpt", help="weights; the embedded ones if not given")
    parser.add_argument("--cache_dir", default="cache", help="where computed features are kept")
    parser.add_argument("--folds", type=int, default=5, help="5")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="SETTINGS", help="changed, as train.tail.epochs=6"
    )
    given = parser.parse_args()

    from finetune.config import load_config
    from finetune.device import init_device

    device = init_device("CPU")
    logging.getLogger("finetune").setLevel(logging.WARNING)
    flags = {
        "data.dataset_path": given.dataset_path,
        "cache_dir": given.cache_dir,
        "model.pretrain_ckpt": given.pretrain_ckpt,
    }
    variants = {"": flags}
    for settings in given.vary:
        variants[settings] = {**flags, **dict(pair.split("=", 1) for pair in settings.split())}
    data = Data(load_config(str(RECIPE), flags), device, given.folds)
    print("| variant | out of fold | to the linear head | McNemar p | seconds |\n|---|---|---|---|---|")
    print(f"| linear head | {100 * data.linear.mean():.1f} % | | | {data.seconds:.0f} |", flush=True)
    for settings, flags in variants.items():
        started = time.perf_counter()
        right = data.out_of_fold(load_config(str(RECIPE), flags))
        seconds = time.perf_counter() - started
        print(f"| {settings or 'best'} | {in_words(right, data.linear)} | {seconds:.0f} |", flush=True)


def in_words(right: np.ndarray, linear: np.ndarray) -> str:
    """Accuracy, paired difference in points with its 95 % interval, p; of bool (N,) each, which were right."""
    from finetune.metrics import mcnemar

    difference = right.astype(float) - linear
    half = 1.96 * difference.std() / math.sqrt(len(right))
    low, high = (100 * (difference.mean() + side * half) for side in (-1, 1))
    change = f"{100 * difference.mean():+.1f} ({low:+.1f} to {high:+.1f})"
    return f"{100 * right.mean():.1f} % | {change} | {mcnemar(right, linear):.1g}"


class Data:
    """The training pictures in folds, and a linear head a fold."""

    def __init__(self, config, device, folds: int):
        from datasets.base import Split
        from finetune.heads.folds import deal
        from finetune.inputs import load_inputs, on_backbone

        self.device = device
        self.dataset, self.backbone = load_inputs(config)
        started = time.perf_counter()
        found, split, *_ = on_backbone(config, device, self.dataset, self.backbone, Path())
        rows = np.sort(np.concatenate([split.train, split.valid]))
        self.split = Split(rows, rows[:0], split.eval)
        self.y = self.dataset.labels[rows]
        self.fold = deal(self.y, folds, seed=1)
        self.heads = []
        self.linear = self.train_heads(found.rows[rows], config)
        self.seconds = time.perf_counter() - started

    def train_heads(self, x: np.ndarray, config) -> np.ndarray:
        """bool (N,): whether the linear head that has not seen a row was right."""
        from finetune.training.networks import Head
        from finetune.training.trainer import Trainer

        classes = len(self.dataset.classes)
        head = Head(self.backbone.feature_size, classes, seed=config.seed)
        trainer = Trainer(head, (x, self.y), (x[:0], self.y[:0]), config.train, classes, config.seed)
        return self.over_folds(trainer, x, lambda: self.heads.append(trainer.weights.get()))

    def out_of_fold(self, config) -> np.ndarray:
        """The same by the fine-tuned network."""
        from finetune.blocks import cut_rows
        from finetune.training.networks import Head
        from finetune.training.tail import tail_of, tail_optimizer, tail_training
        from finetune.training.trainer import Trainer

        classes, backbone = len(self.dataset.classes), self.backbone
        x, none = cut_rows(config, self.device, self.dataset, backbone, self.split)
        head = Head(backbone.feature_size, classes)
        tail = tail_of(backbone, config.model.cut, x.shape, head)
        make = partial(tail_optimizer, tail=config.train.tail)
        rows = (x, self.y), (none, self.y[:0])
        trainer = Trainer(tail, *rows, tail_training(config.train), classes, config.seed, make)
        names = [parameter.name for parameter in tail.trainable_params()]
        places = [names.index(parameter.name) for parameter in head.trainable_params()]
        start, heads = list(trainer.start), iter(self.heads)

        def begin_with_the_head_of_the_fold() -> None:
            for place, value in zip(places, next(heads)):
                start[place] = value
            trainer.start = tuple(start)

        return self.over_folds(trainer, trainer.x, before=begin_with_the_head_of_the_fold)

    def over_folds(self, trainer, x: np.ndarray, after=lambda: None, before=lambda: None) -> np.ndarray:
        right = np.zeros(len(self.y), bool)
        for number in range(self.fold.max() + 1):
            before()
            held = self.fold == number
            trainer.fit(np.flatnonzero(~held), on_epoch=lambda line: None, keep="last")
            right[held] = trainer.predictor(x[held]).argmax(1) == self.y[held]
            after()
        return right


if __name__ == "__main__":
    main()
