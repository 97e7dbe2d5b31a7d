"""How long the whole of insight takes with many pictures, by stage, and how much memory it needs at most.

    python -m benchmarks.insight.scale --scratch FOLDER [--pictures 20000]

Rows and pictures are drawn, seeded: ten overlapping classes of 20 kinds each, whose pictures are alike as those on one
sheet are, so that the search for near copies has as much to decide as with photographs of clothing. Beside them 1 % are
copies in smaller files. Studied in a process of its own, which holds MindSpore as the command does; the features are
there already. Processor seconds are those of all threads: on a machine with other work wall seconds say little.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.config import load_config
from finetune.device import init_device

WIDTH, CLASSES, KINDS = 1280, 10, 20
SIDE, COARSE = 256, 12  # pixels of a picture, and of the noise that it is enlarged from
ALIKE = (0.3, 0.8)  # share of its kind in a picture, from one kind to another
COPIES = 0.01
STAGES = ("cross_validate", "learning_curve", "look", "proposed", "find", "look_at_labels", "look_at_failures")


def draw(folder: Path, count: int) -> None:
    """Pictures 0.jpg, 1.jpg ..., and rows.npz with x (N, D) and y (N,), unless they are there already."""
    if (folder / "rows.npz").is_file() and len(np.load(folder / "rows.npz")["y"]) == count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    y, kind = rng.integers(0, CLASSES, count), rng.integers(0, KINDS, count)
    centres, kinds = rng.normal(0, 0.3, (CLASSES, WIDTH)), rng.normal(0, 0.8, (CLASSES, KINDS, WIDTH))
    x = np.empty((count, WIDTH), np.float32)
    sheets, shares = rng.uniform(0, 255, (CLASSES, KINDS, COARSE, COARSE, 3)), rng.uniform(*ALIKE, (CLASSES, KINDS))
    copies = dict(zip(range(count - round(COPIES * count), count), range(count)))  # the last ones are of the first
    for row in range(count):
        label, its = y[row], kind[row]
        share = shares[label, its]
        x[row] = np.abs(centres[label] + kinds[label, its] + rng.normal(0, 1.0, WIDTH))
        noise = share * sheets[label, its] + (1 - share) * rng.uniform(0, 255, (COARSE, COARSE, 3))
        picture = Image.fromarray(noise.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        if row in copies:
            x[row], y[row] = x[copies[row]] + rng.normal(0, 0.05, WIDTH), y[copies[row]]
            picture = Image.open(folder / f"{copies[row]}.jpg").resize((SIDE // 2, SIDE // 2))
        picture.save(folder / f"{row}.jpg")
    np.savez(folder / "rows.npz", x=x, y=y)


def timed(call, name: str):
    """It says how long each call took."""

    @functools.wraps(call)
    def wrapped(*given, **named):
        wall, processor = time.perf_counter(), processor_seconds()
        result = call(*given, **named)
        wall, processor = time.perf_counter() - wall, processor_seconds() - processor
        print(f"  {name:16}  {processor:6.1f} processor seconds, {wall:6.1f} s", flush=True)
        return result

    return wrapped


def processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


def whole(folder: Path) -> None:
    """Study the rows of a folder, in this process."""
    from finetune.insight import study

    init_device("CPU")
    for name in STAGES:
        place = study if hasattr(study, name) else study.copies
        setattr(place, name, timed(getattr(place, name), name))
    with np.load(folder / "rows.npz") as file:
        x, y = file["x"], file["y"].astype(np.int32)
    names = [f"{row}.jpg" for row in range(len(y))]
    parts = np.where(np.arange(len(y)) % 5, "train", "eval")
    classes = tuple(f"class {number}" for number in range(CLASSES))
    rows = study.Rows(x, y, classes, names, [folder / name for name in names], names, parts, None)
    found = timed(study.study, "the whole")(rows, load_config(None, {}), folder)
    accuracy, curve = found["number"]["accuracy"], found["curve"]["words"]
    print(f"accuracy {100 * accuracy:.1f} %, {found['copies']['pairs']} pairs of copies; {curve}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the process that is measured
    given = parser.parse_args()
    if given.inside:
        whole(given.scratch)
        return
    import resource

    draw(given.scratch, given.pictures)
    print(f"{given.pictures} pictures:", flush=True)
    words = ["--scratch", given.scratch, "--pictures", str(given.pictures), "--inside"]
    subprocess.run([sys.executable, "-m", "benchmarks.insight.scale", *words], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"  at most {peak / 2**20:.2f} GB of memory")


if __name__ == "__main__":
    main()
