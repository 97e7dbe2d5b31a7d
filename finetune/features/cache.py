"""Features: each picture goes through the frozen backbone once, and comes from the cache after that.

A row is found by the sha256 of the picture's bytes, in the store of everything else that decides its
numbers: weights, ImageSpec, layer, the engine's numeric class. Paths, names and batch sizes play no
part, so moved pictures are found again and changed ones never. Views of a picture beyond the plain one
have keys of their own (`finetune.features.views`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from datasets.base import Dataset, Split
from datasets.files import replace_file
from datasets.folder import VIEWS_FOLDER
from datasets.image import PIPELINE_VERSION, ImageSpec
from finetune.features.compute import compute
from finetune.features.remote.on_ray import RayWorkers
from finetune.features.views import PLAIN, Views
from finetune.storage.chunk import KEY
from finetune.storage.digests import hash_files
from finetune.storage.rows import StoredRows
from finetune.storage.store import FeatureStore

if TYPE_CHECKING:
    from finetune.features.engines.mindspore import MindSporeEngine
    from pretrained.weights import Backbone

LAYER = "pooled"
PIXELS = "pixels"  # of views as they are drawn: the layer in front of block 0, the same for all weights
FLOAT16 = " as float16"  # of the numeric class: how rows in front of a cut are stored, 37 KB instead of 75 each
ROWS_AT_ONCE = 1024  # written to a view

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Features:
    """Rows of N pictures, and what it took to get them. D is (C, H, W) in front of a cut, (H, W, 3) of pixels."""

    rows: StoredRows  # float32 (N, D), NaN where not readable; with V views (V * N, D), view by view; or uint8 pixels
    keys: list  # N sha256 digests of the files
    readable: np.ndarray  # bool (N,)
    damaged: dict[str, str]  # path -> reason
    tones: dict[int, str]  # row -> what is odd about the picture, of few
    computed: int  # pictures, or views of them, that went through the backbone now
    seconds: float  # spent on those


def extract(
    paths: Sequence[Path],
    backbone: Backbone,
    engine: MindSporeEngine | RayWorkers,
    cache_dir: str | Path,
    threads: int,
    views: Views = PLAIN,
    cut: int | None = None,
) -> Features:
    """Features of N pictures, from the cache where it has them; or what stands in front of block `cut`, by an engine
    for it: in front of block 0 the pixels.

    Raises:
        InputError: the cache folder cannot be written, and rows are missing in it.
    """
    spec = backbone.record.image
    facts = store_facts(spec, backbone.digest, engine.numeric_class, cut)
    store = FeatureStore(Path(cache_dir), facts, {None: np.float32, 0: np.uint8}.get(cut, np.float16))
    contents, damaged = hash_files(paths, Path(cache_dir), threads)
    store.merge_if_many()
    rows = StoredRows(store, keys_of(contents, views))
    rows.drop_changed()
    wanted = missing(contents, views, rows.there)
    computed, seconds = 0, 0.0
    if wanted:
        store.check_writable()
        started = time.perf_counter()
        if isinstance(engine, RayWorkers):
            computed = engine.fill(wanted, paths, contents, views, store, damaged)
        else:
            computed = compute(wanted, paths, contents, views, spec, engine, store, damaged, threads)
        seconds = time.perf_counter() - started
        rows = StoredRows(store, keys_of(contents, views))
    rate = f", {computed / seconds:.1f} images/s" if computed else ""
    log.info("features: %d computed in %.1f s%s; the others cached", computed, seconds, rate)
    readable = rows.there[: len(contents)]
    if not rows.there.all():  # also for a view that is lacking: the plain one
        plain = np.tile(rows.keys[: len(contents)], views.count)
        rows = StoredRows(store, np.where(rows.there, rows.keys, plain))
    unreadable = {row: damaged.get(contents[row], "cannot be read") for row in np.flatnonzero(~readable)}
    damaged = {str(paths[row]): reason for row, reason in unreadable.items()}
    odd = store.read_tones()
    tones = {row: odd[key] for row, key in enumerate(contents) if key in odd and readable[row]}
    return Features(rows, contents, readable, damaged, tones, computed, seconds)


def keys_of(contents: Sequence, views: Views) -> np.ndarray:
    """S32 (V * N,), the keys of all views of N pictures, view by view; empty for a picture that could not be read."""
    keys = np.zeros(views.count * len(contents), KEY)
    for view in range(views.count):
        some = [views.key(content, view) if isinstance(content, bytes) else b"" for content in contents]
        keys[view * len(contents) : (view + 1) * len(contents)] = some
    return keys


def missing(contents: Sequence, views: Views, there: np.ndarray) -> list[tuple[int, int]]:
    """(row, view) of what must be computed, by row; the same picture twice once. `there`: bool (V * N,)."""
    found, first = [], {}
    for row, view in np.argwhere(~there.reshape(views.count, -1).T).tolist():
        content = contents[row]
        if isinstance(content, bytes) and first.setdefault(content, row) == row:
            found.append((row, view))
    return found


def store_facts(spec: ImageSpec, weights_digest: str, numeric_class: str, cut: int | None = None) -> dict:
    """Everything beside the picture that decides the numbers of its row."""
    if cut == 0:
        return {"image": spec.to_dict(), "pipeline": PIPELINE_VERSION, "layer": PIXELS}
    return {
        "weights": weights_digest,
        "image": spec.to_dict(),
        "pipeline": PIPELINE_VERSION,
        "layer": LAYER if cut is None else f"block_{cut}",
        "numeric_class": numeric_class if cut is None else numeric_class + FLOAT16,
    }


def write_views(dataset: Dataset, features: Features, split: Split) -> None:
    """Plain copies with the names people know: <dataset>/features/{train,eval}_{feature,label}.npy.

    float32 (n, D) and int32 (n,), in the order of the data set; "train" includes the validation rows.
    They are written anew by each run and never read back, so a read-only folder stops nothing.
    """
    folder = dataset.root / VIEWS_FOLDER
    parts = {"train": np.sort(np.concatenate([split.train, split.valid])), "eval": split.eval}
    try:
        folder.mkdir(exist_ok=True)
        for part, rows in parts.items():
            for name, array in (("feature", features.rows), ("label", dataset.labels)):
                file = folder / f"{part}_{name}.npy"
                replace_file(file, lambda f, array=array, rows=rows: save_rows(f, array, rows))
        log.info("views: %s", folder)
    except OSError as error:
        log.warning("views not written: %s", error)


def save_rows(file: BinaryIO, array: np.ndarray, rows: np.ndarray) -> None:
    """np.save(file, array[rows]) without a second copy of them all in memory."""
    shape = (len(rows), *array.shape[1:])
    facts = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        file.write(array[rows[start : start + ROWS_AT_ONCE]].tobytes())
