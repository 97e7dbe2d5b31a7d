"""The main job: pictures in folders -> a trained, evaluated, exported classifier in a run folder.

    python -m finetune run [--dataset_path PICTURES] [--pretrain_ckpt MOBILENETV2.ckpt]

The device is initialised before this module is imported.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, MachineFault
from datasets.files import write_csv, write_json
from datasets.split import write_split
from finetune import run_folder
from finetune.ahead import Ahead, ahead_of
from finetune.blocks import cut_rows, fine_tune, tail_trainer, train_tail
from finetune.config import Config
from finetune.config_values import without_contradiction
from finetune.device import Device
from finetune.evaluation.calibrate import calibrate, in_words
from finetune.evaluation.evaluate import Evaluation, evaluate, write_predictions
from finetune.evaluation.summary import no_better_than, summary
from finetune.features.cache import write_views
from finetune.features.resample import resampled
from finetune.heads.choice import HeadChooser
from finetune.inputs import image_in_short, load_inputs, log_inputs, on_backbone, on_pixels
from finetune.insight.look import beside_a_run, novelty_of_a_run
from finetune.metrics import majority_class, mcnemar, nearest_class_mean
from finetune.storage.rows import held
from finetune.training.cost import cost
from finetune.training.ensemble import EnsembleTrainer, make_trainer
from finetune.training.predictor import Predictor
from finetune.training.trainer import Trainer
from finetune.training.unfinished import Unfinished

log = logging.getLogger("finetune")

NEXT_STEPS = """
Next:
  python -m finetune run {arguments}
  python -m finetune predict {run} PHOTO.jpg
  python -m export serve {run}"""


def run(config: Config, device: Device, reporter: Ahead, exporter: Ahead) -> Path:
    """Everything, ending with a verified export. Returns the run folder."""
    folder, again = learn(config, device, reporter, exporter)
    started = time.perf_counter()
    if exporter.done():
        log.info("export and comparison: %.1f s", time.perf_counter() - started)
    else:  # it has said why
        again.append(f"python -m export {quoted(folder)}")
    check_complete(folder, again)
    given = config.model.pretrain_ckpt
    arguments = "--dataset_path YOUR_PICTURES" + (f" --pretrain_ckpt {quoted(given)}" if given else "")
    arguments = arguments if config.model.backbone else quoted(folder / "config.yaml")
    log.info(NEXT_STEPS.format(run=quoted(folder), arguments=arguments))
    return folder


def train(config: Config, device: Device, reporter: Ahead) -> Path:
    """Everything but the export. Returns the run folder."""
    folder, again = learn(config, device, reporter)
    check_complete(folder, again)
    return folder


def quoted(path: str | Path) -> str:
    """For a command line that can be pasted."""
    return shlex.quote(str(path)) if os.name == "posix" else f'"{path}"' if " " in str(path) else str(path)


def check_complete(folder: Path, again: list[str]) -> None:
    """Raises MachineFault where something did not come of it; all else is complete by then."""
    if again:
        raise MachineFault(f"{folder}: trained and evaluated, but not all came of it. Repeat: {' && '.join(again)}")


def learn(config: Config, device: Device, reporter: Ahead, *others: Ahead) -> tuple[Path, list[str]]:
    """(the run folder, commands that must be repeated); the others are told its name when they can begin."""
    clock = Clock()
    dataset, backbone = load_inputs(config)
    folder = run_folder.create(config, dataset.name)
    run_folder.log_to(folder)
    run_folder.write_environment(folder, device, config.seed)
    log_inputs(config, device, dataset, backbone)
    clock.lap("load")

    found, split, findings, train_x, make, save = (on_backbone if backbone else on_pixels)(
        config, device, dataset, backbone, folder
    )
    log.info("split: %d train, %d validation, %d evaluation", *(len(rows) for rows in vars(split).values()))
    if backbone and config.data.views:
        write_views(dataset, found, split)
    write_split(folder / "split.json", dataset, split)
    clock.lap("features")

    train_rows, valid_rows, eval_rows = (
        (held(found.rows, rows), dataset.labels[rows]) for rows in vars(split).values()
    )
    network = make()
    trainer = trainer_of(config, device, dataset, network, train_x, train_rows[1], valid_rows)
    before = evaluate(trainer.predictor, *eval_rows, dataset.classes)
    baselines = {
        "majority_class": majority_class(train_rows[1], eval_rows[1]),
        "nearest_class_mean": nearest_class_mean(*train_rows, *eval_rows),
    }
    clock.lap("before")

    fitted = trainer.fit(on_epoch=log.info)
    costs = cost(network)
    linear = tuned = None
    if config.model.cut is None:
        save(split, network)
        clock.lap("training")
        confidence = calibrate(trainer, config.train.calibration_folds, config.train.resamples)
        clock.lap("calibration")
        after = evaluate(trainer.predictor, *eval_rows, dataset.classes)
    else:
        clock.lap("training")
        linear = evaluate(trainer.predictor, *eval_rows, dataset.classes)
        tuned = fine_tune(config, device, dataset, backbone, split, network, folder)
        fitted, costs, confidence = fitted.followed_by(tuned.fitted), {"parameters": tuned.parameters}, tuned.confidence
        clock.lap("fine-tuning")
        after = evaluate(Predictor(tuned.head), tuned.features["eval"], eval_rows[1], dataset.classes)
    log.info(in_words(confidence))
    write_csv(folder / "results.csv", [row.to_dict() for row in fitted.history])
    write_predictions(folder / "predictions.csv", dataset, split.eval, before, after, linear)
    clock.lap("after")

    numbers = {
        "classes": list(dataset.classes),
        "trained": "head" if backbone else "network",
        "head": asdict(trainer.chosen) if config.train.head != "gradient" else None,
        "image": image_in_short(config, backbone),
        "mirror_mean": bool(backbone and backbone.record.mirror_mean),
        "beside_last": list(backbone.record.beside_last) if backbone else [],
        **costs,
        "best_epoch": fitted.best_epoch,
        "before": before.metrics,
        **baselines,
        **against_linear(linear, after, eval_rows[1]),
        "after": after.metrics,
        "confidence": confidence and confidence.to_dict(),
        "novelty": novelty_of_a_run(config, dataset, found, split, folder, tuned and tuned.features),
        **findings.to_dict(),
        "features": {
            "computed": found.computed,
            "cached": len(dataset) - found.computed - len(found.damaged) if backbone else 0,
        },
        "peak_memory_mb": run_folder.peak_memory_mb(),
        "seconds": clock.seconds,
    }
    write_json(folder / "metrics.json", numbers)
    for command in others:
        command.tell(folder)
    again = []
    if backbone and not beside_a_run(config, dataset, found, split, folder):
        again.append(f"python -m finetune insight {quoted(folder)}")
    reporter.tell(folder)
    log.info(summary(numbers))
    if better := no_better_than(numbers):
        log.warning(better)
    if not reporter.done():
        return folder, [*again, f"python -m finetune report {quoted(folder)}"]
    log.info("report: %s", folder / "report.html")
    return folder, again


def with_others(verb: str, config: Config, device: Device) -> None:
    """What one of many workers does: the first the whole job, the others only train along."""
    share = device.share
    print(f"worker {share.rank} of {share.workers}, process {os.getpid()}", flush=True)
    config = without_contradiction(replace(config, workers=share.workers))  # which may not have been said
    if share.rank:
        train_along(config, device)
        return
    with ahead_of(verb, config) as others:
        {"run": run, "train": train}[verb](config, device, *others)


def train_along(config: Config, device: Device) -> None:
    """The same trainings as `learn`, on this worker's share of the rows; nothing is written, nothing is said."""
    log.setLevel(logging.ERROR)
    dataset, backbone = load_inputs(config)
    found, split, _, train_x, make, _ = (on_backbone if backbone else on_pixels)(
        config, device, dataset, backbone, Path()
    )
    train_y, valid_rows = dataset.labels[split.train], (held(found.rows, split.valid), dataset.labels[split.valid])
    network = make()
    trainer = trainer_of(config, device, dataset, network, train_x, train_y, valid_rows)
    trainer.fit(on_epoch=log.info)
    if config.model.cut is None:
        calibrate(trainer, config.train.calibration_folds, config.train.resamples)
    else:
        tail = tail_trainer(config, device, dataset, backbone, split, network)
        train_tail(tail, Unfinished(Path(config.runs_dir, "of another worker")))


