"""The accuracy of a finished run, on its own evaluation pictures or on another folder.

python -m finetune eval runs/cats_vs_dogs
python -m finetune eval runs/cats_vs_dogs --dataset_path more_pictures
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.image import ImageSpec, from_pixels, load_images, normalise
from datasets.load import load
from finetune.config import Config
from finetune.device import Device
from finetune.evaluation.evaluate import evaluate
from finetune.features.cache import extract
from finetune.features.engines.choose import choose_engine
from finetune.run_folder import evaluation_pictures, read_json
from finetune.storage.digests import hash_files
from finetune.storage.rows import held
from finetune.trained import load_trained
from finetune.training.predictor import Predictor

log = logging.getLogger("finetune")


def show(run: Path, dataset_path: str | None, config: Config, device: Device) -> dict:
    """Print the metrics and return them.

    Raises:
        InputError: not a finished run, no pictures, or classes that the run does not know.
    """
    split = read_json(run, "split.json")
    trained = load_trained(run)
    pictures, labels = _pictures(run, split, dataset_path, trained.image, config.cache_dir, device.threads)
    if trained.backbone is None:
        images, damaged = load_images(pictures, trained.image)
        readable = np.array([row not in damaged for row in range(len(images))])
        damaged = {str(pictures[row]): reason for row, reason in damaged.items()}
        rows = normalise(images, trained.image)
    else:
        engine = choose_engine(trained.backbone, device, config)
        found = extract(pictures, trained.backbone, engine, config.cache_dir, device.threads)
        rows, readable, damaged = found.rows, found.readable, found.damaged
    for path, reason in damaged.items():
        log.warning("left out: %s: %s", path, reason)
    if not readable.any():
        raise InputError(
            f"{dataset_path or split['root']}: none of its {len(pictures)} pictures can be read, see above. "
            "Put them back, or give other pictures with --dataset_path."
        )
    metrics = evaluate(
        Predictor(trained.head), held(rows, np.flatnonzero(readable)), labels[readable], trained.classes
    ).metrics
    low, high = metrics["interval"]
    log.info(
        "%d pictures: accuracy %.1f %%, 95 %% interval %.1f .. %.1f %%, loss %.4f",
        *(metrics["pictures"], 100 * metrics["accuracy"], 100 * low, 100 * high, metrics["loss"]),
    )
    present = {name: row for name, row in metrics["per_class"].items() if row["pictures"]}
    if len(present) < len(trained.classes):
        log.info("no pictures of: %s", ", ".join(name for name in trained.classes if name not in present))
    for name, row in present.items():
        log.info(
            "  %-20s %4d pictures, recall %5.1f %%, precision %5.1f %%",
            name,
            row["pictures"],
            100 * row["recall"],
            100 * row["precision"],
        )
    return metrics


def also_trained(split: dict, paths: Sequence[Path], cache_dir: str, threads: int) -> int:
    """How many of the pictures, or copies of them, trained a run, as far as its own are still there."""
    root = Path(split["root"])
    own = [root / name for part in ("train", "valid") for name in split[part]]
    own, given = ([path for path in some if os.access(path, os.R_OK)] for some in (own, paths))
    keys, _ = hash_files([*own, *given], Path(cache_dir), threads)
    trained = set(keys[: len(own)])
    return sum(key in trained for key in keys[len(own) :])


def _pictures(
    run: Path, split: dict, dataset_path: str | None, image: ImageSpec, cache_dir: str, threads: int
) -> tuple[list[Path] | np.ndarray, np.ndarray]:
    """The files to evaluate, or their array, and their labels in the order of the run's classes."""
    if dataset_path is None:
        labels = [split["classes"].index(name) for name in split["eval"].values()]
        return evaluation_pictures(run), np.array(labels, np.int32)
    dataset = load(dataset_path, cache_dir, least_classes=1)
    unknown = sorted(set(dataset.classes) - set(split["classes"]))
    if unknown:
        raise InputError(
            f"{dataset.root}: the class {unknown[0]!r} is not one of {run}: {', '.join(split['classes'])}. "
            "Rename or remove its folder."
        )
    if dataset.paths is not None and (count := also_trained(split, dataset.paths, cache_dir, threads)):
        log.warning("%d of these pictures trained this run: the accuracy is too high", count)
    to_run_label = np.array([split["classes"].index(name) for name in dataset.classes], np.int32)
    pictures = list(dataset.paths) if dataset.pixels is None else from_pixels(dataset.pixels, image)
    return pictures, to_run_label[dataset.labels]
