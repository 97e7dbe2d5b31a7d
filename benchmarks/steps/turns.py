"""What both contestants share: arguments, rows, the head they begin with, and steps when they are asked for.

A contestant lives until its input ends. A line says which step is the next and how many; the answer is a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WHOLE = 0  # the cut in front of which stand the pictures themselves
PREFIX = "RESULT "


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pretrain_ckpt", type=Path, required=True)
    parser.add_argument("--place", type=Path, required=True, help="folder with weights.npz, weights.json and rows")
    parser.add_argument("--cut", type=int, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def rows_of(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """What stands in front of the cut, float16 (N, C, H, W), or pictures uint8 (N, H, W, 3); and labels int32 (N,)."""
    with np.load(given.place / f"{given.cut}.npz") as found:
        return found["x"], found["y"]


def head_weights(y: np.ndarray, feature_size: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.01, (y.max() + 1, feature_size)).astype(np.float32)


def take_turns(steps: Callable, given: argparse.Namespace, count: int) -> None:
    """`steps(places)` trains on these of `count` rows, batch by batch, and returns the mean loss."""
    for line in sys.stdin:
        first, number = map(int, line.split())
        places = np.arange(first * given.batch_size, (first + number) * given.batch_size) % count
        started, cpu = time.perf_counter(), cpu_seconds()
        loss = steps(places)
        taken = {"seconds": time.perf_counter() - started, "cpu": cpu_seconds() - cpu, "loss": loss}
        print(PREFIX + json.dumps(taken), flush=True)


def cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system
