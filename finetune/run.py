"""The main job: pictures in folders -> a trained, evaluated, exported classifier in a run folder.

    python -m finetune run --dataset_path PICTURES --pretrain_ckpt MOBILENETV2.ckpt

The device is initialised before this module is imported.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from datasets.base import Dataset, InputError, Split
from datasets.load import load
from datasets.split import make_split, write_split
from finetune import report, run_folder
from finetune.calibrate import calibrate, in_words
from finetune.config import Config
from finetune.device import Device
from finetune.engines.choose import choose_engine
from finetune.evaluate import evaluate, write_predictions
from finetune.features import extract, usable_split, write_views
from finetune.metrics import majority_class, nearest_class_mean
from finetune.networks import Head
from finetune.train import fit
from finetune.trained import save_trained
from pretrained.weights import Backbone, load_backbone

log = logging.getLogger("finetune")

NEXT_STEPS = """
Next:
  python -m finetune run --dataset_path YOUR_PICTURES --pretrain_ckpt {ckpt}
  python -m finetune predict {run} PHOTO.jpg
  python -m export verify {run}"""


def run(config: Config, device: Device) -> Path:
    """Everything, ending with a verified export. Returns the run folder."""
    folder = train(config, device)
    started = time.perf_counter()
    export(folder, config)
    log.info("export and comparison: %.1f s", time.perf_counter() - started)
    log.info(NEXT_STEPS.format(run=folder, ckpt=config.model.pretrain_ckpt))
    return folder


def train(config: Config, device: Device) -> Path:
    """Everything but the export. Returns the run folder."""
    clock = Clock()
    dataset, backbone, split = load_inputs(config)
    folder = run_folder.create(config, dataset.name)
    run_folder.log_to(folder)
    run_folder.write_environment(folder, device, config.seed)
    log_inputs(device, dataset, backbone, split)
    clock.lap("load")

    found = extract(dataset.paths, backbone, choose_engine(backbone, device, config), config.cache_dir, device.threads)
    split = usable_split(dataset, found, split)
    if config.data.views:
        write_views(dataset, found, split)
    write_split(folder / "split.json", dataset, split)
    clock.lap("features")

    x, y = found.rows, dataset.labels
    head = Head(backbone.feature_size, len(dataset.classes), config.model.hidden, config.model.dropout, config.seed)
    before = evaluate(head, x[split.eval], y[split.eval], dataset.classes)
    baselines = {
        "majority_class": majority_class(y[split.train], y[split.eval]),
        "nearest_class_mean": nearest_class_mean(x[split.train], y[split.train], x[split.eval], y[split.eval]),
    }
    clock.lap("before")

    fitted = fit(
        head,
        (x[split.train], y[split.train]),
        (x[split.valid], y[split.valid]),
        config.train,
        len(dataset.classes),
        config.seed,
        log.info,
    )
    save_trained(folder, backbone, head)
    run_folder.write_csv(folder / "results.csv", [row.to_dict() for row in fitted.history])
    clock.lap("training")

    confidence = calibrate(
        (x[split.train], y[split.train]), (x[split.valid], y[split.valid]), len(dataset.classes), config
    )
    log.info(in_words(confidence))
    clock.lap("calibration")

    after = evaluate(head, x[split.eval], y[split.eval], dataset.classes)
    write_predictions(folder / "predictions.csv", dataset, split.eval, before, after)
    clock.lap("after")

    numbers = {
        "classes": list(dataset.classes),
        "best_epoch": fitted.best_epoch,
        "before": before.metrics,
        **baselines,
        "after": after.metrics,
        "confidence": confidence and confidence.to_dict(),
        "damaged": found.damaged,
        "features": {
            "computed": found.computed,
            "cached": len(dataset) - found.computed - len(found.damaged),
        },
        "seconds": clock.seconds,
    }
    run_folder.write_json(folder / "metrics.json", numbers)
    report.write(folder)
    clock.lap("report")
    run_folder.write_json(folder / "metrics.json", numbers)
    log.info(report.summary(numbers))
    log.info("report: %s", folder / "report.html")
    return folder


def features(config: Config, device: Device) -> None:
    """Only fill the cache and write the views."""
    dataset, backbone, split = load_inputs(config)
    log_inputs(device, dataset, backbone, split)
    found = extract(dataset.paths, backbone, choose_engine(backbone, device, config), config.cache_dir, device.threads)
    split = usable_split(dataset, found, split)
    if config.data.views:
        write_views(dataset, found, split)


def load_inputs(config: Config) -> tuple[Dataset, Backbone, Split]:
    """Check what was given before anything is written.

    Raises:
        InputError: something is missing or cannot be used.
    """
    if not config.model.pretrain_ckpt:
        raise InputError(
            "Give the backbone's weights with --pretrain_ckpt FILE.ckpt, a MindSpore CKPT of MobileNetV2; README.md "
            "says where to find one. Without --dataset_path the drawn sample set is used."
        )
    dataset = load(config.data.dataset_path, config.cache_dir)
    split = make_split(dataset, config.data.valid_fraction, config.data.eval_fraction, config.seed)
    backbone = load_backbone(config.model.pretrain_ckpt)
    return dataset, backbone, split


def log_inputs(device: Device, dataset: Dataset, backbone: Backbone, split: Split) -> None:
    log.info("device: %s, %d threads; kernel guard %s", device.platform, device.threads, device.kernel_guard)
    log.info(
        "pictures: %s, %d in %d classes (%s)",
        dataset.root,
        len(dataset),
        len(dataset.classes),
        ", ".join(dataset.classes),
    )
    log.info("split: %d train, %d validation, %d evaluation", *(len(rows) for rows in vars(split).values()))
    log.info("weights: %s, width %s; facts: %s", backbone.path, backbone.record.width, backbone.facts_from)


def export(folder: Path, config: Config) -> None:
    """`python -m export RUN` in a process of its own: the run folder is the only thing handed over.

    Raises:
        InputError: the export or its comparison failed; it has said why.
    """
    wanted = ["--file_format", *config.export.file_format, "--input_form", *config.export.input_form]
    command = [sys.executable, "-m", "export", str(folder), *wanted]
    if subprocess.run(command, cwd=Path.cwd()).returncode:
        raise InputError(f"{folder}: trained and evaluated, but not exported. Repeat with: python -m export {folder}")


class Clock:
    """Seconds of each phase, in order."""

    def __init__(self):
        self.seconds: Counter[str] = Counter()
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += round(now - self.last, 3)
        self.last = now
