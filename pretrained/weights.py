"""A weight file of any kind -> a frozen backbone with its facts. What does not match is listed, never skipped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from datasets.base import InputError
from pretrained.catalog import EMBEDDED, EMBEDDED_FILE
from pretrained.facts import find_facts
from pretrained.files import file_sha256, find_weights
from pretrained.formats.read import read_weights
from pretrained.mobilenet_v2 import MobileNetV2
from pretrained.recognise import advice, recognise
from pretrained.record import WeightsRecord

SHOWN_DIFFERENCES = 8  # a line each, of every kind


@dataclass(frozen=True)
class Backbone:
    """A frozen network and what is known about its weights."""

    network: MobileNetV2
    record: WeightsRecord
    found_as: str  # format, scheme and what was left out, for the log
    facts_from: str  # each fact and where it was found, for the log
    digest: str  # sha256 of the parameters and of the facts that change what they compute
    path: Path
    folded: bool  # BatchNorm is folded into the convolutions: it must never be trained
    assumed: bool = False  # how its pictures are prepared is usual for its names, and stated nowhere

    @property
    def feature_size(self) -> int:
        return self.network.feature_size


def load_backbone(
    given: str | Path | None, mirror_mean: bool | None = None, beside_last: tuple[int, ...] | None = None
) -> Backbone:
    """Load a MobileNetV2 backbone: a file of any known format, a folder that holds one, or a name of the catalog.

    A head or optimizer state in the same file is left out. Without anything given it is the backbone that comes with
    the project. `mirror_mean` and `beside_last` go before the facts, see `pretrained.record`.

    Raises:
        InputError: no such file, not readable, or of another network.
        MachineFault: a name of the catalog whose file is not here and cannot be fetched.
    """
    path = find_weights(given) if given else embedded_file()
    file = read_weights(path)
    found = recognise(path, file.arrays)
    facts = find_facts(path, file, found)
    record = facts.record
    asked = {"mirror_mean": mirror_mean, "beside_last": beside_last}
    record = replace(record, **{name: value for name, value in asked.items() if value is not None})
    network = network_of(record)
    load_strict(network, found.arrays, path, advice(found))
    freeze(network)
    found_as = f"{file.file_format}, {found}"
    return Backbone(
        network, record, found_as, str(facts), _digest(found.arrays, record), path, found.folded, facts.assumed
    )


def network_of(record: WeightsRecord) -> MobileNetV2:
    return MobileNetV2(record.width, record.pad_mode, record.bn_eps, record.mirror_mean, record.beside_last)


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


def read_ckpt(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a weight file by the names that they have there.

    Raises:
        InputError: the file is empty, cut short, or of no known format.
    """
    return read_weights(path).arrays


def load_strict(network: nn.Cell, parameters: dict[str, np.ndarray], path: Path, remedy: str) -> None:
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


def _differences(path: Path, wanted_count: int, missing, unexpected, misshapen, remedy: str) -> str:
    lines = [f"{path}: these are not the weights of this network ({wanted_count} parameters)."]
    for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)):
        if names:
            lines.append(f"  {len(names)} {kind}:")
            lines += [f"    {name}" for name in names[:SHOWN_DIFFERENCES]]
            if len(names) > SHOWN_DIFFERENCES:
                lines.append(f"    ... and {len(names) - SHOWN_DIFFERENCES} more")
    lines.append(remedy)
    return "\n".join(lines)


def _digest(parameters: dict[str, np.ndarray], record: WeightsRecord) -> str:
    more = (*(["mirror_mean"] if record.mirror_mean else []), *record.beside_last)
    digest = hashlib.sha256(repr((record.width, record.pad_mode, record.bn_eps, *more)).encode())
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameters[name], dtype=np.float32).tobytes())
    return digest.hexdigest()
