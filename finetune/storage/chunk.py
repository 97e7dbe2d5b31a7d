"""One chunk of the feature store: rows, their checksums and their keys. Files appear by rename and never change.

    <chunk>.features.npy   float32 (n, D), or float16 (n, C, H, W) in front of a cut, or uint8 (n, H, W, 3)
    <chunk>.checks.npy     uint32 (n,): CRC-32 of each row, begun at its key: a row at another's place shows, too
    <chunk>.keys.npy       uint8 (n, 32), written last: marks it complete; <chunk> is the sha256 of what is in it

A run writes small ones, `finetune.storage.merge` makes large ones of them. With a checksum a row, 64 rows are checked
by reading 64 rows. Chunks of earlier versions have `<chunk>.crc32` of the whole file of features instead, or nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from pathlib import Path

import numpy as np

from datasets.base import cannot_read
from datasets.files import replace_file

KEY = np.dtype("S32")  # compares by memcmp; .tolist() would drop zeros at the end
FEATURES, CHECKS, KEYS, CRC32 = ".features.npy", ".checks.npy", ".keys.npy", ".crc32"
PIECE_BYTES = 1 << 22
FEW_ROWS = 256  # chunks of earlier versions had fewer


class DamagedChunk(Exception):
    """What is in a file is not what was written."""


class Chunk:
    """The files of one chunk. `name` without a suffix.

    Raises:
        FileNotFoundError, PermissionError: in all that reads, where it was removed meanwhile (or is being, on Windows).
        MachineFault: it is there, and cannot be read.
        DamagedChunk
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"

    def read_keys(self) -> np.ndarray:
        """S32 (n,), in the order of the rows."""
        keys = load(self.file(KEYS))
        if name_of(keys) != self.name:
            raise DamagedChunk("the keys were changed")
        return keys.view(KEY)[:, 0]

    def rows(self) -> np.ndarray:
        """(n, ...), memory-mapped."""
        return load(self.file(FEATURES), mmap_mode="r")

    def read(self, keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the rows (k,), bool (k,): which of them are not what was written for `keys` (k,))."""
        mapped = self.rows()
        if not len(rows) or rows.max() >= len(mapped):
            raise DamagedChunk("it has fewer rows than were written")
        found = np.asarray(mapped[rows])
        try:
            return found, checks_of(keys, found) != load(self.file(CHECKS), mmap_mode="r")[rows]
        except (DamagedChunk, IndexError):
            return found, np.ones(len(rows), bool)
        except FileNotFoundError:
            return found, np.full(len(rows), not self._whole_file_is_right())

    def _whole_file_is_right(self) -> bool:
        """For chunks of earlier versions, which are small."""
        if not self.file(KEYS).exists():
            raise FileNotFoundError(self.file(KEYS))
        crc = self.file(CRC32)
        if not crc.exists():  # the oldest have none; what lost its checksums is no old one
            return len(self.rows()) <= FEW_ROWS
        return crc.read_bytes() == f"{crc32_of(self.file(FEATURES)):08x}".encode()

    def remove(self) -> None:
        """As far as it can be: on a read-only disk, or while another process reads it on Windows, it stays."""
        for suffix in (KEYS, CHECKS, CRC32, FEATURES):  # without keys it is none, whatever else is left
            with contextlib.suppress(OSError):
                self.file(suffix).unlink(missing_ok=True)


def write_chunk(folder: Path, keys: np.ndarray, features: np.ndarray) -> Chunk:
    """Of n rows and their keys S32 (n,). One that is there already has the same rows."""
    packed = keys.view(np.uint8).reshape(-1, KEY.itemsize)
    chunk = Chunk(folder, name_of(packed))
    if not chunk.file(KEYS).exists():
        replace_file(chunk.file(FEATURES), lambda f: np.save(f, features))
        replace_file(chunk.file(CHECKS), lambda f: np.save(f, checks_of(keys, features)))
        replace_file(chunk.file(KEYS), lambda f: np.save(f, packed))
    return chunk


def load(file: Path, mmap_mode: str | None = None) -> np.ndarray:
    """As np.load, with an error of one type for what is damaged, and of another for a fault of the machine."""
    try:
        return np.load(file, mmap_mode=mmap_mode)
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except OSError as error:
        raise cannot_read(file, error) from error
    except Exception as error:  # NumPy raises nearly any type on a damaged head
        raise DamagedChunk(str(error)) from error


def name_of(keys: np.ndarray) -> str:
    """Of the chunk with these keys, uint8 (n, 32)."""
    return hashlib.sha256(keys.tobytes()).hexdigest()[:32]


def checks_of(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """uint32 (n,) of the rows (n, ...) with keys S32 (n,)."""
    starts = np.ascontiguousarray(keys).view("<u4")[::8].tolist()
    values = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    return np.array([zlib.crc32(row, start) for row, start in zip(values, starts)], np.uint32)


def crc32_of(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            value = zlib.crc32(piece, value)
    return value