def trainer_of(
    config: Config, device: Device, dataset: Dataset, network, train_x, train_y: np.ndarray, valid_rows: tuple
) -> Trainer | EnsembleTrainer | HeadChooser:
    train = resampled(train_x, train_y, config.train, config.seed)
    how = config.train, len(dataset.classes), config.seed
    if config.train.head != "gradient":
        return HeadChooser(network, train, valid_rows, *how)
    return make_trainer(network, train, valid_rows, *how, share=device.share)


def against_linear(linear: Evaluation | None, after: Evaluation, y: np.ndarray) -> dict:
    """What metrics.json says of the linear head that fine-tuning began with, and whether the difference is chance."""
    if linear is None:
        return {}
    right = [one.probabilities.argmax(1) == y for one in (after, linear)]
    return {"linear_head": linear.metrics, "mcnemar_p": mcnemar(*right)}


def features(config: Config, device: Device) -> None:
    """Only fill the cache and write the views.

    Raises:
        InputError: there is no backbone to compute them.
    """
    dataset, backbone = load_inputs(config)
    if backbone is None:
        raise InputError("model.backbone is null: without a backbone there are no features to compute.")
    log_inputs(config, device, dataset, backbone)
    found, split, *_ = on_backbone(config, device, dataset, backbone, Path())
    if config.model.cut is not None:
        cut_rows(config, device, dataset, backbone, split)
    if config.data.views:
        write_views(dataset, found, split)


class Clock:
    """Seconds of each phase, in order."""

    def __init__(self):
        self.seconds: Counter[str] = Counter()
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += round(now - self.last, 3)
        self.last = now
