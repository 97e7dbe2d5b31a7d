"""Classify pictures with the model of this folder.

    python predict.py photo.jpg holiday.png [--csv out.csv] [--model mobilenetv2.onnx] [--enc_key_file FILE]

Exit code: 0 done, 1 a file of this folder was changed or a picture cannot be read, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from bundle import (
    NOVELTY,
    PROBABILITIES,
    Drift,
    Model,
    certainty,
    changed_files,
    image_spec,
    missing_runtime,
    no_runtime,
    read_key,
    read_manifest,
    runnable,
)
from preprocessing import load_images

FOLDER = Path(__file__).parent
BATCH_SIZE = 8


def open_model(wanted: str | None, key: bytes | None) -> tuple[Model, dict]:
    """Raises Drift when the folder is not what was exported, or when nothing here can run it."""
    manifest = read_manifest(FOLDER)
    wrong = changed_files(FOLDER, manifest)
    if wrong:
        raise Drift("; ".join(f"{name}: {what}" for name, what in wrong.items()))
    if wanted is None:
        names = runnable(manifest)
        if not names:
            raise Drift(no_runtime(manifest))
        return Model(FOLDER, manifest, names[0], key), manifest
    if wanted not in manifest["models"]:
        raise Drift(f"--model {wanted}: not here; there are {', '.join(manifest['models'])}")
    if missing_runtime(manifest, wanted):
        raise Drift(f"--model {wanted}: needs {missing_runtime(manifest, wanted)}")
    return Model(FOLDER, manifest, wanted, key), manifest


def predict(model: Model, manifest: dict, paths: list[Path]) -> tuple[list[dict], dict[Path, str]]:
    """A row a picture, and {path: reason} of those that cannot be read."""
    rows, left_out = [], {}
    for start in range(0, len(paths), BATCH_SIZE):
        chunk = paths[start : start + BATCH_SIZE]
        images, damaged = load_images(chunk, image_spec(manifest))
        left_out.update({chunk[i]: reason for i, reason in damaged.items()})
        good = [i for i in range(len(chunk)) if i not in damaged]
        if good:
            found = model(images[good])
            novelty = found.get(NOVELTY, [None] * len(good))
            rows += [row_of(chunk[i], p, n, manifest) for i, p, n in zip(good, found[PROBABILITIES], novelty)]
    return rows, left_out


def expand(paths: list[Path]) -> list[Path]:
    """Files as they are, folders as all files below them."""
    found = []
    for path in paths:
        found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return found


def row_of(path: Path, probabilities: np.ndarray, novelty: float | None, manifest: dict) -> dict:
    """`novelty`: None where the model file does not tell it."""
    classes = manifest["classes"]
    confidence, sure = certainty(probabilities, manifest)
    unlike = {}
    if novelty is not None:
        far = novelty > manifest["novelty"]["threshold"]
        unlike = {"unlike": "yes" if far else "no", "novelty": f"{novelty:.6f}"}
    return {
        "path": str(path),
        "predicted": classes[probabilities.argmax()],
        "confidence": f"{confidence:.6f}",
        **({} if sure is None else {"sure": "yes" if sure else "no"}),
        **unlike,
        **{f"p_{name}": f"{p:.8f}" for name, p in zip(classes, probabilities)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Classify pictures with the model of this folder.")
    parser.add_argument("paths", nargs="+", metavar="PICTURE", type=Path, help="or a folder")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all probabilities to this file")
    parser.add_argument("--model", metavar="FILE", help="which model file; default: the first that can be run here")
    parser.add_argument("--enc_key_file", type=Path, metavar="FILE", help="the key of an encrypted model file")
    arguments = parser.parse_args()
    try:
        model, manifest = open_model(arguments.model, read_key(arguments.enc_key_file))
    except (Drift, RuntimeError) as drift:  # runtimes raise the second
        print(f"error: {drift}", file=sys.stderr)
        return 1
    try:
        rows, left_out = predict(model, manifest, expand(arguments.paths))
    except (OSError, MemoryError, RuntimeError) as error:
        print(f"error: {error or 'too little memory'}", file=sys.stderr)
        return 1
    for path, reason in left_out.items():
        print(f"left out: {path}: {reason}", file=sys.stderr)
    for row in rows:
        words = "  not sure" if row.get("sure") == "no" else ""
        words += "  unlike the training pictures" if row.get("unlike") == "yes" else ""
        print(f"{row['path']}  {row['predicted']}  {100 * float(row['confidence']):.1f} %{words}")
    if arguments.csv and rows:
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(f"written: {arguments.csv}")
    return 1 if left_out else 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console without the letters of a class name
    sys.exit(main())
