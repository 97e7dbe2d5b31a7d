"""What grows with the number of pictures, and how: seconds and memory of each step for 10^4, 10^5 and 10^6 rows.

    python -m benchmarks.growth --scratch FOLDER [--rows 10000 100000 1000000] [--features 1280]
    python -m benchmarks.growth --scratch FOLDER --keys 100000000

Features are random numbers that go straight into the store, keys are made up, pictures are empty files. Each step has a
process of its own; its memory is the largest resident one, less what the process had before the step with MindSpore
imported. Pages of mapped files count. A slope of 1 means that ten times the rows take ten times as long. With --keys
the index alone is tried: no rows, sorted keys only.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CLASSES = 10
EPOCHS = 2  # the second is reported: the first compiles
FACTS = {"benchmark": "growth"}
LARGE_ROWS = 13_107  # of a chunk of 64 MB


def keys_of(count: int):
    import numpy as np

    from finetune.storage.chunk import KEY

    return np.frombuffer(np.random.default_rng(7).bytes(32 * count), KEY)


def open_store(place: Path, count: int):
    from finetune.storage.store import FeatureStore

    return FeatureStore(place / str(count), FACTS)


def rows_of(place: Path, count: int):
    from finetune.storage.rows import StoredRows

    return StoredRows(open_store(place, count), keys_of(count))


def labels_of(count: int):
    import numpy as np

    return np.random.default_rng(3).integers(CLASSES, size=count).astype(np.int32)


# Steps: each is called with everything imported and returns what is to be timed


def writing(place: Path, count: int, features: int) -> Callable:
    import numpy as np

    from finetune.storage.chunk import write_chunk

    def write() -> None:
        store, keys, rng = open_store(place, count), keys_of(count), np.random.default_rng(1)
        for start in range(0, count, LARGE_ROWS):
            some = keys[start : start + LARGE_ROWS]
            write_chunk(store.folder, some, rng.standard_normal((len(some), features), np.float32))
        store.merge()

    return write


def listing(place: Path, count: int, features: int) -> Callable:
    from datasets.folder import load_folder

    root = pictures(place, count)
    return lambda: load_folder(root)


def digests(place: Path, count: int, features: int) -> Callable:
    """The first time of new files, after that of unchanged ones."""
    from finetune.storage import digests

    digests.SETTLED_SECONDS = -1  # these files are young
    root = pictures(place, count)
    paths = [root / f"{n % CLASSES}" / f"{n:08d}.jpg" for n in range(count)]
    return lambda: digests.hash_files(paths, root, 2)


def pictures(place: Path, count: int) -> Path:
    root = place / f"{count}_pictures"
    if not root.exists():
        for n in range(count):
            folder = root / f"{n % CLASSES}"
            if n < CLASSES:
                folder.mkdir(parents=True)
            (folder / f"{n:08d}.jpg").touch()
    return root


def start(place: Path, count: int, features: int) -> Callable:
    """What a run does before it knows that all rows are there and, if they are few, whole; given the keys."""
    from finetune.storage.rows import StoredRows
    from finetune.storage.store import FeatureStore

    keys = keys_of(count)

    def warm() -> None:
        store = FeatureStore(place / str(count), FACTS)
        store.merge_if_many()
        rows = StoredRows(store, keys)
        rows.drop_changed()
        assert rows.there.all()

    return warm


def reading(place: Path, count: int, features: int) -> Callable:
    rows = rows_of(place, count)

    def read() -> None:
        for first in range(0, count, 8192):
            rows[first : first + 8192]

    return read


def training(place: Path, count: int, features: int) -> Callable:
    from finetune.config import TrainConfig
    from finetune.storage.rows import held
    from finetune.training.networks import Head
    from finetune.training.trainer import Trainer

    def train() -> float:
        x, y = held(rows_of(place, count)), labels_of(count)
        trainer = Trainer(Head(features, CLASSES), (x, y), (x[:0], y[:0]), TrainConfig(epochs=EPOCHS), CLASSES, 1)
        return trainer.fit(on_epoch=lambda line: None).history[1].seconds

    return train


def evaluation(place: Path, count: int, features: int) -> Callable:
    from finetune.evaluation.evaluate import evaluate
    from finetune.storage.rows import held
    from finetune.training.networks import Head
    from finetune.training.predictor import Predictor

    classes = tuple(map(str, range(CLASSES)))

    def judge() -> None:
        evaluate(Predictor(Head(features, CLASSES)), held(rows_of(place, count)), labels_of(count), classes)

    return judge


STEPS = {
    "writing the rows and the index": writing,
    "listing the folder": listing,
    "digests of new, empty files": digests,
    "digests of unchanged files": digests,
    "start with all rows cached": start,
    "reading and checking all rows": reading,
    "training, an epoch": training,
    "evaluating all rows": evaluation,
}


def measure(name: str, place: Path, count: int, features: int) -> None:
    """In a process of its own."""
    from benchmarks.contest import peak_mb, report
    from finetune.device import init_device

    init_device("CPU")
    todo = STEPS[name](place, count, features)
    before, started = peak_mb(), time.perf_counter()
    seconds = todo()
    took = time.perf_counter() - started
    report(seconds=seconds if isinstance(seconds, float) else took, megabytes=peak_mb() - before)


def measured(*arguments: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.growth", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def slope(counts: list[int], values: list[float]) -> float:
    """Of the straight line through the last two points, both axes logarithmic."""
    return math.log(max(values[-1], 1e-3) / max(values[-2], 1e-3)) / math.log(counts[-1] / counts[-2])


def table(counts: list[int], place: Path, features: int) -> None:
    head = "".join(f" {count:,} |" for count in counts)
    print(f"{features} float32 a row; seconds, and MB beyond MindSpore\n\n| step |{head} slope |")
    print("|---" * (len(counts) + 2) + "|", flush=True)
    for name in STEPS:
        sized = [(str(place), str(count), str(features)) for count in counts]
        found = [measured("--scratch", at, "--step", name, "--rows", n, "--features", d) for at, n, d in sized]
        cells = "".join(f" {one['seconds']:.2g} s, {one['megabytes']:.0f} MB |" for one in found)
        grows = slope(counts, [one["seconds"] for one in found]) if len(counts) > 1 else math.nan
        print(f"| {name} |{cells} {grows:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True, help="an empty folder, with 7 GB for a million rows")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--features", type=int, default=1280, help="numbers a row")
    parser.add_argument("--keys", type=int, help="try an index of so many keys instead, 40 bytes each")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.keys:
        from benchmarks.growth.index import try_index

        try_index(given.scratch, given.keys, keys_of)
    elif given.step:
        measure(given.step, given.scratch, given.rows[0], given.features)
    else:
        table(sorted(given.rows), given.scratch, given.features)


if __name__ == "__main__":
    main()
