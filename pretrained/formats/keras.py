"""Files of Keras, by h5py: a whole model or its weights, from Keras 2 (.h5) and 3 (.keras, .weights.h5).

    .h5           [model_weights/]<layer>/.../<layer>/<name>[:0], also below the name of a model inside the model
    .weights.h5   [layers/<model>/]layers/<kind>_<n>/vars/<number>, where an attribute of `vars` is the layer's name
    .keras        a zip of config.json and model.weights.h5

All become <layer>/<name>, as `block_1_expand/kernel`. Layer names of a MobileNetV2 are the same in all of them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pretrained.formats.base import Entries, WeightFile, bounded, unreadable

H5_START = b"\x89HDF\r\n\x1a\n"
WEIGHTS, CONFIG = "model.weights.h5", "config.json"  # in a .keras file
OPTIMIZER = ("optimizer_weights", "optimizer")
DEEPEST, MOST_MEMBERS = 24, 100_000
H5_FAULTS = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError, RecursionError)
NAMES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


def read(path: Path, content: bytes) -> WeightFile:
    """Raises InputError: damaged, not of Keras, or it leads to other files."""
    return _read(path, content, config=None)


def read_zip(path: Path, archive: zipfile.ZipFile) -> WeightFile:
    """The same of a .keras file."""
    config, content = (bounded(path, archive, name) for name in (CONFIG, WEIGHTS))
    return _read(path, content, config)


def _read(path: Path, content: bytes, config: str | bytes | None) -> WeightFile:
    import h5py

    entries = Entries(path)
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            config = config or file.attrs.get("model_config")
            root = file.get("model_weights", file)
            for at, dataset in _members(h5py, root):
                entries.claim("/".join(at), dataset.shape, dataset.dtype, None)
                entries.arrays[_name(at, dataset)] = np.asarray(dataset)
        entries.arrays = _with_names(entries.arrays)
        if not entries.arrays:
            raise ValueError("it holds no arrays of layers")
        return WeightFile("Keras", entries.arrays, **facts_of(json.loads(config) if config else None))
    except H5_FAULTS as error:
        raise unreadable(path, f"no weights of Keras, or damaged ({error})") from error


def _members(h5py, root) -> Iterator[tuple[list[str], object]]:
    """(path, dataset) of everything that lies in this very file."""
    waiting, seen = [([], root)], 0
    while waiting:
        at, group = waiting.pop()
        for key in sorted(group):
            seen += 1
            if len(at) > DEEPEST or seen > MOST_MEMBERS:
                raise ValueError("its groups form a circle, or are too many")
            if key in OPTIMIZER and not at:
                continue
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"{key} is a link to somewhere else")
            member = group[key]
            if isinstance(member, h5py.Group):
                waiting.append(([*at, key], member))
            elif member.external or member.is_virtual:
                raise ValueError(f"{key} lies in another file")
            elif np.issubdtype(member.dtype, np.number):
                yield [*at, key], member


def _name(at: list[str], dataset) -> str:
    """<layer>/<name>; of Keras 3 <layer>/<number>."""
    if len(at) > 1 and at[-2] == "vars":
        layer = dataset.parent.attrs.get("name", "/".join(at[:-2]))
        return f"{layer}/{at[-1]}"
    return "/".join(at[-2:]).removesuffix(":0")


def _with_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Numbers of Keras 3's variables become names: their count tells a layer's kind."""
    by_layer: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, variable = name.rpartition("/")
        by_layer.setdefault(layer, {})[variable] = array
    named = {}
    for layer, variables in by_layer.items():
        names = NAMES.get(len(variables), ()) if all(map(str.isdecimal, variables)) else ()
        known = dict(zip(map(str, range(len(names))), names))
        named |= {f"{layer}/{known.get(variable, variable)}": array for variable, array in variables.items()}
    return named


def facts_of(config: object) -> dict:
    """What the configuration of a whole model says: the size of the pictures, and BatchNorm's eps."""
    size, epsilons = None, set()
    waiting = [config]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            inner = found.get("config")
            if isinstance(inner, dict):
                shape = inner.get("batch_shape") or inner.get("batch_input_shape")
                if size is None and shape and len(shape) == 4 and all(isinstance(side, int) for side in shape[1:3]):
                    size = tuple(shape[1:3])
                if found.get("class_name") == "BatchNormalization" and "epsilon" in inner:
                    epsilons.add(float(inner["epsilon"]))
            waiting += [value for value in found.values() if isinstance(value, dict | list)]
    return {"size": size, "bn_eps": epsilons.pop() if len(epsilons) == 1 else None}
