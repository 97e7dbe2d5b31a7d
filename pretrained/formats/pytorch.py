"""State dictionaries of PyTorch (.pth, .pt), zip or the layout before it, read without PyTorch and without running any.

A pickle is a program. The one here may call what a dictionary of tensors needs, and the first word of it that names
something else ends the reading. Tensors stay descriptions (storage, offset, shape, strides) until all is read.

    zip       <name>/data.pkl, and <name>/data/<key> for each storage
    before    pickles: magic number, version, system, the dictionary, keys; then for each key int64 count and its bytes
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.base import InputError
from pretrained.formats.base import BFLOAT16, Entries, WeightFile, as_float, bounded, unreadable

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = pickle.dumps(MAGIC, protocol=2)
STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
DEEPEST = 16  # dictionaries in dictionaries


class Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def rebuild_tensor(storage, offset, shape, strides, *_) -> Tensor:
    whole = all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    if not (isinstance(storage, Storage) and len(shape) == len(strides) and whole):
        raise ValueError("a tensor that is none")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


class Refused(Exception):
    """The pickle names something that a dictionary of tensors does not need."""


class Unpickler(pickle._Unpickler):  # the one in Python: the one in C takes gigabytes for a memo of one large number
    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise Refused(f"{module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, words) -> Storage:
        kind, dtype, key, _, count, *_ = words
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(count) is not int:
            raise ValueError("a storage that is none")
        return Storage(str(key), dtype, count)


def read_zip(path: Path, archive: zipfile.ZipFile) -> WeightFile:
    """Raises InputError: damaged, more than a dictionary of tensors, or too large."""
    head = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = head.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and bounded(path, archive, f"{folder}byteorder") != b"little":
        raise unreadable(path, "written on a machine that puts the highest byte first")
    found = _unpickled(path, io.BytesIO(bounded(path, archive, head)))
    return _weights(path, found, lambda storage: bounded(path, archive, f"{folder}data/{storage.key}"))


def read_legacy(path: Path, content: bytes) -> WeightFile:
    """The same of the layout before the zip."""
    file = io.BytesIO(content)
    for _ in range(3):
        _unpickled(path, file)
    found, keys = _unpickled(path, file), _unpickled(path, file)
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in _tensors(path, found).values()}
    storages = {}
    for key in map(str, keys if isinstance(keys, list) else ()):
        size = int.from_bytes(file.read(8), "little") * dtypes.get(key, np.dtype("u1")).itemsize
        if size > len(content) - file.tell():
            raise unreadable(path, f"storage {key} claims {size:,} bytes, {len(content) - file.tell():,} are left")
        storages[key] = file.read(size)
    return _weights(path, found, lambda storage: storages.get(storage.key, b""))


def _unpickled(path: Path, file: io.BytesIO) -> object:
    try:
        return Unpickler(file).load()
    except Refused as error:
        raise InputError(
            f"{path}: not a dictionary of tensors: it would run {error}, as a whole pickled model or the settings of a "
            "training do, and nothing of it was run. Where it was made, save the numbers alone: "
            "torch.save(model.state_dict(), 'weights.pth')"
        ) from error
    except Exception as error:  # a damaged pickle raises any type
        raise unreadable(path, f"no dictionary of tensors, or damaged ({error})") from error


def _tensors(path: Path, found: object) -> dict[str, Tensor]:
    """By their keys, joined with dots through dictionaries in dictionaries; everything else is left out."""
    tensors, waiting = {}, [("", found, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, dict) and depth < DEEPEST:
            waiting += [(f"{name}.{key}" if name else str(key), inner, depth + 1) for key, inner in value.items()]
    if not tensors:
        raise unreadable(path, "no dictionary of tensors")
    return dict(sorted(tensors.items()))


def _weights(path: Path, found: object, content_of) -> WeightFile:
    entries = Entries(path)
    for name, (storage, offset, shape, strides) in _tensors(path, found).items():
        content = content_of(storage)
        entries.claim(name, (storage.count,), storage.dtype, len(content))
        count = int(np.prod(shape, dtype=object))
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides)) if count else 0
        if count > storage.count or last >= max(storage.count, 1):
            raise unreadable(path, f"{name} reaches beyond its storage")
        flat = np.frombuffer(content, storage.dtype)[offset:]
        steps = [stride * storage.dtype.itemsize for stride in strides]
        entries.arrays[name] = as_float(np.lib.stride_tricks.as_strided(flat, shape, steps).copy())
    return WeightFile("PyTorch", entries.arrays)
