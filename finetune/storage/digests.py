"""The sha256 of files, without reading those that have not changed since the last time.

A file is known again by device, inode, size, time of modification and time of change (mtime, ctime).
Every write sets the change time to the clock, and no program can set it back. What is left is a write
so soon after the reading that the clock shows the same time (known from git as "racy"); therefore only
a file that had rested for SETTLED_SECONDS before it was read is remembered. Times are taken from the
open file, so that a network file system looks again. Where the system keeps no change time (Windows),
every file is read.

What is known lies in `files.npy`, sorted by what stat said, and is memory-mapped: at a million files a warm start
takes seconds, nearly all of them for opening the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.base import cannot_read
from datasets.files import replace_file

# Coarsest clock of a file system in use is 2 s; more leaves room for a server whose clock is slow.
SETTLED_SECONDS = 600
HAS_CHANGE_TIME = os.name == "posix"
PIECE_BYTES = 1 << 22
MOST_REMEMBERED = 10_000_000  # files; those not seen for the longest time are forgotten first
AT_ONCE = 1000  # files, for one thread
STAT = np.dtype("S40")  # see `packed`; compares by memcmp
RECORD = np.dtype([("stat", STAT), ("sha256", "V32"), ("day", "<u4")])  # day since 1970 when it was seen last
EARLIER = np.dtype([("stat", "V40"), ("sha256", "V32")])  # in no order
DAY_NS = 24 * 3600 * 10**9
NOTED_DAYS = 30  # so old is the note that a file was seen before it is written anew for that alone


def hash_files(paths: Sequence[Path], cache_dir: Path, threads: int) -> tuple[list, dict]:
    """(N keys, {key: reason}). A file that was removed meanwhile gets a key of its own that no row has.

    Raises:
        InputError: a file cannot be read, which is a fault of the machine.
    """
    memory, keys, damaged = Memory(cache_dir / "files.npy"), [], {}
    batches = (paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE))
    try:
        with ThreadPoolExecutor(threads) as pool:
            for some_keys, some_damaged in pool.map(memory.digests, batches):
                keys += some_keys
                damaged |= some_damaged
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
    """What the stat of a file said when it was read -> its digest then."""

    def __init__(self, file: Path):
        self.file = file
        self.known = read_records(file)
        self.seen = np.zeros(len(self.known), bool)
        self.learnt: list[tuple[bytes, bytes]] = []

    def digests(self, paths: Sequence[Path]) -> tuple[list, dict]:
        """As `hash_files`."""
        stats, damaged = [], {}
        keys: list = [None] * len(paths)
        for n, path in enumerate(paths):
            stats.append(b"")
            with self._removed_is_said(path, keys, n, damaged), FileIO(path) as file:  # quicker than Path.open
                stats[n] = packed(os.fstat(file.fileno()))
        stats = np.array(stats, STAT)
        order = np.argsort(stats)
        at = np.minimum(np.searchsorted(self.known["stat"], stats[order]), len(self.known) - 1)
        if len(self.known):
            same = self.known["stat"][at] == stats[order]
            for n, digest in zip(order[same].tolist(), self.known["sha256"][at[same]].tolist()):
                keys[n] = digest
            self.seen[at[same]] = True
        for n, path in enumerate(paths):
            if keys[n] is None:
                with self._removed_is_said(path, keys, n, damaged):
                    keys[n] = self._read(path)
        return keys, damaged

    @contextlib.contextmanager
    def _removed_is_said(self, path: Path, keys: list, n: int, damaged: dict) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            damaged[str(path)], keys[n] = gone(path, error), str(path)

    def _read(self, path: Path) -> bytes:
        with FileIO(path) as file:
            now_ns = time.time_ns()
            before = os.fstat(file.fileno())
            found = sha256_of(file)
            if settled(before, now_ns) and packed(os.fstat(file.fileno())) == packed(before):
                self.learnt.append((packed(before), found))
            return found

    def write(self) -> None:
        """A copy that another run wrote meanwhile is replaced: its files are read once more, no harm done. So they are
        where the cache is read-only."""
        today = time.time_ns() // DAY_NS
        old = self.known["day"][self.seen] + NOTED_DAYS < today
        if not self.learnt and not old.any():
            return
        records = np.array(self.known)
        records["day"][self.seen] = today
        learnt = np.array([(*pair, today) for pair in self.learnt], RECORD)
        records = np.concatenate([records, learnt])
        if len(records) > MOST_REMEMBERED:
            records = records[np.argsort(records["day"], kind="stable")[-MOST_REMEMBERED:]]
        records = records[np.argsort(records["stat"])]
        with contextlib.suppress(OSError):
            replace_file(self.file, lambda f: np.save(f, records))


def read_records(file: Path) -> np.ndarray:
    """Sorted by stat. None where the file is not there yet, or damaged: then all pictures are read."""
    try:
        records = np.load(file, mmap_mode="r")
        if records.dtype == RECORD:
            return records
        records = np.load(file).astype(EARLIER, casting="no")
        found = np.zeros(len(records), RECORD)
        found["stat"], found["sha256"] = np.ascontiguousarray(records["stat"]).view(STAT), records["sha256"]
        return found[np.argsort(found["stat"])]
    except Exception:  # NumPy raises nearly any type on a damaged head
        return np.empty(0, RECORD)


def sha256_of(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.digest()


def packed(stat: os.stat_result) -> bytes:
    """40 bytes that are equal for a file that has not been written."""
    numbers = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    return struct.pack("<5Q", *(number % 2**64 for number in numbers))


def settled(stat: os.stat_result, now_ns: int) -> bool:
    """Whether a later write is sure to show in the times."""
    newest_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
    return HAS_CHANGE_TIME and now_ns - newest_ns > SETTLED_SECONDS * 10**9
