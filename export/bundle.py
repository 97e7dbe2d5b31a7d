"""A run folder -> export/mobilenetv2.mindir, manifest.json and parity.json; all or nothing.

The model is written under a temporary name, compared with the trained network in a fresh process,
and gets its name only when both are equal.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path

from datasets.base import InputError
from export.parity import compare
from export.predictors import MANIFEST
from finetune.run_folder import read_json, write_json

MODEL = "mobilenetv2.mindir"


def export_run(run: Path, threads: int) -> dict:
    """Export and compare. Returns what parity.json says.

    Raises:
        InputError: the run is not finished, or the exported model drifts from the trained network.
    """
    from export.to_mindir import write_mindir
    from finetune.trained import load_trained

    trained = load_trained(run)
    folder = run / "export"
    unfinished = folder / "unfinished"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        write_mindir(trained, unfinished / MODEL)
        write_json(unfinished / MANIFEST, manifest(run, trained, unfinished / MODEL))
        found = compare(run, unfinished / MODEL, threads)
        write_json(folder / "parity.json", found)
        if not found["equal"]:
            for name in (MODEL, MANIFEST):
                (folder / name).unlink(missing_ok=True)
            raise InputError(
                f"{run}: the exported model drifts from the trained network: {'; '.join(found['faults'])}."
            )
        for name in (MODEL, MANIFEST):  # the manifest last: it marks the export as complete
            (unfinished / name).replace(folder / name)
        return found
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def verify_run(run: Path, threads: int) -> dict:
    """Compare an export that is there again.

    Raises:
        InputError: there is none, the model is not the one its manifest names, or it drifts.
    """
    folder = run / "export"
    read_json(run, f"export/{MANIFEST}")
    known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["model"]["sha256"]
    if not (folder / MODEL).is_file() or sha256(folder / MODEL) != known:
        raise InputError(f"{folder / MODEL}: missing, or not the file that {MANIFEST} names. Export the run again.")
    found = compare(run, folder / MODEL, threads)
    write_json(folder / "parity.json", found)
    if not found["equal"]:
        raise InputError(f"{folder / MODEL}: drifts from the trained network: {'; '.join(found['faults'])}.")
    return found


def manifest(run: Path, trained, model: Path) -> dict:
    """Everything that somebody needs to use the model file right, and to know where it comes from."""
    height, width = trained.image.size
    return {
        "format": 1,
        "name": run.resolve().name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": {"file": model.name, "sha256": sha256(model), "bytes": model.stat().st_size},
        "classes": list(trained.classes),
        "input": {
            "shape": [-1, 3, height, width],  # -1: any number of pictures
            "dtype": "float32",
            "layout": "NCHW",
            "colour_order": "RGB",
            "scaling": "(pixel / 255 - mean_unit) / std_unit, a channel at a time",
        },
        "image": trained.image.to_dict(),
        "resize_filter": "bilinear with antialiasing, then the centre is cropped; EXIF orientation applied first",
        "output": {"shape": [-1, len(trained.classes)], "dtype": "float32", "meaning": "probabilities (softmax)"},
        "weights": {"digest": trained.backbone.digest, "source": trained.backbone.record.source,
                    "licence": trained.backbone.record.licence},
        "measured": {key: read_json(run, "metrics.json")["after"][key] for key in ("accuracy", "interval", "pictures")},
        "versions": {name: metadata.version(name) for name in ("mindspore", "numpy", "pillow")},
    }  # fmt: skip


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
