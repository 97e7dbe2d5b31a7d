"""Is this folder what was exported, and does it give the same answers here?

    python verify.py [FOLDER] [--enc_key_file FILE]

Compares every file with its sha256 in manifest.json, prepares the pictures of golden/ once more and
compares them with the stored inputs, and runs every model whose runtime is installed on these.
Exit code: 0 verified, 1 drift.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from bundle import (
    NOVELTY,
    PROBABILITIES,
    Drift,
    Model,
    changed_files,
    image_spec,
    missing_runtime,
    no_runtime,
    read_key,
    read_manifest,
    runnable,
)
from decoding.formats import DamagedPicture
from preprocessing import normalise, to_array

# Two versions of Pillow decode the same JPEG file a little differently: 1 level of 0..255 at most and 0.12 on
# average between 11.3 and 13.0. Another size, crop, filter or order of colours moves pixels by much more.
DECODER_LEVELS, DECODER_MEAN_LEVELS = 8, 0.5
TENSOR_TOLERANCE = 1e-5  # of normalised values: plain arithmetic on the same numbers
LEAST_NOVELTY = 0.1  # a smaller one differs as a share of this


def verify(folder: Path, key_file: Path | None) -> list[str]:
    """Print what was compared; return what is wrong."""
    try:
        manifest, key = read_manifest(folder), read_key(key_file)
    except Drift as drift:
        return [str(drift)]
    wrong = changed_files(folder, manifest)
    faults = [f"{name}: {what}" for name, what in wrong.items()]
    if not wrong:
        print(f"ok  {len(manifest['files'])} files as exported")
    try:
        expected = json.loads((folder / "golden" / "expected.json").read_text(encoding="utf-8"))
        inputs = {form: stored_inputs(folder, expected, form) for form in ("image", "tensor")}
    except Exception as error:  # NumPy raises nearly any type on a damaged head
        return [*faults, f"golden: not readable ({error})"]
    golden_faults = check_preprocessing(folder, manifest, expected, inputs)
    faults += golden_faults
    if not golden_faults:
        print(f"ok  {len(expected['pictures'])} golden pictures give the stored inputs")

    names = runnable(manifest)
    if not names:
        faults.append(no_runtime(manifest))
    for name in manifest["models"]:
        if name not in names:
            print(f"--  {name}: not run, needs {missing_runtime(manifest, name)}")
        elif name not in wrong:  # a damaged file can take the runtime down with it
            faults += check_model(folder, manifest, name, expected, inputs, key)
    return faults


def stored_inputs(folder: Path, expected: dict, form: str) -> np.ndarray:
    return np.stack([np.load(folder / "golden" / picture[form]) for picture in expected["pictures"]])


def check_preprocessing(folder: Path, manifest: dict, expected: dict, inputs: dict) -> list[str]:
    """The pictures -> the stored uint8 images -> the stored tensors, by the facts of the manifest."""
    faults = []
    try:
        spec = image_spec(manifest)
        tensors = normalise(inputs["image"], spec)
        difference = np.abs(tensors - inputs["tensor"]).max()
    except (KeyError, TypeError, ValueError) as error:
        return [f"golden: the stored inputs do not fit the manifest's image facts ({error})"]
    if not difference <= TENSOR_TOLERANCE:
        faults.append(f"golden: normalised by the manifest's mean and std, values differ by up to {difference:.1e}")
    for picture, stored in zip(expected["pictures"], inputs["image"]):
        try:
            image = to_array((folder / "golden" / picture["file"]).read_bytes(), spec)
        except (OSError, DamagedPicture) as error:
            faults.append(f"golden/{picture['file']}: not readable ({error})")
            continue
        if image.shape != stored.shape:
            faults.append(f"golden/{picture['file']}: comes out as {image.shape}, expected {stored.shape}")
            continue
        levels = np.abs(image.astype(int) - stored)
        if levels.max() > DECODER_LEVELS or levels.mean() > DECODER_MEAN_LEVELS:
            faults.append(
                f"golden/{picture['file']}: prepared here, pixels differ by up to {levels.max()} levels, "
                f"{levels.mean():.2f} on average"
            )
    return faults


def check_model(folder: Path, manifest: dict, name: str, expected: dict, inputs: dict, key: bytes | None) -> list[str]:
    """The stored inputs -> the expected probabilities, by class name, and the expected novelty."""
    classes = manifest["classes"]
    try:
        model = Model(folder, manifest, name, key)
        answers = model.compute(inputs[model.input_form])
        found = answers[PROBABILITIES]
        wanted, tolerance = answers_of(name, classes, expected)
        difference = np.abs(found - wanted).max()
        told = [picture["novelty"] for picture in expected["pictures"]] if NOVELTY in answers else []
        novelty_difference = (np.abs(answers[NOVELTY] - told) / np.maximum(told, LEAST_NOVELTY)).max() if told else 0.0
    except Drift as drift:
        return [str(drift)]
    except KeyError as error:
        return [f"{name}: golden/expected.json does not know {error}"]
    except Exception as error:  # runtimes raise all kinds
        return [f"{name}: does not run here ({(str(error).strip() or repr(error)).splitlines()[0]})"]
    faults = []
    if not difference <= tolerance:
        faults.append(f"{name}: probabilities differ by up to {difference:.1e}, allowed {tolerance:.0e}")
    if told and not novelty_difference <= expected["novelty_tolerance"]:
        allowed = expected["novelty_tolerance"]
        faults.append(f"{name}: novelty differs by up to {100 * novelty_difference:.2g} %, allowed {100 * allowed:g} %")
    for picture, row, right in zip(expected["pictures"], found, wanted):
        if right.max() - right[row.argmax()] > tolerance:
            faults.append(f"{name}: golden/{picture['file']} is {classes[row.argmax()]}, not {classes[right.argmax()]}")
    if not faults:
        than = " to its own answers when it was exported" if name in expected["less_precision"] else ""
        and_novelty = f", of novelty {100 * novelty_difference:.1e} %" if told else ""
        print(f"ok  {name}: largest difference of a probability {difference:.1e}{than}{and_novelty}")
    return faults


def answers_of(name: str, classes: list[str], expected: dict) -> tuple[np.ndarray, float]:
    """(probabilities of the golden pictures (n, C), how far a file may be from them): the trained network's, of a file
    of less precision its own."""
    less = expected["less_precision"].get(name)
    if less:
        return np.array(less["probabilities"]), less["tolerance"]
    wanted = [[picture["probabilities"][c] for c in classes] for picture in expected["pictures"]]
    return np.array(wanted), expected["tolerance"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Is this folder what was exported, and does it give the same answers?")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent, help="default: where this is")
    parser.add_argument("--enc_key_file", type=Path, metavar="FILE", help="the key of encrypted model files")
    arguments = parser.parse_args()
    faults = verify(arguments.folder, arguments.enc_key_file)
    for fault in faults:
        print(f"DRIFT  {fault}", file=sys.stderr)
    print("not verified" if faults else "verified")
    return 1 if faults else 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console without the letters of a class name
    sys.exit(main())
