"""Copies planted among real pictures: how many insight finds, and how many pairs it names that are none.

    python -m benchmarks.insight.copies --dataset_path PICTURES --pretrain_ckpt WEIGHTS.ckpt --scratch FOLDER

A copy of the data set is made in FOLDER; 40 pictures of its training part are planted in the evaluation part,
seeded: a quarter each re-encoded as JPEG of quality 40, resized to 60 %, cropped to 85 % of each side, and all three.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.load import load
from finetune.config import load_config
from finetune.device import init_device

COPIES = 40
KINDS = ("encoded", "resized", "cropped", "all")


def plant(source: Path, target: Path, copies: int = COPIES, seed: int = 0) -> set[tuple[str, str]]:
    """Returns the pairs of names, relative to the root."""
    dataset = load(str(source), "cache")
    for row, path in enumerate(dataset.paths):
        place = target / dataset.picture_name(row)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copyfile(path, place)
    rng = np.random.default_rng(seed)
    pairs = set()
    train = [row for row, part in enumerate(dataset.parts) if part == "train"]
    for number, row in enumerate(rng.choice(train, copies, replace=False)):
        kind = KINDS[number % len(KINDS)]
        name = f"eval/{dataset.classes[dataset.labels[row]]}/planted_{number:02d}_{kind}.jpg"
        change(Image.open(dataset.paths[row]).convert("RGB"), kind, rng).save(
            target / name, quality=40 if kind in ("encoded", "all") else 90
        )
        pairs.add(tuple(sorted((dataset.picture_name(row), name))))
    return pairs


def change(picture: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    if kind in ("cropped", "all"):
        left, top = rng.uniform(0, 0.15, 2)
        box = (left, top, left + 0.85, top + 0.85)
        picture = picture.crop([round(share * side) for share, side in zip(box, picture.size * 2)])
    if kind in ("resized", "all"):
        picture = picture.resize([max(1, round(0.6 * side)) for side in picture.size], Image.Resampling.LANCZOS)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", type=Path, required=True)
    parser.add_argument("--pretrain_ckpt", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    given = parser.parse_args()
    planted = plant(given.dataset_path, given.scratch / "planted")
    flags = {
        "data.dataset_path": str(given.scratch / "planted"),
        "model.pretrain_ckpt": given.pretrain_ckpt,
        "cache_dir": str(given.scratch / "cache"),
    }
    config = load_config(None, flags)
    device = init_device("CPU")
    from finetune import run
    from finetune.features.cache import extract
    from finetune.features.copies import near_copies
    from finetune.features.engines.choose import choose_engine

    dataset, backbone = run.load_inputs(config)
    found = extract(dataset.paths, backbone, choose_engine(backbone, device, config), config.cache_dir, device.threads)
    started = time.perf_counter()
    named = {tuple(sorted(map(dataset.picture_name, pair))) for pair in near_copies(found.rows[:], dataset.paths)}
    print(f"{len(planted & named)} of {len(planted)} planted pairs found in {time.perf_counter() - started:.1f} s")
    for word, pairs in (("missed", planted - named), ("also named", named - planted)):
        for pair in sorted(pairs):
            print(f"{word}: {' and '.join(pair)}")


if __name__ == "__main__":
    main()
