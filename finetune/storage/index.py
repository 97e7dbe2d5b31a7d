"""Where each row of the feature store is: sorted keys on disk, memory-mapped and searched in halves.

    <folder>/<any>.index.npy   (n,) of key, number of its chunk, row in it; sorted by key
    <folder>/index.json        which of them holds, and the names of the chunks: its rename makes a merge true

Chunks that are not in it yet, those of a run that is at work or was killed, are few or get merged; their keys are read
into memory. A damaged or lost index costs a merge, for all of it stands in the chunks: a wrong place shows in the
checksum of the row.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import read_json, replace_file, write_json
from finetune.storage.chunk import KEY, KEYS, Chunk, DamagedChunk, load

ENTRY = np.dtype([("key", KEY), ("chunk", "<u4"), ("row", "<u4")])
POINTER, ENTRIES = "index.json", ".index.npy"
AT_ONCE = 1 << 18  # entries, 10 MB
TRIES = 100  # to find a moment without a merge

log = logging.getLogger("finetune")


class Index:
    """Entries of the first `merged_count` of the chunks `names` are in `merged`, those of the others in `loose`."""

    def __init__(self, names: list[str], merged: np.ndarray, merged_count: int, loose: np.ndarray, file: Path | None):
        self.names, self.merged, self.merged_count, self.loose, self.file = names, merged, merged_count, loose, file

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int32 (k,), int32 (k,): number of the chunk, and row in it, of the keys S32 (k,); -1 where none is."""
        order = np.argsort(keys)  # in order they touch each page of the file once
        chunks, rows = np.full(len(keys), -1, np.int32), np.full(len(keys), -1, np.int32)
        for start in range(0, len(keys), AT_ONCE):
            some = order[start : start + AT_ONCE]
            for entries in (self.loose, self.merged):  # what is merged is written last, and stands
                there, found = look_up(entries, keys[some])
                real = found["chunk"] < len(self.names)  # else the index is damaged
                there = some[there][real]
                chunks[there], rows[there] = found["chunk"][real], found["row"][real]
        return chunks, rows


