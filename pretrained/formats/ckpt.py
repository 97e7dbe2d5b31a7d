"""A CKPT of MindSpore, read and written without MindSpore.

It is a protocol buffer (mindspore/ccsrc/utils/checkpoint.proto):

    Checkpoint   1: repeated Value
    Value        1: name   2: Tensor   3: table of a sparse network
    Tensor       1: repeated int64 dims   2: name of the type   3: the numbers, little endian

Large arrays come in several values of one name. With `crc_check` a checksum ends the file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pretrained.formats.base import BFLOAT16, Entries, WeightFile, unreadable

TYPES = {
    **{name: np.dtype(name.lower()) for name in ("Int8", "Int16", "Int32", "Int64", "Float16", "Float32", "Float64")},
    **{name: np.dtype(name.lower()) for name in ("UInt8", "UInt16", "UInt32", "UInt64", "Bool")},
    "BFloat16": BFLOAT16,
}
TEXT = "str"  # what save_checkpoint's append_dict may put beside the numbers
CRC = b"crc_num"
CRC_BYTES = 10  # after the word, big endian
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # kinds of a field on the wire


def read(path: Path, content: bytes) -> WeightFile:
    """Raises InputError: cut short, damaged, or no CKPT."""
    try:
        return WeightFile("MindSpore CKPT", _arrays(path, memoryview(without_checksum(content))))
    except (ValueError, IndexError, OverflowError, TypeError) as error:
        raise unreadable(path, f"no CKPT of MindSpore ({error})") from error


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """The arrays as `read` and MindSpore read them."""
    names = {dtype: name for name, dtype in TYPES.items()}
    for name, array in arrays.items():
        dims = b"".join(b"\x08" + to_varint(side) for side in array.shape)
        tensor = dims + field(2, names[array.dtype].encode()) + field(3, np.ascontiguousarray(array).tobytes())
        file.write(field(1, field(1, name.encode()) + field(2, tensor)))


def field(number: int, content: bytes) -> bytes:
    return to_varint(number << 3 | BYTES) + to_varint(len(content)) + content


def to_varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def without_checksum(content: bytes) -> bytes:
    end = len(content) - CRC_BYTES
    if content[end - len(CRC) : end] != CRC:
        return content
    content, stated = content[: end - len(CRC)], int.from_bytes(content[end:], "big")
    if zlib.crc32(content) != stated:
        raise ValueError("its checksum differs")
    return content


def _arrays(path: Path, content: memoryview) -> dict[str, np.ndarray]:
    pieces: dict[str, list[memoryview]] = {}
    heads: dict[str, tuple[np.dtype, list[int]]] = {}
    for number, value in fields(content):
        if number != 1:
            raise ValueError(f"field {number}")
        parts = dict(fields(value))
        if 2 not in parts:  # a table
            continue
        name, (dims, kind, numbers) = str(parts[1], "utf-8"), _tensor(parts[2])
        if kind == TEXT:
            continue
        if kind not in TYPES:
            raise ValueError(f"numbers of the type {kind!r}")
        heads.setdefault(name, (TYPES[kind], dims))
        pieces.setdefault(name, []).append(numbers)
    entries = Entries(path)
    for name, (dtype, dims) in heads.items():
        content = pieces[name][0] if len(pieces[name]) == 1 else b"".join(pieces[name])
        scalar = dims == [0] and len(content) == dtype.itemsize  # as MindSpore writes a single number
        entries.add(name, content, dtype, [] if scalar else dims)
    if not entries.arrays:
        raise ValueError("it holds no arrays")
    return entries.arrays


def _tensor(content: memoryview) -> tuple[list[int], str, memoryview]:
    dims, kind, numbers = [], "", memoryview(b"")
    for number, value in fields(content):
        if number == 1:
            dims += [value] if isinstance(value, int) else list(varints(value))
        elif number == 2:
            kind = str(value, "ascii")
        elif number == 3:
            numbers = value
    return dims, kind, numbers


def fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message; numbers as int, everything else as its bytes."""
    at = 0
    while at < len(content):
        tag, at = varint(content, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = varint(content, at)
        elif kind in (BYTES, FIXED64, FIXED32):
            size, at = varint(content, at) if kind == BYTES else ({FIXED64: 8, FIXED32: 4}[kind], at)
            if size > len(content) - at:
                raise ValueError(f"{size:,} bytes announced, {len(content) - at:,} left")
            value, at = content[at : at + size], at + size
        else:
            raise ValueError(f"a field of kind {kind}")
        yield tag >> 3, value


def varints(content: memoryview) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = varint(content, at)
        yield value


def varint(content: memoryview, at: int) -> tuple[int, int]:
    """(number, where it ends): seven bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 64, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 64 bits")
