"""From files to features in the store, on all cores at once and in bounded memory.

Each thread takes a batch of pictures the whole way: read, decode, engine. While some decode others
compute, and one thread more than there are cores sees to it that no core is ever without work.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.base import cannot_read
from datasets.decoding.decode import read_file
from datasets.decoding.formats import DamagedPicture
from datasets.image import ImageSpec, odd_tone, to_array
from datasets.progress import Progress

if TYPE_CHECKING:
    from finetune.features.engines.mindspore import MindSporeEngine
    from finetune.features.store import FeatureStore

CHUNK_ROWS = 64  # what a killed run can lose


def compute(
    rows: Sequence[int],
    paths: Sequence[Path],
    keys: list,
    spec: ImageSpec,
    engine: MindSporeEngine,
    store: FeatureStore,
    damaged: dict,
    threads: int,
) -> int:
    """Put the features of `rows` of the pictures into the store; returns how many there were.

    `keys[row]` becomes the digest of the bytes that were decoded; `damaged` gets {key: reason}.
    """

    def take(batch: Sequence[int]) -> int:
        good, images = [], []
        for row in batch:
            try:
                content = read_file(Path(paths[row]))
                keys[row] = hashlib.sha256(content).digest()  # it may differ by now from the one looked up
                images.append(to_array(content, spec))
                good.append(keys[row])
            except DamagedPicture as error:
                damaged[keys[row]] = str(error)
            except OSError as error:
                raise cannot_read(paths[row], error) from error
        tones = {key: tone for key, image in zip(good, images) if (tone := odd_tone(image))}
        if images:
            chunks.add(good, engine(np.stack(images)), tones)
        return len(batch)

    batches = (rows[start : start + engine.batch_size] for start in range(0, len(rows), engine.batch_size))
    chunks = Chunks(store)
    try:
        with Progress("features", len(rows), "pictures") as progress, ThreadPoolExecutor(threads + 1) as pool:
            for count in in_order(pool, take, batches, ahead=2 * (threads + 1)):
                progress.update(count)
    finally:  # also on Ctrl-C: what is computed is kept
        chunks.write()
    return chunks.rows_written


class Chunks:
    """Collects rows from several threads and writes them to the store CHUNK_ROWS at a time."""

    def __init__(self, store: FeatureStore):
        self.store = store
        self.keys: list[bytes] = []
        self.features: list[np.ndarray] = []
        self.tones: dict[bytes, str] = {}
        self.rows_written = 0
        self.one_at_a_time = threading.Lock()

    def add(self, keys: list[bytes], features: np.ndarray, tones: dict[bytes, str]) -> None:
        with self.one_at_a_time:
            self.tones |= tones
            self.keys += keys
            self.features.append(features)
            if len(self.keys) >= CHUNK_ROWS:
                self.write()

    def write(self) -> None:
        if self.keys:
            self.store.write_tones(self.tones)  # first: a chunk that is there is complete
            self.store.write_chunk(self.keys, np.concatenate(self.features))
            self.rows_written += len(self.keys)
            self.keys, self.features, self.tones = [], [], {}


def in_order(pool: Executor, function: Callable, items: Iterable, ahead: int) -> Iterator:
    """function(item) of each item in order, at most `ahead` of them under way."""
    under_way: deque[Future] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) == ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
