"""A run folder -> export/: model files, manifest, labels, golden pictures, scripts; all or nothing.

Everything is written into a temporary folder, the models are compared with the trained network in a
fresh process, and the files get their place only when all are equal.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from datasets.base import InputError
from datasets.files import one_at_a_time, write_json
from export.golden import write_golden, write_labels, write_scripts
from export.key import read_key, right_key
from export.manifest import (
    FOLDED,
    INPUT_FORMS,
    KEPT,
    MANIFEST,
    SUFFIXES,
    model_facts,
    model_name,
    read_manifest,
    write_manifest,
)
from export.parity import Ckpt, ask, compare, fresh_process
from export.predictors import import_onnxruntime
from finetune.run_folder import read_json

PARITY = "parity.json"
LOCK = ".export.lock"  # in the run folder: two exports of one run wait for each other


def export_run(
    run: Path,
    threads: int,
    file_formats: Sequence[str] = ("MINDIR",),
    input_forms: Sequence[str] = ("tensor",),
    batch_size: int | None = None,
    key: bytes | None = None,
    keep_batchnorm: bool = False,
) -> dict:
    """Export and compare. Returns what parity.json says.

    Args:
        batch_size: of the files, which then take exactly so many pictures; None: any number.
        key: encrypts the MindIR files.
        keep_batchnorm: in the MindIR files, see `export.writers.mindir`.

    Raises:
        InputError: the run is not finished, an exported model drifts from the trained network, or ONNX is
            asked for without its runtime, or with a key.
    """
    from finetune.trained import load_trained

    if "ONNX" in file_formats:
        if key:
            raise InputError(
                "--enc_key_file: only MindIR can be encrypted, and a plain ONNX beside it would give the network away. "
                "Leave ONNX out of --file_format."
            )
        import_onnxruntime()
    trained = load_trained(run)
    with one_at_a_time(run / LOCK):
        return _export_run(trained, run, threads, file_formats, input_forms, batch_size, key, keep_batchnorm)


def _export_run(trained, run: Path, threads: int, file_formats, input_forms, batch_size, key, keep_batchnorm) -> dict:
    folder = run / "export"
    unfinished = folder / "unfinished"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with fresh_process(threads) as process:
            suffixes = [SUFFIXES[file_format] for file_format in file_formats]
            ckpt = Ckpt(run, suffixes, threads)
            models = write_models(trained, unfinished, file_formats, input_forms, batch_size, key, keep_batchnorm)
            write_labels(unfinished, trained.classes)
            write_scripts(unfinished)
            write_manifest(unfinished, run, trained, models)  # without it the models cannot be run
            files = [unfinished / name for name in models]
            answers = ask(ckpt, files, threads, process, key)
        found = compare(run, files, answers)
        remove_bundle(folder)
        if not found["equal"]:
            write_json(folder / PARITY, found)
            raise InputError(
                f"{run}: the exported model drifts from the trained network: {'; '.join(found['faults'])}."
            )
        write_golden(unfinished, run, trained.image, answers)
        write_json(unfinished / PARITY, found)
        write_manifest(unfinished, run, trained, models)
        put_in_place(unfinished, folder)
        return found
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_models(
    trained,
    folder: Path,
    file_formats: Sequence[str],
    input_forms: Sequence[str],
    batch_size: int | None = None,
    key: bytes | None = None,
    keep_batchnorm: bool = False,
) -> dict[str, dict]:
    """One file a format and input form. Returns the manifest's facts by file name."""
    from export.writers.mindir import write_mindir
    from export.writers.onnx_file import write_onnx

    writers = {"MINDIR": write_mindir, "ONNX": write_onnx}
    models = {}
    for file_format in writers:
        for input_form in INPUT_FORMS:
            if file_format in file_formats and input_form in input_forms:
                name = model_name(trained.name, file_format, input_form)
                of_mindir = {"key": key, "keep_batchnorm": keep_batchnorm} if file_format == "MINDIR" else {}
                writers[file_format](trained, folder / name, input_form, batch_size, **of_mindir)
                models[name] = model_facts(file_format, input_form, trained.image, batch_size, key)
                if trained.backbone:
                    models[name]["batchnorm"] = KEPT if of_mindir.get("keep_batchnorm") else FOLDED
    return models


def remove_bundle(folder: Path) -> None:
    """What an earlier export has put there, the manifest first; files of others stay."""
    try:
        names = [name for name in read_manifest(folder)["files"] if ".." not in Path(name).parts]
    except InputError:  # none, or of an earlier version of this program
        names = []
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for place in {(folder / name).parent for name in names} - {folder}:
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def put_in_place(unfinished: Path, folder: Path) -> None:
    """The manifest last: it marks the export as complete."""
    names = list(read_manifest(unfinished)["files"])
    for name in [*names, MANIFEST]:
        (folder / name).parent.mkdir(exist_ok=True)
        (unfinished / name).replace(folder / name)


def verify(path: Path, threads: int, key_file: Path | None = None) -> dict | None:
    """A run or a bundle once more: its own check, and for a run the comparison on all evaluation pictures.

    Returns what parity.json would say today, or None for a bundle without its run. Nothing is written.

    Raises:
        InputError: there is no export, it is not what its manifest says, it drifts, or the key is not its.
    """
    key = read_key(key_file)
    if (path / MANIFEST).is_file():
        verify_bundle(path, key_file)
        return None
    folder = path / "export"
    read_json(path, f"export/{MANIFEST}")
    verify_bundle(folder, key_file)
    models = [folder / name for name in read_manifest(folder)["models"]]
    with fresh_process(threads) as process:
        ckpt = Ckpt(path, [model.suffix for model in models], threads)
        answers = ask(ckpt, models, threads, process, key)
    found = compare(path, models, answers)
    if not found["equal"]:
        raise InputError(f"{folder}: drifts from the trained network: {'; '.join(found['faults'])}.")
    return found


def verify_bundle(folder: Path, key_file: Path | None = None) -> None:
    """What the bundle's verify.py does, by this checkout's copy of it, in a process of its own.

    Raises:
        InputError: drift, and the script has said where; or the key is not its.
    """
    for name, facts in read_manifest(folder)["models"].items():
        right_key(folder / name, facts, read_key(key_file))
    with tempfile.TemporaryDirectory() as place:
        write_scripts(Path(place))
        command = [sys.executable, str(Path(place, "verify.py")), str(folder.resolve())]
        command += ["--enc_key_file", str(key_file.resolve())] if key_file else []
        utf8 = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env=utf8)
    print(done.stdout, end="")
    if done.returncode:
        faults = [line.removeprefix("DRIFT  ") for line in done.stderr.splitlines() if line.startswith("DRIFT  ")]
        raise InputError(f"{folder}: {'; '.join(faults) or done.stderr}. Export the run again.")
