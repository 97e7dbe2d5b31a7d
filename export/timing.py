"""How long one picture takes in an exported file, with one thread and with all, each in a process of its own.

MindSpore takes its number of threads once, when it starts.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from export.predictors import load_predictor
from finetune.device import init_device, usable_cores

WARM_UP, TIMES = 5, 30  # pictures


def milliseconds(model: Path, threads: int, key: bytes | None = None) -> dict[str, float]:
    """The median of single pictures that are prepared already; `threads`: of the second, 0 takes all cores."""
    everything = threads or usable_cores()
    found = {}
    for name, count in (("one_thread", 1), ("all_threads", everything)):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found[name] = process.submit(median, model, count, key).result()
    return {**found, "threads": everything}


def median(model: Path, threads: int, key: bytes | None) -> float:
    init_device("CPU", threads=threads)
    predictor = load_predictor(model, threads, key)
    picture = np.random.default_rng(0).integers(0, 256, (1, *predictor.image.size, predictor.image.channels), np.uint8)
    (given,) = predictor.inputs(picture, 1)
    fixed = predictor.facts["input"]["shape"][0]
    given = np.repeat(given, max(fixed, 1), 0)
    taken = []
    for _ in range(WARM_UP + TIMES):
        started = time.perf_counter()
        predictor.compute(given)
        taken.append(1000 * (time.perf_counter() - started) / len(given))
    return round(statistics.median(taken[WARM_UP:]), 2)
