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
from dataclasses import dataclass
from pathlib import Path

from datasets.base import InputError
from datasets.files import one_at_a_time, write_json
from export.golden import write_golden, write_labels, write_scripts
from export.key import read_key, right_key
from export.manifest import (
    FLOAT,
    FOLDED,
    INPUT_FORMS,
    KEPT,
    MANIFEST,
    NOVELTY,
    PRECISIONS,
    PROBABILITIES,
    SUFFIXES,
    model_facts,
    model_name,
    read_manifest,
    write_manifest,
)
from export.parity import Ckpt, ask, compare, fresh_process
from export.predictors import import_onnxruntime, need_lite
from export.timing import milliseconds
from finetune.insight.novelty import Novelty, load_novelty
from finetune.run_folder import read_json

PARITY = "parity.json"
LOCK = ".export.lock"  # in the run folder: two exports of one run wait for each other


@dataclass(frozen=True)
class Wanted:
    """What an export is to hold."""

    file_formats: Sequence[str] = ("MINDIR",)
    input_forms: Sequence[str] = ("tensor",)
    precisions: Sequence[str] = ()  # files of less than float beside those, keys of `export.manifest.PRECISIONS`
    batch_size: int | None = None  # of the files, which then take exactly so many pictures; None: any number
    key: bytes | None = None  # encrypts the MindIR files
    keep_batchnorm: bool = False  # in the MindIR files, see `export.writers.mindir`
    allowed_loss: float = 1.0  # points of accuracy that a file of less precision may lose
    timed: bool = False  # measure milliseconds of each file

    def check(self) -> None:
        """Raises InputError where it cannot be had, or not here."""
        others = [name for name in self.file_formats if name != "MINDIR"]
        if self.key and others:
            raise InputError(
                "--enc_key_file: only MindIR can be encrypted, and another file beside it would give the network away. "
                f"Leave {' and '.join(others)} out of --file_format."
            )
        for precision in self.precisions:
            if PRECISIONS[precision] not in self.file_formats:
                raise InputError(
                    f"--precision {precision}: is of {PRECISIONS[precision]}. Add it: "
                    f"--file_format {' '.join([*self.file_formats, PRECISIONS[precision]])}"
                )
        if "ONNX" in self.file_formats:
            import_onnxruntime()
        if "LITE" in self.file_formats:
            need_lite()


def export_run(run: Path, threads: int, wanted: Wanted = Wanted()) -> dict:
    """Export and compare. Returns what parity.json says.

    Raises:
        InputError: the run is not finished, an exported model drifts from the trained network, or what is wanted cannot
            be had here.
    """
    from finetune.trained import load_trained

    wanted.check()
    trained, novelty = load_trained(run), load_novelty(run)
    with one_at_a_time(run / LOCK):
        return _export_run(trained, novelty, run, threads, wanted)


def _export_run(trained, novelty: Novelty | None, run: Path, threads: int, wanted: Wanted) -> dict:
    folder = run / "export"
    unfinished = folder / "unfinished"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with fresh_process(threads) as process:
            suffixes = [SUFFIXES[file_format] for file_format in wanted.file_formats]
            ckpt = Ckpt(run, suffixes, threads)
            models = write_models(trained, novelty, run, unfinished, wanted)
            write_labels(unfinished, trained.classes)
            write_scripts(unfinished, wanted.file_formats if trained.image.channels == 3 else ())
            write_manifest(unfinished, run, trained, models, novelty)  # without it the models cannot be run
            files = [unfinished / name for name in models]
            answers = ask(ckpt, files, threads, process, wanted.key)
        found = compare(run, files, answers)
        if not found["equal"]:
            remove_bundle(folder)
            write_json(folder / PARITY, found)
            raise InputError(
                f"{run}: the exported model drifts from the trained network: {'; '.join(found['faults'])}."
            )
        for name in [name for name, one in found["models"].items() if not one["equal"]]:  # of less precision
            (unfinished / name).unlink()
            kept = [i for i, file in enumerate(files) if file.name != name]
            files, answers.exported[:] = [files[i] for i in kept], [answers.exported[i] for i in kept]
            del models[name]
        if wanted.timed:
            for file in files:
                models[file.name]["milliseconds"] = found["models"][file.name]["milliseconds"] = milliseconds(
                    file, threads, wanted.key
                )
        remove_bundle(folder)
        write_golden(unfinished, run, trained.image, answers, models)
        write_json(unfinished / PARITY, found)
        write_manifest(unfinished, run, trained, models, novelty)
        put_in_place(unfinished, folder)
        return found
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_models(trained, novelty: Novelty | None, run: Path, folder: Path, wanted: Wanted) -> dict[str, dict]:
    """One file a format, precision and input form. Returns the manifest's facts by file name.

    Files in float only tell novelty: features of less precision lie elsewhere than those that it was fitted to.
    """
    models = {}
    for file_format in (name for name in SUFFIXES if name in wanted.file_formats):
        less = (name for name in wanted.precisions if PRECISIONS[name] == file_format)
        for precision in (FLOAT, *less):
            for input_form in (name for name in INPUT_FORMS if name in wanted.input_forms):
                name = model_name(trained.name, file_format, input_form, precision)
                told = novelty if precision == FLOAT else None
                write_model(trained, told, run, folder / name, file_format, input_form, precision, wanted)
                facts = model_facts(file_format, input_form, trained.image, wanted.batch_size, wanted.key)
                facts["outputs"] = [PROBABILITIES] if told is None else [PROBABILITIES, NOVELTY]
                if trained.backbone:
                    kept = file_format == "MINDIR" and wanted.keep_batchnorm
                    facts["batchnorm"] = KEPT if kept else FOLDED
                if precision != FLOAT:
                    facts |= {"precision": precision, "allowed_loss_points": wanted.allowed_loss}
                models[name] = facts
    return models


def write_model(
    trained,
    novelty: Novelty | None,
    run: Path,
    path: Path,
    file_format: str,
    input_form: str,
    precision: str,
    wanted: Wanted,
) -> None:
    if file_format == "MINDIR":
        from export.writers.mindir import write_mindir

        write_mindir(trained, path, input_form, wanted.batch_size, wanted.key, wanted.keep_batchnorm, novelty)
    elif file_format == "LITE":
        from export.writers.lite import write_lite

        write_lite(trained, path, input_form, wanted.batch_size or 1, precision == "fp16", novelty)
    elif precision == "int8":
        from export.writers.onnx_int8 import write_int8

        write_int8(trained, path, input_form, wanted.batch_size, run)
    else:
        from export.writers.onnx_file import write_onnx

        write_onnx(trained, path, input_form, wanted.batch_size, novelty)


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
    if any(facts["file_format"] == "LITE" for facts in read_manifest(folder)["models"].values()):
        need_lite()  # before anything is said: all files are compared, or none
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
