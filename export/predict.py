"""Classify pictures with a run or an exported model: a table on the screen, and a CSV file.

python -m finetune predict runs/cats_vs_dogs/export/mobilenetv2.mindir photo.jpg holiday/ --csv out.csv
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.decoding.formats import DamagedPicture
from datasets.files import write_csv
from datasets.image import load_images
from datasets.listing import Listing, passed_over_lines
from datasets.progress import Progress
from export.manifest import MANIFEST
from export.predictors import load_predictor
from finetune.evaluation.calibrate import temper
from finetune.insight.novelty import columns

PICTURES_AT_ONCE = 64
STEM_BYTES = 200  # of a map's name, for disks that allow 255


def show(
    model: Path, paths: list[Path], csv_path: Path | None, key: bytes | None = None, maps: Path | None = None
) -> int:
    """Print `path predicted confidence` a picture; write the same and all probabilities to a CSV file, and class maps
    over the pictures into the folder `maps`. Returns how many pictures were left out.

    Raises:
        InputError: a path does not exist, nothing to predict, or the key is not the model's.
    """
    pictures = expand(paths)
    check_place(csv_path, pictures)
    check_folder(maps)
    predictor = open_model(model, key)
    if maps and predictor.no_maps:
        print(f"no maps: {predictor.no_maps}.", file=sys.stderr)
    drawn = MapFiles(maps, pictures, predictor.image) if maps and not predictor.no_maps else None
    rows, left_out = [], 0
    with Progress("predict", len(pictures), "pictures") as progress:
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            chunk = pictures[start : start + PICTURES_AT_ONCE]
            images, damaged = load_images(chunk, predictor.image)
            left_out += len(damaged)
            for row, reason in damaged.items():
                print(f"left out: {chunk[row]}: {reason}", file=sys.stderr)
            good = [row for row in range(len(chunk)) if row not in damaged]
            if good:
                seen = predictor.look(images[good])
                for i, row in enumerate(good):
                    p = seen.probabilities[i]
                    extra = {} if seen.novelty is None else columns(seen.novelty[i], predictor.novelty_threshold)
                    extra |= {"map": drawn.draw(chunk[row], seen.maps[i], p.argmax())} if drawn else {}
                    rows.append(_row(chunk[row], predictor.classes, p, predictor.confidence, extra))
            progress.update(len(chunk))
    if not rows:
        print(f"None of the {len(pictures)} picture(s) could be read.", file=sys.stderr)
        return left_out
    width = max(len(row["path"]) for row in rows)
    for row in rows:
        words = "  not sure" if row.get("sure") == "no" else ""
        words += "  unlike the training pictures" if row.get("unlike") == "yes" else ""
        print(f"{row['path']:{width}}  {row['predicted']}  {100 * float(row['confidence']):.1f} %{words}")
    if csv_path:
        write_csv(csv_path, rows)
        print(f"written: {csv_path}")
    if drawn:
        print(f"maps: {sum(bool(row['map']) for row in rows)} written to {maps}")
    return left_out


def open_model(model: Path, key: bytes | None):
    """What has `look`: of a run folder with class maps, of an exported file without."""
    if model.is_dir() and not (model / MANIFEST).is_file() and not key:
        from export.run_predictor import RunPredictor  # MindSpore, which ONNX files do without

        return RunPredictor(model)
    return load_predictor(model, key=key)


class MapFiles:
    """Class maps as PNG files in a folder, named after the pictures; no two of one name, and no picture is replaced."""

    def __init__(self, folder: Path, pictures: list[Path], image):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.image = folder, image
        self.taken = {as_one_name(picture) for picture in pictures}

    def draw(self, picture: Path, maps: np.ndarray, label: int) -> str:
        """The name of the file."""
        from export.draw_map import draw_map

        stem, number = os.fsencode(picture.stem)[:STEM_BYTES].decode(errors="ignore"), 1
        while as_one_name(target := self.folder / f"{stem}_map{number if number > 1 else ''}.png") in self.taken:
            number += 1
        self.taken.add(as_one_name(target))
        try:
            draw_map(picture, maps, label, self.image, target)
        except DamagedPicture:  # gone since it was looked at
            return ""
        return target.name


def as_one_name(path: Path) -> str:
    """Equal for names that are one file where case does not count."""
    return str(path.resolve()).casefold()


def check_place(csv_path: Path | None, pictures: list[Path]) -> None:
    """Before the work, whether its table can be written.

    Raises:
        InputError: it would replace a picture, or its folder is not there.
    """
    if csv_path is None:
        return
    if csv_path.is_dir() or not csv_path.parent.is_dir():
        raise InputError(f"--csv {csv_path}: a folder, or in a folder that is not there. Give the path of a new file.")
    if csv_path.exists() and any(csv_path.samefile(picture) for picture in pictures):
        raise InputError(f"--csv {csv_path}: one of the pictures to classify. Give another file.")


def check_folder(maps: Path | None) -> None:
    """Before the work, whether there can be class maps in it.

    Raises:
        InputError: it is a file, or lies below one.
    """
    if maps is None:
        return
    for place in (maps, *maps.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"--maps {maps}: {place} is a file. Give a folder; it is made where there is none.")


def expand(paths: list[Path]) -> list[Path]:
    """Files as they are, folders as all pictures below them."""
    pictures = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder.")
        listing = Listing(path)
        found = listing.pictures(path) if path.is_dir() else [path]
        for line in passed_over_lines(listing.counted(), path):
            print(line, file=sys.stderr)
        if not found:
            raise InputError(f"{path}: no pictures below this folder.")
        pictures += found
    return pictures


def _row(path: Path, classes: tuple[str, ...], probabilities: np.ndarray, confidence: dict | None, extra: dict) -> dict:
    """`confidence` is tempered and judged where the run has fitted it; p_* are as the model gives them."""
    certain, sure = probabilities.max(), {}
    if confidence:
        certain = temper(probabilities[None], confidence["temperature"]).max()
        sure = {"sure": "yes" if certain >= confidence["threshold"] else "no"}
    return {
        "path": str(path),
        "predicted": classes[probabilities.argmax()],
        "confidence": f"{certain:.6f}",
        **sure,
        **extra,
        **{f"p_{name}": f"{p:.8f}" for name, p in zip(classes, probabilities)},
    }
