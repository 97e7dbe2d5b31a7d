"""TensorFlow.js: model.json beside its weight shards, as Teachable Machine exports them.

{"modelTopology": ..., "weightsManifest": [{"paths": [...], "weights": [{"name", "shape", "dtype"[, "quantization"]}]}]}
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import numpy as np

from pretrained.formats.base import MOST_BYTES, Entries, WeightFile, unreadable
from pretrained.formats.keras import facts_of

TYPES = {"float32": "<f4", "int32": "<i4", "uint8": "u1", "uint16": "<u2", "float16": "<f2", "bool": "?"}


def read(path: Path, content: bytes) -> WeightFile:
    """Raises InputError: damaged, a shard is missing or of another length, or lies elsewhere."""
    try:
        model = json.loads(content)
        entries = Entries(path)
        for group in model["weightsManifest"]:
            shards = memoryview(b"".join(_shard(path, name) for name in group["paths"]))
            at = 0
            for weight in group["weights"]:
                quantised = weight.get("quantization")
                dtype = np.dtype(TYPES[(quantised or weight)["dtype"]])
                end = at + prod(weight["shape"]) * dtype.itemsize
                entries.add(weight["name"], shards[at:end], dtype, weight["shape"])
                if quantised and "scale" in quantised:
                    array = entries.arrays[weight["name"]]
                    entries.arrays[weight["name"]] = (array * quantised["scale"] + quantised["min"]).astype(np.float32)
                at = end
        return WeightFile("TensorFlow.js", entries.arrays, **facts_of(model.get("modelTopology")))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise unreadable(path, f"no model of TensorFlow.js, or damaged ({error!r})") from error


def _shard(path: Path, name: str) -> bytes:
    shard = path.parent / name
    if Path(name).name != name:
        raise ValueError(f"{name} lies in another folder")
    try:
        if shard.stat().st_size > MOST_BYTES:
            raise ValueError(f"{name} has more than {MOST_BYTES >> 20} MiB")
        return shard.read_bytes()
    except OSError as error:
        raise unreadable(path, f"{name} is not beside it ({error.strerror}); copy all files of the export") from error
