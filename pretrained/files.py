"""What is given for weights -> the file: a path, a folder that holds one, or a name of the catalog."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import yaml

from datasets.base import InputError, RemoteFile
from datasets.files import write_text
from pretrained.catalog import find_by_name
from pretrained.record import WeightsRecord

FOLDER = Path("cache", "weights")  # <name>/<file> of what was fetched
SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt", ".h5", ".keras")
OF_A_RUN = "ckpt"  # folder of a run folder
IN_FOLDER = "model.json"  # of TensorFlow.js, beside its shards
SHOWN = 8


def find_weights(given: str | Path) -> Path:
    """The file itself, or the one beside it whose name differs in upper and lower case only.

    Raises:
        InputError: nothing is there, or several files are.
        MachineFault: a name of the catalog that cannot be fetched.
    """
    path = Path(given)
    if path.is_file():
        return path
    if path.is_dir():
        return only_file_in(path)
    if record := find_by_name(str(given)):
        return fetch_weights(record)
    beside = files_in(path.parent) if path.parent.is_dir() else []
    for other in beside:
        if other.name.lower() == path.name.lower():
            return other
    there = f" There: {', '.join(other.name for other in beside[:SHOWN])}." if beside else ""
    raise InputError(
        f"{path}: no such file. --pretrain_ckpt takes a weight file of MobileNetV2, a folder that holds one, or a name "
        f"of `python -m pretrained list`.{there}"
    )


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES or path.name == IN_FOLDER)


def only_file_in(folder: Path) -> Path:
    found = files_in(folder)
    if not found and (folder / OF_A_RUN).is_dir():
        return only_file_in(folder / OF_A_RUN)
    if not found:
        raise InputError(f"{folder}: no weight file in this folder. Known are {', '.join(SUFFIXES)} and {IN_FOLDER}.")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:SHOWN])
        raise InputError(f"{folder}: {len(found)} weight files ({names}). Give the one to use.")
    return found[0]


def fetch_weights(record: WeightsRecord, folder: Path | None = None) -> Path:
    """The file of a catalog record, downloaded where it is not there yet.

    Raises:
        InputError: it is not published anywhere.
        MachineFault: the network, or the server.
    """
    from datasets.fetch import fetch_file

    if not record.url:
        raise InputError(f"{record.name}: this file is not published. Give its path.")
    file = RemoteFile(name_of_file(record), record.url, record.sha256 or "", record.bytes, record.mirrors)
    path = fetch_file(file, (folder or FOLDER) / record.name)
    stated = replace(record, sha256=file_sha256(path))
    write_text(facts_file(path), yaml.safe_dump(stated.to_dict(), sort_keys=False, allow_unicode=True))
    return path


def name_of_file(record: WeightsRecord) -> str:
    """As it is published."""
    return record.url.rpartition("/")[2]


def facts_file(path: Path) -> Path:
    """The YAML file that states the facts of the weights in `path`."""
    return path.with_name(path.name + ".yaml")


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
