"""The index of the feature store alone, with more keys than there are rows to try it with."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.contest import peak_mb
from datasets.files import write_json
from finetune.storage.index import ENTRIES, ENTRY, POINTER, Index, look_up, read_merged, write_index

FOUND = (10_000, 100_000, 1_000_000)  # keys that are looked up
LARGE_ROWS = 13_107  # of a chunk of 64 MB


def try_index(place: Path, count: int, keys_of: Callable[[int], np.ndarray]) -> None:
    """An index of `count` keys: opening it, finding keys, adding a million."""
    folder = place / f"{count}_keys"
    folder.mkdir(parents=True, exist_ok=True)
    names = write_sorted(folder, count)
    before = peak_mb()

    def lap(what: str, todo: Callable):
        started = time.perf_counter()
        result = todo()
        print(f"| {what} | {time.perf_counter() - started:.2g} s | {peak_mb() - before:.0f} MB |", flush=True)
        return result

    gigabytes = count * ENTRY.itemsize / 1e9
    print(f"| an index of {count:,} keys, {gigabytes:.1f} GB | seconds | MB so far |\n|---|---|---|")
    _, entries, file = lap("opened", lambda: read_merged(folder))
    rng = np.random.default_rng(5)
    for wanted in (found for found in FOUND if found < count):
        keys = np.sort(entries["key"][np.sort(rng.integers(count, size=wanted))])
        there, _ = lap(f"{wanted:,} keys found", lambda keys=keys: look_up(entries, keys))
        assert there.all()
    new = np.zeros(min(count, FOUND[-1]), ENTRY)
    new["key"] = keys_of(len(new))
    old = Index(names, entries, len(names), entries[:0], file)
    lap(f"{len(new):,} keys added", lambda: write_index(folder, old, names, np.arange(len(names)), new))
    shutil.rmtree(folder)


def write_sorted(folder: Path, count: int) -> list[str]:
    """Random keys in order without sorting them: their first 8 bytes are sums of random gaps. Names of the chunks."""
    names = [f"{n:032x}" for n in range(math.ceil(count / LARGE_ROWS))]
    rng, last, at_once = np.random.default_rng(1), 0.0, 1 << 20
    with (folder / f"made{ENTRIES}").open("wb") as file:
        facts = {"descr": np.lib.format.dtype_to_descr(ENTRY), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, facts)
        for first in range(0, count, at_once):
            size = min(at_once, count - first)
            starts = last + np.cumsum(rng.exponential(size=size))
            last = starts[-1]
            parts = rng.integers(2**63, size=(size, 4)).astype(">u8")
            parts[:, 0] = (starts / count * 2**63).astype(np.uint64)
            entries = np.zeros(size, ENTRY)
            entries["key"] = parts.view("S32")[:, 0]
            entries["chunk"] = rng.integers(len(names), size=size)
            file.write(entries.tobytes())
    write_json(folder / POINTER, {"entries": f"made{ENTRIES}", "rows": count, "chunks": names})
    return names
