"""Rows of the feature store as an array that is read when rows are asked for: memory does not grow with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from datasets.base import MachineFault, cannot_read
from finetune.storage.chunk import FEATURES, Chunk, DamagedChunk
from finetune.storage.store import FeatureStore

HELD_BYTES = 1 << 28  # of rows that a run reads into memory; more stay on the disk
CHECKED_AT_START = 1 << 30  # bytes; of more rows each is checked when it is read, for reading them all takes minutes
AT_ONCE = 1 << 25  # bytes


class Moved(Exception):
    """A chunk is not there any more."""


class StoredRows:
    """(N, D) or (N, C, H, W). Understands what NumPy does of the first axis: `rows[7]`, `rows[10:20]`, `rows[indices]`,
    `rows[mask]`. Rows that are not in the store are NaN, or 0 among whole numbers. A row is checked once.

    Raises:
        MachineFault: on reading, where rows were changed on the disk or removed since the run began.
    """

    def __init__(self, store: FeatureStore, keys: np.ndarray):
        """`keys`: S32 (N,)."""
        self.store, self.keys = store, keys
        self.index = store.read_index()
        self.chunk, self.row = self.index.find(keys)  # int32 (N,), -1 where there is none
        self.checked = np.zeros(len(keys), bool)
        self.numbers = np.arange(len(keys), dtype=np.int32)
        self.dtype, self.shape = np.dtype(store.dtype), (len(keys), *self._shape_of_a_row())
        self.ndim = len(self.shape)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def there(self) -> np.ndarray:
        """bool (N,): which rows are in the store."""
        return self.chunk >= 0

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, wanted) -> np.ndarray:
        places = self.numbers[wanted]
        found, changed = self._read(np.atleast_1d(places))
        if changed.any():
            count = self._drop(np.atleast_1d(places)[changed])
            raise MachineFault(
                f"{self.store.folder}: {count} rows of the feature cache were changed on the disk, and are removed. "
                "Repeat the command: they are computed again, all others are kept."
            )
        return found if np.ndim(places) else found[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def part(self, rows: np.ndarray) -> StoredRows:
        """Those rows, (n, ...), still not read."""
        other = object.__new__(StoredRows)
        other.__dict__ = {**self.__dict__, "numbers": np.arange(len(rows), dtype=np.int32)}
        for name in ("keys", "chunk", "row", "checked"):
            setattr(other, name, getattr(self, name)[rows])
        other.shape = (len(rows), *self.shape[1:])
        return other

    def drop_changed(self) -> None:
        """Read all rows once, if they are few enough; those that were changed on the disk are not there any more."""
        if self.nbytes > CHECKED_AT_START:
            return
        step = max(1, AT_ONCE * len(self) // max(1, self.nbytes))
        order = np.lexsort((self.row, self.chunk))
        for start in range(0, len(self), step):
            places = order[start : start + step]
            _, changed = self._read(places)
            if changed.any():
                self._drop(places[changed])

    def _read(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows (k, ...), bool (k,): which of them were changed on the disk)."""
        nothing = np.nan if self.dtype.kind == "f" else 0
        found = np.full((len(places), *self.shape[1:]), nothing, self.dtype)
        changed = np.zeros(len(places), bool)
        left = np.flatnonzero(self.there[places])
        while len(left):
            chunks = self.chunk[places[left]]
            order = np.lexsort((self.row[places[left]], chunks))
            left, bounds, done = left[order], np.flatnonzero(np.diff(chunks[order])) + 1, 0
            with contextlib.suppress(Moved):  # then what is left may be elsewhere, too
                for of_one in np.split(left, bounds):
                    try:
                        found[of_one], changed[of_one] = self._read_chunk(places[of_one])
                    except DamagedChunk:
                        changed[of_one] = True
                    done += len(of_one)
            left = left[done:]
        return found, changed

    def _shape_of_a_row(self) -> tuple[int, ...]:
        """(0,) where there is none."""
        looked_at: set[str] = set()
        while True:
            left = {self.index.names[number] for number in np.unique(self.chunk[self.there])} - looked_at
            if not left:
                return (0,)
            chunk = Chunk(self.store.folder, min(left))
            try:
                with self._where_it_is(chunk):
                    return chunk.rows().shape[1:]
            except Moved:
                continue
            except DamagedChunk:
                looked_at.add(chunk.name)

    def _read_chunk(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_read`, of rows that are in one chunk.

        Raises:
            DamagedChunk
            Moved: see `_where_it_is`.
        """
        chunk, rows = Chunk(self.store.folder, self.index.names[self.chunk[places[0]]]), self.row[places]
        with self._where_it_is(chunk):
            if self.checked[places].all():
                found, changed = chunk.rows()[rows], np.zeros(len(places), bool)
            else:
                found, changed = chunk.read(self.keys[places], rows)
        if found.shape[1:] != self.shape[1:]:
            raise DamagedChunk("its rows have another shape")
        self.checked[places] = ~changed
        return found, changed

    @contextlib.contextmanager
    def _where_it_is(self, chunk: Chunk) -> Iterator[None]:
        """Around what reads a chunk.

        Raises:
            Moved: another run has merged it meanwhile; where the rows are now has been looked up.
            DamagedChunk: it should be there, and is not.
            MachineFault: rows are nowhere any more, or cannot be read.
        """
        try:
            yield
        except (FileNotFoundError, PermissionError) as error:
            before = self.index.file
            lost = self._look_up_again()
            if lost.any():
                raise MachineFault(
                    f"{self.store.folder}: {lost.sum()} rows of the feature cache were removed since this run began. "
                    "Repeat the command: they are computed again."
                ) from error
            if before != self.index.file or chunk.name not in self.index.names[: self.index.merged_count]:
                raise Moved from error
            if isinstance(error, PermissionError):
                raise cannot_read(chunk.file(FEATURES), error) from error
            raise DamagedChunk("a file of it is not there any more") from error

    def _look_up_again(self) -> np.ndarray:
        """bool (N,): which rows are gone. What was found to be changed stays away."""
        self.index, there = self.store.read_index(), self.there
        chunk, row = self.index.find(self.keys)
        self.chunk, self.row = np.where(there, chunk, -1), np.where(there, row, -1)
        return there & (chunk < 0)

    def _drop(self, places: np.ndarray) -> int:
        """How many rows went; with those of a chunk that went as a whole."""
        names = {self.index.names[number] for number in self.chunk[places]}
        self.store.drop(names, np.unique(self.keys[places]), "its checksum differs")
        self.chunk[places] = -1
        return len(places) + int(self._look_up_again().sum())


def held(rows: np.ndarray | StoredRows, wanted: np.ndarray | None = None) -> np.ndarray | StoredRows:
    """The `wanted` rows (n,), or all of them: in memory, or still in the store where they are more than HELD_BYTES."""
    wanted = np.arange(len(rows)) if wanted is None else wanted
    if not isinstance(rows, StoredRows) or len(wanted) * rows.nbytes <= HELD_BYTES * len(rows):
        return rows[wanted]
    return rows.part(wanted)
