"""The feature store: whole chunks of rows, found by the sha256 of the picture's bytes.

    <cache_dir>/features/<facts>/facts.json
    <cache_dir>/features/<facts>/<chunk>.*            rows, their checksums and their keys: finetune.storage.chunk
    <cache_dir>/features/<facts>/index.json           where each row is: finetune.storage.index
    <cache_dir>/features/<facts>/<any>.tones.json     {key: what is odd about the picture}, of few

<facts> is the sha256 of everything beside the picture that decides its numbers. Files appear by rename
and are never changed, so a killed run leaves only whole chunks, and two runs at once at worst compute
the same rows twice. Small chunks become large ones: finetune.storage.merge.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import one_at_a_time, replace_file
from finetune.storage.chunk import CHECKS, CRC32, FEATURES, KEY, KEYS, Chunk, write_chunk
from finetune.storage.index import ENTRIES, ENTRY, Index, read_index, read_merged, write_index
from finetune.storage.merge import LOCK, many, merge

STALE_SECONDS = 24 * 3600  # leftovers of killed runs are removed after this
TONES = ".tones.json"

log = logging.getLogger("finetune")


class FeatureStore:
    """The folder of one backbone: write whole chunks, find rows by key."""

    def __init__(self, cache_dir: Path, facts: dict, dtype: type = np.float32):
        self.dtype = dtype  # of the rows
        text = json.dumps(facts, sort_keys=True)
        self.folder = Path(cache_dir) / "features" / hashlib.sha256(text.encode()).hexdigest()[:32]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "facts.json").exists():
                replace_file(self.folder / "facts.json", lambda f: f.write(json.dumps(facts, indent=1).encode()))
        except OSError as error:
            raise self._not_writable(error) from error
        self.unmerged, self.many = 0, many(0)  # chunks that are not merged yet, and how many are too many
        self._remove_stale()

    def check_writable(self) -> None:
        """Before rows are computed. A cache that has them all may be read-only.

        Raises:
            InputError: it cannot be written.
        """
        try:
            replace_file(self.folder / "writable", lambda f: None)
            (self.folder / "writable").unlink(missing_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.folder}: the feature cache cannot be written ({error.strerror}). "
            "Choose another folder with --cache_dir."
        )

    def write_chunk(self, keys: Sequence[bytes], features: np.ndarray) -> None:
        write_chunk(self.folder, np.array(keys, KEY), features.astype(self.dtype, copy=False))
        self.chunks_came(1)

    def chunks_came(self, count: int) -> None:
        """So many were written, here or by other machines."""
        self.unmerged += count
        if self.unmerged >= self.many:
            self.merge()

    def merge_if_many(self) -> None:
        """Of small chunks. It costs nothing but time where it does not come of it."""
        names, merged, _ = read_merged(self.folder)
        self.unmerged, self.many = len({*self._names_of(KEYS)} - {*names}), many(len(merged))
        if self.unmerged >= self.many:
            self.merge()

    def merge(self) -> None:
        self.unmerged = 0
        if merge(self.folder, self._remove_chunk):
            self.many = many(len(read_merged(self.folder)[1]))
            self._merge_tones()

    def read_index(self) -> Index:
        """As it is now. A chunk that does not read back whole is removed."""
        return read_index(self.folder, self._remove_chunk)

    def drop(self, names: set[str], keys: np.ndarray, error: object) -> None:
        """Forget rows of these chunks that were changed on the disk; keys S32, sorted. A chunk that is not merged
        yet is small, and goes as a whole."""
        # A read-only cache stays as it is; so does one on a file system without locks.
        with contextlib.suppress(OSError, NotImplementedError), one_at_a_time(self.folder / LOCK):
            index = self.read_index()
            merged = {*index.names[: index.merged_count]}
            for name in sorted(names - merged):
                self._remove_chunk(Chunk(self.folder, name), error)
            if damaged := sorted(names & merged):
                self._warn(Chunk(self.folder, damaged[0]), f"{len(keys)} rows in {len(damaged)} chunks: {error}")
                numbers = np.arange(index.merged_count)
                write_index(self.folder, index, index.names[: len(numbers)], numbers, np.empty(0, ENTRY), keys)
                used = np.unique(read_merged(self.folder)[1]["chunk"])
                for name in damaged:
                    if index.names.index(name) not in used:  # the same rows may come again, under the same name
                        Chunk(self.folder, name).remove()

    def _remove_chunk(self, chunk: Chunk, error: object) -> None:
        self._warn(chunk, error)
        chunk.remove()

    def _warn(self, chunk: Chunk, error: object) -> None:
        log.warning("%s: damaged chunk of the feature cache, computed again (%s)", chunk.file(FEATURES), error)

    def _names_of(self, suffix: str) -> list[str]:
        return [file.name.removesuffix(suffix) for file in self.folder.glob(f"*{suffix}")]

    def write_tones(self, tones: dict[bytes, str]) -> Path | None:
        """Remember what was odd about pictures, so that it is said when their rows come from the store, too."""
        if not tones:
            return None
        text = json.dumps({key.hex(): tone for key, tone in sorted(tones.items())}).encode()
        file = self.folder / f"{hashlib.sha256(text).hexdigest()[:32]}{TONES}"
        replace_file(file, lambda f: f.write(text))
        return file

    def read_tones(self) -> dict[bytes, str]:
        while True:
            tones, files = {}, sorted(self.folder.glob(f"*{TONES}"))
            try:
                for file in files:
                    tones |= self._read_tones(file)
                return tones
            except FileNotFoundError:  # another run has merged them
                continue

    def _read_tones(self, file: Path) -> dict[bytes, str]:
        try:
            return {bytes.fromhex(key): str(tone) for key, tone in json.loads(file.read_bytes()).items()}
        except (ValueError, AttributeError) as error:
            log.warning("%s: damaged, removed (%s)", file, error)
            with contextlib.suppress(OSError):
                file.unlink()
            return {}

    def _merge_tones(self) -> None:
        files = sorted(self.folder.glob(f"*{TONES}"))
        with contextlib.suppress(OSError):  # all of them once more, then the old ones go
            together = self.write_tones({key: tone for file in files for key, tone in self._read_tones(file).items()})
            for file in files:
                if file != together:
                    file.unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        """What killed runs left: files half written, chunks half written or half removed, and indices out of use."""
        whole, used = {*self._names_of(KEYS)}, read_merged(self.folder)[2]
        parts = [file for kind in (FEATURES, CHECKS, CRC32) for file in self.folder.glob(f"*{kind}")]
        leftovers = [file for file in parts if file.name.partition(".")[0] not in whole]
        leftovers += [file for file in self.folder.glob(f"*{ENTRIES}") if file != used]
        for leftover in [*self.folder.glob("*.tmp"), *leftovers]:
            with contextlib.suppress(OSError):  # another run was first, or the cache is read-only
                if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                    leftover.unlink()
