"""Is the exported model the trained network? Compared on the real evaluation pictures, and judged.

The exported file is run by a fresh process that knows the file and its manifest only. Three answers
are compared a picture: the exported file's, the CKPT's, and what evaluation wrote to predictions.csv.
"""

from __future__ import annotations

import csv
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.image import load_images
from export.predictors import BATCH_SIZE, load_predictor
from finetune.config import Config
from finetune.device import init_device
from finetune.run_folder import read_json

# Largest difference of a probability. The first two run the same arithmetic on the same machine;
# the third was computed in another batch, perhaps by another engine or on another day.
TOLERANCE = 1e-5
EVALUATION_TOLERANCE = 1e-3
SECOND_BATCH_SIZE = 3  # a graph that has its batch size baked in fails here


def compare(run: Path, model: Path, threads: int = Config.threads) -> dict:
    """Run all evaluation pictures through CKPT and model and return the judgement for parity.json.

    Raises:
        InputError: no evaluation picture can be read, or the run is not finished.
    """
    split = read_json(run, "split.json")
    paths = [Path(split["root"], name) for name in split["eval"]]
    labels = np.array([split["classes"].index(name) for name in split["eval"].values()])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh_process:
        answer = fresh_process.submit(predict_files, model, paths, BATCH_SIZE, threads)
        second = fresh_process.submit(predict_files, model, paths[:BATCH_SIZE], SECOND_BATCH_SIZE, threads)
        reference, readable = predict_files(run, paths, BATCH_SIZE, threads)
        exported, _ = answer.result()
        in_second_batch, _ = second.result()
    if not readable.any():
        raise InputError(f"{split['root']}: none of the evaluation pictures of {run} can be read there any more.")
    evaluated = read_probabilities(run, split["classes"])
    return judge(
        reference[readable],
        exported[readable],
        in_second_batch,
        evaluated[readable],
        labels[readable],
        int((~readable).sum()),
    )


def judge(reference, exported, in_second_batch, evaluated, labels, unreadable: int) -> dict:
    """Compare probabilities (N, C) of the CKPT, the exported file and the evaluation.

    `in_second_batch` are the first pictures again, in batches of another size.
    """
    differences = {
        "to_ckpt": float(np.abs(exported - reference).max()),
        "to_ckpt_second_batch_size": float(np.abs(in_second_batch - exported[: len(in_second_batch)]).max()),
        "to_evaluation": float(np.abs(exported - evaluated).max()),
    }
    same_class = int((exported.argmax(1) == reference.argmax(1)).sum())
    faults = []
    if not np.isfinite(exported).all():
        faults.append("the exported model gives values that are not numbers")
    for name, limit in (
        ("to_ckpt", TOLERANCE),
        ("to_ckpt_second_batch_size", TOLERANCE),
        ("to_evaluation", EVALUATION_TOLERANCE),
    ):
        if not differences[name] <= limit:
            faults.append(f"difference {name} {differences[name]:.2e} is above {limit:.0e}")
    if same_class < len(reference):
        faults.append(f"another class than the CKPT on {len(reference) - same_class} of {len(reference)} pictures")
    return {
        "equal": not faults,
        "faults": faults,
        "pictures": len(reference),
        "unreadable": unreadable,
        "same_class": same_class,
        "largest_difference": differences,
        "tolerance": {"to_ckpt": TOLERANCE, "to_evaluation": EVALUATION_TOLERANCE},
        "accuracy": {
            "ckpt": float((reference.argmax(1) == labels).mean()),
            "exported": float((exported.argmax(1) == labels).mean()),
        },
    }


def predict_files(model: Path, paths: list[Path], batch_size: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities (N, C), readable (N,)) of files by a run or an exported model, on the CPU."""
    init_device("CPU", threads=threads)
    predictor = load_predictor(model)
    images, damaged = load_images(paths, predictor.image)
    readable = np.array([row not in damaged for row in range(len(paths))])
    return predictor(images, batch_size), readable


def read_probabilities(run: Path, classes: list[str]) -> np.ndarray:
    """float (N, C) as evaluation wrote them to predictions.csv."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return np.array([[float(row[f"p_{name}"]) for name in classes] for row in csv.DictReader(file)])
