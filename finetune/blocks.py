"""The second training of a run: the last blocks of the backbone and the head, on what stands in front of the cut; or
all blocks, on the pixels.

head          trained on pooled features, in seconds                              as every run does
cut           the input of block `model.train_from`, of each view of the training pictures, or its pixels    cache
blocks        a network that begins at the cut (`finetune.training.tail`) learns by the same Trainer
backbone      gets the trained blocks back, and is saved with the head: one CKPT, for everybody after
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, Split
from finetune.config import Config
from finetune.device import Device
from finetune.evaluation.calibrate import Confidence, fit_on_validation
from finetune.features.cache import Features, extract
from finetune.features.engines.choose import choose_engine
from finetune.features.views import PLAIN, Views
from finetune.storage.rows import held
from finetune.trained import load_trained, save_trained
from finetune.training.networks import Head
from finetune.training.predictor import Predictor
from finetune.training.tail import tail_of, tail_optimizer, tail_training
from finetune.training.trainer import Fitted, Trainer
from finetune.training.unfinished import Unfinished
from pretrained.fold import fold, multiply_adds, unfold
from pretrained.weights import Backbone

# Seconds of two cores for 1e9 multiply-adds, and to draw a view, of a machine shared with other work: what a run says
# before it begins.
FORWARD_SECONDS, TRAINING_SECONDS, DRAWING_SECONDS = 0.03, 0.05, 0.003

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class FineTuned:
    head: Head  # on the features of the backbone as it is now
    features: dict[str, np.ndarray]  # float32 (N, D) of each part of the split, by that backbone
    fitted: Fitted
    parameters: int
    confidence: Confidence | None  # fitted on the validation rows, which chose nothing


def fine_tune(
    config: Config, device: Device, dataset: Dataset, backbone: Backbone, split: Split, head: Head, folder: Path
) -> FineTuned:
    """Train on from a trained linear head, and save backbone and head into the run folder.

    Raises:
        InputError: a picture changed while the run was at work, or the loss is not a number any more.
    """
    trainer = tail_trainer(config, device, dataset, backbone, split, head)
    tail = trainer.network
    unfinished = Unfinished(folder)
    fitted = train_tail(trainer, unfinished)
    unfold(backbone.network, tail.trained(), config.model.cut)
    save_trained(folder, backbone, tail.head)
    unfinished.remove()

    trained = load_trained(folder)
    engine = choose_engine(trained.backbone, device, config)
    parts = vars(split)
    used = [dataset.paths[row] for rows in parts.values() for row in rows]
    found = extract(used, trained.backbone, engine, config.cache_dir, device.threads)
    check_readable(found, dataset)
    ends = np.cumsum([len(rows) for rows in parts.values()])[:-1]
    features = dict(zip(parts, np.split(found.rows[:], ends)))
    confidence = None
    if len(split.valid):
        answers = Predictor(trained.head)(features["valid"])
        confidence = fit_on_validation(answers, dataset.labels[split.valid])
    parameters = sum(parameter.size for parameter in tail.trainable_params())
    return FineTuned(trained.head, features, fitted, parameters, confidence)


def tail_trainer(
    config: Config, device: Device, dataset: Dataset, backbone: Backbone, split: Split, head: Head
) -> Trainer:
    train, valid = cut_rows(config, device, dataset, backbone, split)
    return Trainer(
        tail_of(backbone, config.model.cut, train.shape, without_dropout(head)),
        (train, dataset.labels[split.train]),
        (valid, dataset.labels[split.valid]),
        tail_training(config.train),
        len(dataset.classes),
        config.seed,
        partial(tail_optimizer, tail=config.train.tail),
        device.share,
    )


def train_tail(trainer: Trainer, unfinished: Unfinished) -> Fitted:
    # The last: half way down the learning rate is high and a low validation loss is luck. Out of fold on clothing10 it
    # was 83.9 % of 1,000 after 6 of 12 epochs, 86.0 after 9 and 85.9 after 12.
    return trainer.fit(on_epoch=log.info, unfinished=unfinished, keep="last")


def cut_rows(
    config: Config, device: Device, dataset: Dataset, backbone: Backbone, split: Split
) -> tuple[np.ndarray, np.ndarray]:
    """float16 (V * N, C, H, W), all views of the training pictures, and the same of the plain validation pictures; in
    front of block 0 uint8 (V * N, H, W, 3); left in the store where they are many."""
    engine = choose_engine(backbone, device, config, config.model.cut)
    found = []
    for rows, views in ((split.train, views_of(config)), (split.valid, PLAIN)):
        paths = [dataset.paths[row] for row in rows]
        features = extract(paths, backbone, engine, config.cache_dir, device.threads, views, config.model.cut)
        check_readable(features, dataset)
        found.append(held(features.rows))
    train, valid = found
    return train, valid if len(valid) else np.empty((0, *train.shape[1:]), train.dtype)


def views_of(config: Config) -> Views:
    return Views(config.data.views_per_picture, config.seed, config.data.augment)


def check_readable(found: Features, dataset: Dataset) -> None:
    for path, reason in found.damaged.items():
        raise InputError(f"{path}: {reason}, and could be read when this run began. Repeat the command.")


def without_dropout(head: Head) -> Head:
    """A head with the same weights: the generator of dropout is nothing that a stopped training could go on with."""
    hidden = 0 if head.hidden is None else head.hidden.weight.shape[0]
    classes = head.dense.weight.shape[0]
    inputs = (head.dense if head.hidden is None else head.hidden).weight.shape[1]
    other = Head(inputs, classes, hidden)
    for parameter, given in zip(other.get_parameters(), head.get_parameters()):
        parameter.set_data(given.value().copy())
    return other


def time_needed(config: Config, backbone: Backbone, dataset: Dataset, threads: int) -> str:
    """In words, before it begins, judged by the multiply-adds."""
    counts = multiply_adds(fold(backbone.network), backbone.record.image.size)
    cut, tail = config.model.cut, config.train.tail
    share = 1 - config.data.eval_fraction if dataset.parts is None else np.mean(np.array(dataset.parts) == "train")
    pictures, views = round(share * config.data.fraction * len(dataset)), config.data.views_per_picture
    forward = views * pictures * (sum(counts[:cut]) / 1e9 * FORWARD_SECONDS + DRAWING_SECONDS)
    training = 3 * tail.epochs * pictures * sum(counts[cut:]) / 1e9 * TRAINING_SECONDS
    minutes = (forward + training) * 2 / threads / 60
    what = f"{config.model.train_from} and all behind it" if cut else "all blocks, from the pixels"
    return (
        f"{what}: {views} views of {pictures} training pictures, {tail.epochs} "
        f"epochs; about {max(1, round(minutes))} minutes on {threads} threads, less what is cached"
    )
