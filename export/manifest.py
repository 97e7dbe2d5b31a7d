"""manifest.json: everything that somebody needs to use the files of a bundle right, and to notice a change.

It states the sha256 of every other file, and its own `digest`, without which nobody reads it.
"""

from __future__ import annotations

import datetime
import hashlib
from importlib import metadata
from pathlib import Path

from datasets.base import InputError
from datasets.files import read_json as read_json_file
from datasets.files import write_json
from datasets.image import ImageSpec
from export.key import encryption_facts
from finetune.insight.novelty import THRESHOLD
from finetune.run_folder import read_json

MANIFEST = "manifest.json"
FORMAT = 4  # of the manifest; version 1 described one model file only, version 2 files in float
READABLE = (3, FORMAT)  # version 3 had files of one output only
ANEW = "Copy the bundle again, or export the run again."

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "LITE": ".ms"}
FLOAT = "float"
PRECISIONS = {"int8": "ONNX", "fp16": "LITE"}  # less than float -> the format that is written in it
FOLDED, KEPT = "folded", "kept"  # BatchNorm, as `models` says of each file
PROBABILITIES, NOVELTY = "probabilities", "novelty"  # outputs of a file
INPUT_FORMS = {"tensor": "", "image": "_image"}  # form of the input -> what it adds to the network's name


def model_name(network: str, file_format: str, input_form: str, precision: str = FLOAT) -> str:
    less = "" if precision == FLOAT else f"_{precision}"
    return network + INPUT_FORMS[input_form] + less + SUFFIXES[file_format]


def model_facts(
    file_format: str, input_form: str, image: ImageSpec, batch_size: int | None = None, key: bytes | None = None
) -> dict:
    """What one model file wants to be given; -1 stands for any number of pictures. MindSpore Lite's converter puts the
    channels last."""
    height, width = image.size
    colours = "RGB" if image.channels == 3 else "grey"
    batch = batch_size or (1 if file_format == "LITE" else -1)
    last = file_format == "LITE"
    inputs = {
        "tensor": {
            "shape": [batch, height, width, image.channels] if last else [batch, image.channels, height, width],
            "dtype": "float32",
            "layout": "NHWC" if last else "NCHW",
            "colour_order": colours,
            "scaling": "(pixel / 255 - mean_unit) / std_unit, a channel at a time",
        },
        "image": {
            "shape": [batch, height, width, image.channels],
            "dtype": "uint8",
            "layout": "NHWC",
            "colour_order": colours,
            "scaling": "none: pixels 0..255 as they are, the model normalises",
        },
    }
    facts = {"file_format": file_format, "precision": FLOAT, "input_form": input_form, "input": inputs[input_form]}
    return {**facts, "encryption": encryption_facts(key)} if key and file_format == "MINDIR" else facts


def placing(image: ImageSpec) -> str:
    if image.letterbox:
        return "put into the middle of a page of round(255 * mean_unit); resized to fit inside, its shape kept"
    return "the centre is cropped"


def confidence_facts(run: Path) -> dict | None:
    """What `predict` needs of the run's fitted confidence; None where it was not fitted."""
    fitted = read_json(run, "metrics.json").get("confidence")
    return fitted and {
        "temperature": fitted["temperature"],
        "threshold": fitted["threshold"],
        "meaning": "confidence: the largest of probabilities ** (1 / temperature), normalised to a sum of 1; below "
        "the threshold the answer is not sure",
    }


def outputs_of(facts: dict) -> list[str]:
    """What a file gives, in order. `facts`: the manifest's of this file, which version 3 said no outputs of."""
    return facts.get("outputs", [PROBABILITIES])


def novelty_facts(novelty) -> dict | None:
    """What is needed to make a word of the output; `novelty`: a `finetune.insight.novelty.Novelty` or None."""
    return novelty and {
        "threshold": THRESHOLD,
        "meaning": f"{NOVELTY}, float32 (B,), of the files that have it: how far the picture's features are from those "
        "of the training pictures, squared; above the threshold it is unlike the training pictures",
    }


def novelty_threshold(manifest: dict, facts: dict) -> float | None:
    """None where the file of these facts does not tell novelty."""
    return manifest["novelty"]["threshold"] if NOVELTY in outputs_of(facts) else None


def write_manifest(folder: Path, run: Path, trained, models: dict[str, dict], novelty=None) -> None:
    """`models`: facts by file name. It lists the files that are in the folder now."""
    from export.cost import cost  # needs MindSpore, which who only reads a manifest may not have

    facts = {
        "format": FORMAT,
        "name": run.resolve().name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "models": models,
        "classes": list(trained.classes),
        "image": trained.image.to_dict(),
        "resize_filter": f"{trained.image.interpolation} with antialiasing, then {placing(trained.image)}; "
        "EXIF orientation applied first",
        "output": {"per_picture": len(trained.classes), "dtype": "float32", "meaning": "probabilities (softmax)"},
        "cost": cost(trained),
        "confidence": confidence_facts(run),
        "novelty": novelty_facts(novelty),
        "weights": trained.weights_facts(),
        "measured": {key: read_json(run, "metrics.json")["after"][key] for key in ("accuracy", "interval", "pictures")},
        "versions": {name: metadata.version(name) for name in ("mindspore", "numpy", "pillow")},
        "files": {
            path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        },
    }
    write_json(folder / MANIFEST, facts)


def read_manifest(folder: Path) -> dict:
    """The manifest of a bundle.

    Raises:
        InputError: there is none, or it is damaged: without class names and preprocessing a model cannot be used right.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{path}: not there. It lies beside the model when it is exported and says how to prepare pictures and "
            "what the classes are; copy it along."
        )
    facts = read_json_file(path, ANEW, {"format": int})
    if facts["format"] not in READABLE:
        raise InputError(f"{path}: of format {facts['format']}, expected {FORMAT}. Export the run again.")
    return read_json_file(path, ANEW, {"format": int, "digest": str})


def check_unchanged(folder: Path, facts: dict, *names: str) -> None:
    """Whether these files are what was exported; milliseconds.

    Raises:
        InputError: one was changed.
    """
    for name in names:
        path = folder / name
        if not path.is_file() or sha256(path) != facts["files"].get(name, {}).get("sha256"):
            raise InputError(f"{path}: missing, or changed since it was exported. {ANEW}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
