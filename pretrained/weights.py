"""A CKPT file -> a frozen backbone with its facts. Strict: what does not match is listed, never skipped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
import yaml
from mindspore import nn

from datasets.base import InputError
from pretrained.catalog import EMBEDDED, EMBEDDED_FILE, ZOO, WeightsRecord, find_by_sha256
from pretrained.mobilenet_v2 import MobileNetV2

# What a CKPT may hold beside the backbone: a classifier and the state of its training.
HEAD_PREFIXES = ("dense.", "hidden.", "head.", "classifier.")
TRAINING_PREFIXES = ("moments.", "moment1.", "moment2.", "accum.", "stat.")
TRAINING_NAMES = (
    "learning_rate",
    "momentum",
    "global_step",
    "epoch_num",
    "step_num",
    "beta1_power",
    "beta2_power",
)

SHOWN_DIFFERENCES = 8  # a line each, of every kind


@dataclass(frozen=True)
class Backbone:
    """A frozen network and what is known about its weights."""

    network: MobileNetV2
    record: WeightsRecord
    facts_from: str  # where the record was found, for the log
    digest: str  # sha256 of the parameters and of the facts that change what they compute
    path: Path

    @property
    def feature_size(self) -> int:
        return self.network.feature_size


def load_backbone(path: str | Path | None) -> Backbone:
    """Load a MobileNetV2 backbone; a head or optimizer state in the same file is left out.

    Without a path it is the backbone that comes with the project.

    Raises:
        InputError: no such file, not a CKPT, truncated, or of another network.
    """
    path = find_file(Path(path)) if path else embedded_file()
    record, facts_from = find_facts(path)
    network = MobileNetV2(record.width, record.pad_mode, record.bn_eps)
    parameters = {name: value for name, value in read_ckpt(path).items() if not _beside_the_backbone(name)}
    load_strict(network, parameters, path)
    freeze(network)
    return Backbone(network, record, facts_from, _digest(parameters, record), path)


def embedded_file() -> Path:
    """The backbone that this project trained, whole and as it was committed.

    Raises:
        InputError: the file is gone or changed.
    """
    found = file_sha256(EMBEDDED_FILE) if EMBEDDED_FILE.is_file() else None
    if found != EMBEDDED.sha256:
        state = "is missing" if found is None else "is not the file of this version (its sha256 differs)"
        raise InputError(
            f"{EMBEDDED_FILE}: the embedded backbone {state}. Get it back with "
            f"`git checkout -- pretrained/{EMBEDDED_FILE.name}`, or give other weights with --pretrain_ckpt FILE.ckpt."
        )
    return EMBEDDED_FILE


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_file(path: Path) -> Path:
    """The path itself, or the file beside it whose name differs in upper and lower case only."""
    if path.is_file():
        return path
    beside = sorted(path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
    for other in beside:
        if other.name.lower() == path.name.lower():
            return other
    there = f"There: {', '.join(other.name for other in beside[:SHOWN_DIFFERENCES])}." if beside else ""
    raise InputError(f"{path}: no such file. --pretrain_ckpt takes a MindSpore CKPT of MobileNetV2. {there}".rstrip())


def read_ckpt(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a CKPT file by parameter name.

    Raises:
        InputError: the file is empty, cut short, or not a CKPT.
    """
    try:
        loaded = ms.load_checkpoint(str(path))
    except Exception as error:  # MindSpore raises different types for one and the same cause
        bytes_found = path.stat().st_size
        raise InputError(
            f"{path}: not a readable MindSpore CKPT ({bytes_found:,} bytes). It is cut short, damaged or of "
            "another format: download or copy it again and compare its size with the source."
        ) from error
    return {name: parameter.asnumpy() for name, parameter in loaded.items()}


def find_facts(path: Path) -> tuple[WeightsRecord, str]:
    """The record of a weight file and where it was found: catalog, <file>.yaml, or the zoo's facts.

    Raises:
        InputError: the YAML file beside the weights is not a full record.
    """
    known = find_by_sha256(file_sha256(path))
    if known:
        return known, f"catalog record {known.name}"
    beside = facts_file(path)
    if not beside.is_file():
        return ZOO, f"{ZOO.name}, assumed: the file is not in the catalog and {beside.name} is not beside it"
    try:
        return WeightsRecord.from_dict(yaml.safe_load(beside.read_text(encoding="utf-8"))), beside.name
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"{beside}: not a record of weights ({error}). It needs the keys {', '.join(ZOO.to_dict())}."
        ) from error


def facts_file(path: Path) -> Path:
    """The YAML file that states the facts of the weights in `path`."""
    return path.with_name(path.name + ".yaml")


def load_strict(network: nn.Cell, parameters: dict[str, np.ndarray], path: Path, remedy: str = "") -> None:
    """Set every parameter of the network, or none. `remedy` says what to do about differences.

    Raises:
        InputError: lists the names that are missing, unexpected or of another shape.
    """
    wanted = {parameter.name: parameter for parameter in network.get_parameters()}
    missing = [name for name in wanted if name not in parameters]
    unexpected = [name for name in parameters if name not in wanted]
    misshapen = [
        f"{name}: {parameters[name].shape} in the file, {tuple(wanted[name].shape)} in the network"
        for name in wanted
        if name in parameters and parameters[name].shape != tuple(wanted[name].shape)
    ]
    if missing or unexpected or misshapen:
        raise InputError(_differences(path, len(wanted), missing, unexpected, misshapen, remedy))
    broken = [name for name in wanted if not np.isfinite(parameters[name]).all()]
    if broken:
        raise InputError(
            f"{path}: NaN or infinite values in {', '.join(broken[:SHOWN_DIFFERENCES])}. Use another copy."
        )
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(parameters[name].astype(np.float32)))


def freeze(network: nn.Cell) -> None:
    """No gradients, and BatchNorm with its stored statistics."""
    network.set_train(False)
    for parameter in network.get_parameters():
        parameter.requires_grad = False


def _beside_the_backbone(name: str) -> bool:
    return name.startswith(HEAD_PREFIXES + TRAINING_PREFIXES) or name in TRAINING_NAMES


def _differences(path: Path, wanted_count: int, missing, unexpected, misshapen, remedy: str) -> str:
    lines = [f"{path}: these are not the weights of this network ({wanted_count} parameters)."]
    for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)):
        if names:
            lines.append(f"  {len(names)} {kind}:")
            lines += [f"    {name}" for name in names[:SHOWN_DIFFERENCES]]
            if len(names) > SHOWN_DIFFERENCES:
                lines.append(f"    ... and {len(names) - SHOWN_DIFFERENCES} more")
    lines.append(
        remedy
        or "Give a MobileNetV2 CKPT with the model zoo's parameter names, and state its width "
        f"in {facts_file(path).name} if it is not 1.0."
    )
    return "\n".join(lines)


def _digest(parameters: dict[str, np.ndarray], record: WeightsRecord) -> str:
    digest = hashlib.sha256(repr((record.width, record.pad_mode, record.bn_eps)).encode())
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameters[name], dtype=np.float32).tobytes())
    return digest.hexdigest()
