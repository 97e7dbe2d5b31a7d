"""Many small chunks of the feature store become few large ones, and the index knows them.

Whoever finds many small ones does it; one at a time, others go on without. The order makes it safe at any moment: large
chunks are whole before the index names them, the index is whole before the small ones go. What a kill leaves are rows
that stand twice, which the next merge finds. A reader whose chunk is gone reads the index again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from datasets.base import MachineFault
from finetune.storage.chunk import FEATURES, Chunk, DamagedChunk, write_chunk
from finetune.storage.index import ENTRY, Index, entries_of, look_up, read_index, write_index

LARGE_BYTES = 64 << 20  # of a chunk of rows; half of it is large enough to stay
MANY = 64  # chunks, or one for each 1,024 merged rows: an index is written anew for a sixteenth of it at least
LOCK = "merge.lock"

Damaged = Callable[[Chunk, object], None]

log = logging.getLogger("finetune")


def many(merged_rows: int) -> int:
    """So many chunks are merged that are not in an index of this length."""
    return max(MANY, merged_rows // 1024)


def merge(folder: Path, damaged: Damaged) -> bool:
    """Whether it came of it: not while another process does it, nor where nothing can be written."""
    lock = FileLock(folder / LOCK, mode=0o644)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):  # the last: a file system without locks
        return False
    try:
        return merge_alone(folder, damaged)
    except (OSError, MachineFault) as error:  # a full disk: the small ones are still there
        log.warning("%s: small chunks of the feature cache stay as they are (%s)", folder, error)
        return False
    finally:
        lock.release()


def merge_alone(folder: Path, damaged: Damaged) -> bool:
    started = time.perf_counter()
    index = read_index(folder, damaged)
    chunks = [Chunk(folder, name) for name in index.names]
    stats = [chunk.file(FEATURES).stat() if chunk.file(FEATURES).exists() else None for chunk in chunks]
    large = np.array([stat is not None and stat.st_size >= LARGE_BYTES // 2 for stat in stats], bool)
    there = [number for number, stat in enumerate(stats) if stat is not None]
    small = sorted((n for n in there if not large[n]), key=lambda n: (stats[n].st_mtime_ns, index.names[n]))
    adopted = without_merged(index, large, index.loose[large[index.loose["chunk"]]])  # left by a kill before the index
    if len(small) < 2 and not len(adopted):
        return False
    stay = [number for number in range(len(chunks)) if large[number]]
    names = [index.names[number] for number in stay]
    numbers = np.full(len(chunks), -1, np.int64)
    numbers[stay] = np.arange(len(stay))

    new = [np.array(adopted)]
    new[0]["chunk"] = numbers[adopted["chunk"]]
    for keys, rows in full_chunks(fresh_rows(index, [chunks[n] for n in small], large, adopted, damaged)):
        new.append(entries_of(len(names), keys))
        names.append(write_chunk(folder, keys, rows).name)
    write_index(folder, index, names, numbers[: index.merged_count], np.concatenate(new))
    for number in small:
        if index.names[number] not in names:
            chunks[number].remove()
    seconds = time.perf_counter() - started
    log.info("feature cache: %d small chunks became %d large ones, %.1f s", len(small), len(new) - 1, seconds)
    return True


def without_merged(index: Index, stays: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Those of the sorted entries whose key is in no merged chunk that stays, bool (chunks,); each key once."""
    first = np.ones(len(entries), bool)
    first[1:] = entries["key"][1:] != entries["key"][:-1]
    entries = entries[first]
    there, found = look_up(index.merged, entries["key"])
    inside = found["chunk"] < index.merged_count
    there[there] = inside & stays[np.where(inside, found["chunk"], 0)]
    return entries[~there]


def fresh_rows(
    index: Index, sources: list[Chunk], stays: np.ndarray, adopted: np.ndarray, damaged: Damaged
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(keys, rows) of each source in turn, less what stands elsewhere already, or was changed on the disk."""
    entries = [np.empty(0, ENTRY)]
    for number, source in enumerate(sources):
        try:
            entries.append(entries_of(number, source.read_keys()))
        except DamagedChunk as error:
            damaged(source, error)
    wanted = np.concatenate(entries)
    wanted = without_merged(index, stays, wanted[np.argsort(wanted["key"], kind="stable")])
    wanted = wanted[~look_up(adopted, wanted["key"])[0]]
    wanted = wanted[np.lexsort((wanted["row"], wanted["chunk"]))]
    bounds = np.searchsorted(wanted["chunk"], np.arange(len(sources) + 1))
    for source, begin, end in zip(sources, bounds, bounds[1:]):
        keys, rows = wanted["key"][begin:end], wanted["row"][begin:end]
        if not len(rows):
            continue
        try:
            found, changed = source.read(keys, rows)
        except DamagedChunk as error:
            damaged(source, error)
            continue
        if changed.any():
            damaged(source, "its checksum differs")
        if not changed.all():
            yield keys[~changed], found[~changed]


def full_chunks(pieces: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same rows, LARGE_BYTES of them at a time."""
    keys, rows, held = [], [], 0
    for some_keys, some_rows in pieces:
        keys.append(some_keys)
        rows.append(some_rows)
        held += some_rows.nbytes
        if held >= LARGE_BYTES:
            yield np.concatenate(keys), np.concatenate(rows)
            keys, rows, held = [], [], 0
    if held:
        yield np.concatenate(keys), np.concatenate(rows)
