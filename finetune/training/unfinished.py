"""A training that was stopped goes on: the state after each whole epoch, in the run folder until the end.

A repeated command makes a run folder of its own, and looks for the state in its neighbours: it takes the one that is
furthest among those of the very same training, told by a digest of everything that decides its result.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from datasets.files import replace_file

NAME = Path("ckpt", "unfinished.npz")

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class State:
    """Of a training after an epoch."""

    digest: str  # of what is trained, on what, and how
    epoch: int
    best_epoch: int
    best_loss: float
    history: list[dict]  # a row an epoch
    random: list[dict]  # states of the generators
    weights: Arrays
    best: Arrays  # the weights of the best epoch
    optimizer: Arrays


ARRAYS = ("weights", "best", "optimizer")


class Unfinished:
    """The state's file of one run. Each run removes its own at its end, and the one it went on from."""

    def __init__(self, run: Path):
        self.file = run / NAME
        self.others = run.parent
        self.used: Path | None = None

    def find(self, digest: str) -> State | None:
        best = None
        for file in sorted(self.others.glob(f"*/{NAME.as_posix()}")):
            state = read(file)
            if state and state.digest == digest and (best is None or state.epoch > best.epoch):
                best, self.used = state, file
        return best

    def write(self, state: State) -> None:
        facts = {field.name: getattr(state, field.name) for field in fields(state) if field.name not in ARRAYS}
        arrays = {f"{name}_{i}": one for name in ARRAYS for i, one in enumerate(getattr(state, name))}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.file, lambda file: np.savez(file, facts=np.array(json.dumps(facts)), **arrays))

    def remove(self) -> None:
        for file in {self.file, self.used} - {None}:
            with contextlib.suppress(OSError):  # another run's folder may be read-only
                file.unlink(missing_ok=True)


def read(file: Path) -> State | None:
    """None where it is not whole: its training begins anew."""
    try:
        with np.load(file) as found:
            facts = json.loads(str(found["facts"]))
            arrays = {name: numbered(found, name) for name in ARRAYS}
        return State(**facts, **arrays)
    except Exception:  # NumPy raises nearly any type on a damaged head
        return None


def numbered(found: Sequence, name: str) -> Arrays:
    count = sum(key.startswith(f"{name}_") for key in found)
    return tuple(found[f"{name}_{i}"] for i in range(count))
