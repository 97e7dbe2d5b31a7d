"""What every contestant shares: its arguments, the pictures, the folded weights, and the result it prints.

A contestant is a script in a process of its own. It builds its network, warms up with one batch, and
times the way from JPEG files to features, then the network alone. It prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.image import ImageSpec, centre_crop, load_images, normalise
from datasets.listing import find_pictures

FORWARD_PICTURES = 96


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=["extract", "decode", "head", "cold", "warm"], default="extract")
    parser.add_argument("--dataset_path", type=Path, required=True)
    parser.add_argument("--pretrain_ckpt", type=Path, required=True)
    parser.add_argument("--place", type=Path, required=True, help="folder with weights.npz, weights.json, weights.onnx")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--decoding", choices=["ours", "usual"], default="ours", help="usual: the whole picture")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="f32")
    return parser.parse_args()


def pictures(given: argparse.Namespace) -> list[Path]:
    """`--pictures` of them, spread evenly over the data set."""
    found = find_pictures(given.dataset_path)
    return [found[i] for i in np.linspace(0, len(found) - 1, min(given.pictures, len(found))).astype(int)]


def write_folded(place: Path, blocks: list, record) -> None:
    """weights.npz and weights.json, of a WeightsRecord and the blocks as `pretrained.fold` has them."""
    arrays, facts = {}, []
    for b, block in enumerate(blocks):
        for c, convolution in enumerate(block.convolutions):
            arrays[f"{b}_{c}_weight"], arrays[f"{b}_{c}_bias"] = convolution.weight, convolution.bias
        kinds = [{"stride": c.stride, "group": c.group, "relu6": c.relu6} for c in block.convolutions]
        facts.append({"residual": block.residual, "convolutions": kinds})
    np.savez(place / "weights.npz", **arrays)
    facts = {"blocks": facts, "pad_mode": record.pad_mode, "image": record.image.to_dict()}
    (place / "weights.json").write_text(json.dumps(facts), encoding="utf-8")


def folded(place: Path) -> tuple[dict, dict]:
    """(facts, arrays) as `write_folded` wrote them."""
    return json.loads((place / "weights.json").read_text(encoding="utf-8")), dict(np.load(place / "weights.npz"))


def image_spec(facts: dict) -> ImageSpec:
    return ImageSpec.from_dict(facts["image"])


def resized_to(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """(width, height) that a picture of this size is resized to."""
    if not isinstance(spec.resize, int):
        return spec.resize[1], spec.resize[0]
    return tuple(round(side * spec.resize / min(size)) for side in size)


def load_usual(paths: list[Path], spec: ImageSpec) -> tuple[np.ndarray, dict]:
    """As everybody does it with Pillow: decode the whole picture, resize, crop."""
    images = []
    for path in paths:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
        resized = upright.resize(resized_to(upright.size, spec), Image.Resampling.BILINEAR)
        images.append(np.asarray(centre_crop(resized, spec)))
    return np.stack(images), {}


def loader(given: argparse.Namespace) -> Callable:
    return load_usual if given.decoding == "usual" else load_images


def batches_decoded_ahead(
    paths: list[Path], spec: ImageSpec, size: int, threads: int, load: Callable = load_images
) -> Iterator[np.ndarray]:
    """Normalised batches; a pool decodes the next ones meanwhile."""
    with ThreadPoolExecutor(threads) as pool:
        groups = [paths[start : start + size] for start in range(0, len(paths), size)]
        decoded = [pool.submit(load, group, spec) for group in groups[:4]]
        for i in range(len(groups)):
            images, _ = decoded[i].result()
            decoded[i] = None
            if i + 4 < len(groups):
                decoded.append(pool.submit(load, groups[i + 4], spec))
            yield normalise(images, spec)


def time_extraction(
    extract: Callable, forward: Callable, given: argparse.Namespace, name: str, batch_size: int
) -> None:
    """`extract(paths)` -> features (N, D) from files; `forward()` the network alone on `batch_size` pictures."""
    paths = pictures(given)
    extract(paths[:batch_size])
    seconds, features = timed(lambda: extract(paths))
    peak = peak_mb()
    forward()
    rounds = max(1, min(FORWARD_PICTURES, len(paths)) // batch_size)
    forward_seconds, _ = timed(lambda: [forward() for _ in range(rounds)])
    np.save(given.place / f"{name}.npy", features)
    report(seconds=seconds, pictures=len(paths), forward_rate=rounds * batch_size / forward_seconds, peak_mb=peak)


def timed(function: Callable) -> tuple[float, object]:
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def peak_mb() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def report(**numbers: float) -> None:
    print("RESULT " + json.dumps(numbers), flush=True)


def head_data(place: Path) -> tuple[np.ndarray, np.ndarray]:
    """x (1400, 1280) and y (1400,): real features of the training pictures."""
    found = np.load(place / "head.npz")
    return found["x"], found["y"]