def look_up(entries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bool (k,): which of the sorted keys there are, their entries)."""
    if not len(entries):
        return np.zeros(len(keys), bool), entries[:0]
    found = entries[np.minimum(np.searchsorted(entries["key"], keys), len(entries) - 1)]
    there = found["key"] == keys
    return there, found[there]


def entries_of(number: int, keys: np.ndarray) -> np.ndarray:
    """Of the chunk with this number and these keys, in the order of its rows."""
    entries = np.empty(len(keys), ENTRY)
    entries["key"], entries["chunk"], entries["row"] = keys, number, np.arange(len(keys))
    return entries


def read_index(folder: Path, damaged: Callable[[Chunk, object], None]) -> Index:
    """The index of a folder as it is at one moment. `damaged` is told of chunks that do not read back whole."""
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # another run has merged: look once more
            return _read_index(folder, damaged)
    return _read_index(folder, damaged)


def _read_index(folder: Path, damaged: Callable[[Chunk, object], None]) -> Index:
    names, merged, file = read_merged(folder)
    known, merged_count, loose = set(names), len(names), [np.empty(0, ENTRY)]
    for keys_file in sorted(folder.glob(f"*{KEYS}")):
        chunk = Chunk(folder, keys_file.name.removesuffix(KEYS))
        if chunk.name in known:
            continue
        try:
            keys = chunk.read_keys()
            if len(chunk.rows()) != len(keys):
                raise DamagedChunk("the number of rows differs")
        except (DamagedChunk, FileNotFoundError) as error:
            if not keys_file.exists():  # merged by another run: its rows are elsewhere now
                raise FileNotFoundError(keys_file) from error
            damaged(chunk, error)
            continue
        loose.append(entries_of(len(names), keys))
        names.append(chunk.name)
    together = np.concatenate(loose)
    return Index(names, merged, merged_count, together[np.argsort(together["key"])], file)


def read_merged(folder: Path) -> tuple[list[str], np.ndarray, Path | None]:
    """(names of the merged chunks, entries, their file); empty where there is no index, or a damaged one."""
    nothing = [], np.empty(0, ENTRY), None
    for _ in range(TRIES):
        facts = read_pointer(folder)
        if facts is None:
            return nothing
        file = folder / facts["entries"]
        try:
            entries = load(file, mmap_mode="r")
            if entries.dtype != ENTRY or len(entries) != facts["rows"]:
                raise DamagedChunk("not the entries that were written")
            return facts["chunks"], entries, file
        except (DamagedChunk, FileNotFoundError, PermissionError) as error:
            if facts == read_pointer(folder):  # else another run has merged meanwhile
                log.warning("%s: damaged index of the feature cache, made anew (%s)", file, error)
                return nothing
    return nothing


def read_pointer(folder: Path) -> dict | None:
    try:
        return read_json(folder / POINTER, "It is made anew.", {"entries": str, "rows": int, "chunks": list})
    except FileNotFoundError:
        return None
    except InputError as error:
        log.warning("%s", error)
        return None


def write_index(
    folder: Path,
    old: Index,
    names: Sequence[str],
    numbers: np.ndarray,
    new: np.ndarray,
    without: np.ndarray | None = None,
) -> None:
    """The merged entries of `old` and the `new` ones, sorted, as the index from now on.

    Args:
        names: of its chunks.
        numbers: int (chunks of `old`,): the number that each has among `names`; -1: its entries are left out.
        without: keys S32, sorted, whose entries are left out.
    """
    pieces = Pieces(old.merged, new, numbers, without)
    count = pieces.count()
    file = folder / f"{uuid.uuid4().hex}{ENTRIES}"

    def write(target) -> None:
        facts = {"descr": np.lib.format.dtype_to_descr(ENTRY), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(target, facts)
        for piece in pieces:
            target.write(piece.tobytes())

    replace_file(file, write)
    write_json(folder / POINTER, {"entries": file.name, "rows": count, "chunks": list(names)})
    if old.file:
        with contextlib.suppress(OSError):  # on Windows while another process reads it; removed when it is old
            old.file.unlink(missing_ok=True)


class Pieces:
    """Old entries and new ones in one sorted sequence, piece by piece: an index is larger than a chunk of rows."""

    def __init__(self, old: np.ndarray, new: np.ndarray, numbers: np.ndarray, without: np.ndarray | None):
        self.old, self.numbers, self.without = old, numbers, without
        self.new = new[np.argsort(new["key"])]
        self.at = np.searchsorted(old["key"], self.new["key"]) if len(old) else np.zeros(len(new), int)

    def count(self) -> int:
        return len(self.new) + sum(int(np.count_nonzero(self._kept(start)[1])) for start in self._starts())

    def __iter__(self) -> Iterator[np.ndarray]:
        ends = np.append(np.searchsorted(self.at, self._starts()[1:]), len(self.new))
        begins = np.append(0, ends[:-1])
        for start, begin, end in zip(self._starts(), begins, ends):
            kept, mask, numbers = self._kept(start)
            places = np.concatenate([[0], np.cumsum(mask)])[self.at[begin:end] - start]
            kept = np.array(kept)
            kept["chunk"] = np.maximum(numbers, 0)
            yield np.insert(kept[mask] if not mask.all() else kept, places, self.new[begin:end])

    def _starts(self) -> range:
        return range(0, max(1, len(self.old)), AT_ONCE)

    def _kept(self, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Old entries, bool: which of them stay, and the numbers of their chunks."""
        entries = self.old[start : start + AT_ONCE]
        numbers = np.append(self.numbers, -1)[np.minimum(entries["chunk"], len(self.numbers))]
        mask = numbers >= 0
        if self.without is not None and len(self.without):
            mask &= ~np.isin(entries["key"], self.without)
        return entries, mask, numbers
