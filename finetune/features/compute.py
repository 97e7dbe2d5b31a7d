"""From files to features in the store, on all cores at once and in bounded memory.

Each thread takes a batch of pictures the whole way: read, decode, engine. While some decode others
compute, and one thread more than there are cores sees to it that no core is ever without work.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.base import cannot_read
from datasets.decoding.decode import decode, read_file
from datasets.decoding.formats import DamagedPicture
from datasets.image import ImageSpec, enough_for, odd_tone, without_margin
from datasets.progress import Progress
from finetune.features.views import Views

if TYPE_CHECKING:
    from finetune.features.engines.mindspore import MindSporeEngine
    from finetune.storage.store import FeatureStore

CHUNK_ROWS = 64  # what a killed run can lose


def compute(
    wanted: Sequence[tuple[int, int]],
    paths: Sequence[Path],
    keys: list,
    views: Views,
    spec: ImageSpec,
    engine: MindSporeEngine,
    store: FeatureStore,
    damaged: dict,
    threads: int,
) -> int:
    """Put the features of the `wanted` (row, view) of the pictures into the store; returns how many there were.

    The views of a row stand together in `wanted`: in a batch a picture is decoded once. `keys[row]` becomes the digest
    of the bytes that were decoded; `damaged` gets {key: reason}.
    """

    def take(batch: Sequence[tuple[int, int]]) -> int:
        good, images, tones = [], [], {}
        for row, several in itertools.groupby(batch, key=itemgetter(0)):
            try:
                content = read_file(Path(paths[row]))
                keys[row] = key = hashlib.sha256(content).digest()  # it may differ by now from the one looked up
                decoded = decode(content, enough_for(spec))
            except DamagedPicture as error:
                damaged[keys[row]] = str(error)
                continue
            except OSError as error:
                raise cannot_read(paths[row], error) from error
            for _, view in several:
                images.append(views.draw(decoded, spec, key, view))
                good.append(views.key(key, view))
                if not view and (tone := odd_tone(without_margin(images[-1], decoded.size, spec))):
                    tones[key] = tone
        if images:
            chunks.add(good, engine(np.stack(images)), tones)
        return len(batch)

    batches = (wanted[start : start + engine.batch_size] for start in range(0, len(wanted), engine.batch_size))
    chunks = Chunks(store)
    what = "pictures" if views.count == 1 else "views"
    try:
        with Progress("features", len(wanted), what) as progress, ThreadPoolExecutor(threads + 1) as pool:
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
