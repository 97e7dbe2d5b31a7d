"""The sha256 of files, without reading those that have not changed since the last time.

A file is known again by device, inode, size, time of modification and time of change (mtime, ctime).
Every write sets the change time to the clock, and no program can set it back. What is left is a write
so soon after the reading that the clock shows the same time (known from git as "racy"); therefore only
a file that had rested for SETTLED_SECONDS before it was read is remembered. Times are taken from the
open file, so that a network file system looks again. Where the system keeps no change time (Windows),
every file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.base import cannot_read
from datasets.files import replace_file

# Coarsest clock of a file system in use is 2 s; more leaves room for a server whose clock is slow.
SETTLED_SECONDS = 600
HAS_CHANGE_TIME = os.name == "posix"
PIECE_BYTES = 1 << 22
MOST_REMEMBERED = 1_000_000  # files; the least recently seen are forgotten first
RECORD = np.dtype([("stat", "V40"), ("sha256", "V32")])


def hash_files(paths: Sequence[Path], cache_dir: Path, threads: int) -> tuple[list, dict]:
    """(N keys, {key: reason}). A file that was removed meanwhile gets a key of its own that no row has.

    Raises:
        InputError: a file cannot be read, which is a fault of the machine.
    """
    memory = Memory(cache_dir / "files.npy")
    damaged = {}

    def key_of(path: Path):
        try:
            return memory.digest(path)
        except OSError as error:
            damaged[str(path)] = gone(path, error)
            return str(path)

    try:
        with ThreadPoolExecutor(threads) as pool:
            keys = list(pool.map(key_of, paths))
    finally:
        memory.write()
    return keys, damaged


def gone(path: Path, error: OSError) -> str:
    """What to say of a file that was removed since it was found.

    Raises:
        InputError: it was not, or its folder is gone too: a fault of the machine.
    """
    if isinstance(error, FileNotFoundError) and Path(path).parent.is_dir():
        return "not there any more"
    raise cannot_read(path, error) from error


class Memory:
    """What the stat of a file said when it was read -> its digest then. Kept in one small file."""

    def __init__(self, file: Path):
        self.file = file
        self.known: dict[bytes, bytes] = {}
        self.seen: dict[bytes, bytes] = {}
        self.learnt = False
        try:
            records = np.load(file).astype(RECORD, casting="no")
            self.known = dict(zip(records["stat"].tolist(), records["sha256"].tolist()))
        except Exception:  # NumPy raises nearly any type on a damaged head
            pass  # not there yet, or damaged: everything is read

    def digest(self, path: Path) -> bytes:
        """Raises OSError where the file cannot be read."""
        with Path(path).open("rb", buffering=0) as file:
            now_ns = time.time_ns()
            before = os.fstat(file.fileno())
            found = self.known.get(packed(before))
            if found is None:
                found = sha256_of(file)
                if not settled(before, now_ns) or packed(os.fstat(file.fileno())) != packed(before):
                    return found
                self.learnt = True
            self.seen[packed(before)] = found
            return found

    def write(self) -> None:
        """A copy that another run wrote meanwhile is replaced: its files are read once more, no harm done. So they are
        where the cache is read-only."""
        if not self.learnt:
            return
        others = {stat: sha256 for stat, sha256 in self.known.items() if stat not in self.seen}
        records = [*others.items(), *self.seen.items()][-MOST_REMEMBERED:]
        with contextlib.suppress(OSError):
            replace_file(self.file, lambda f: np.save(f, np.array(records, dtype=RECORD)))


def sha256_of(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.digest()


def packed(stat: os.stat_result) -> bytes:
    """40 bytes that are equal for a file that has not been written."""
    numbers = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return b"".join((number % 2**64).to_bytes(8, "little") for number in numbers)


def settled(stat: os.stat_result, now_ns: int) -> bool:
    """Whether a later write is sure to show in the times."""
    newest_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
    return HAS_CHANGE_TIME and now_ns - newest_ns > SETTLED_SECONDS * 10**9
