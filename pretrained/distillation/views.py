"""What the student sees and what the teacher says of it, computed once and kept in a folder.

Views (K, N, H, W, 3) uint8, random crops of the pool's pictures, and the teacher's pooled features (K, N, D)
float16. A view depends on (seed, view, picture) alone, so that a stopped run goes on to the same numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from datasets.base import InputError
from datasets.progress import Progress

TEACHER_SIZE = 160  # pixels; most pictures of the pool have a short side of 128 at most
SIZE, SMALL = 128, 96  # pixels of the student's views
CHUNK = 8  # views in one call of the teacher


def read_pool(folder: Path) -> tuple[list[bytes], list[str]]:
    """The files' bytes and the name of each one's tar, in the same order on every machine."""
    pictures, tars = [], []
    for tar in sorted(folder.glob("*.tar")):
        with tarfile.open(tar) as archive:
            here = [archive.extractfile(member).read() for member in archive if member.isfile()]
        pictures += here
        tars += [tar.stem] * len(here)
    if not pictures:
        raise InputError(f"No picture found in {folder}/*.tar. --pool is a folder of .tar files of JPEG pictures.")
    return pictures, tars


def chances(tars: list[str], favour: str):
    """(N,) how often each picture is drawn: half of the time one of the favoured tar."""
    favoured = np.array([tar == favour for tar in tars])
    weight = np.ones(len(tars))
    if 0 < favoured.sum() < len(tars):
        weight = np.where(favoured, 0.5 / favoured.sum(), 0.5 / (~favoured).sum())
    return weight / weight.sum()


def render(data: bytes, rng, sizes: tuple[int, ...]) -> list:
    """One random view of a picture (colour, crop, mirror), drawn at several sizes: uint8 (size, size, 3) each."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(rng.uniform(0.7, 1.3))
    width, height = picture.size
    area = width * height * rng.uniform(0.3, 1.0)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    w, h = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
    return [np.asarray(picture.resize((size, size), Image.BILINEAR, box=(x, y, x + w, y + h))) for size in sizes]


def render_mixed(pictures: list[bytes], row: int, chance: np.ndarray, rng, sizes: tuple[int, ...]) -> list:
    """A view of a picture laid over a view of another one, each as visible as chance will have it.

    Zhang et al., "mixup", 2018; Beyer et al., 2022: the teacher is asked about the mixture itself.
    """
    own = render(pictures[row], rng, sizes)
    other = render(pictures[rng.choice(len(pictures), p=chance)], rng, sizes)
    share = rng.random()
    return [(share * a + (1 - share) * b + 0.5).astype(np.uint8) for a, b in zip(own, other)]


def prepare(pictures: list[bytes], chance: np.ndarray, args: argparse.Namespace) -> tuple[dict, np.ndarray]:
    """({pixels a side: views (K, N, H, W, 3)}, features (K, N, D)); fills the folder where it must.

    The first `args.views` of the K views are plain, the other `args.mixed` are mixtures; `chance` (N,) is how
    often each picture is mixed in.
    """
    digest = hashlib.sha256(args.teacher.read_bytes())
    for data in pictures:
        digest.update(hashlib.sha256(data).digest())
    k_views = args.views + args.mixed
    facts = {"source": digest.hexdigest(), "views": args.views, "mixed": args.mixed, "size": SIZE, "seed": args.seed}
    args.cache_dir.mkdir(parents=True, exist_ok=True)
    mark = args.cache_dir / "progress.json"  # what is finished; written after the rows themselves
    state = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else {}
    done = state.get("done", 0) if state.get("facts") == facts else 0
    if not done:
        mark.unlink(missing_ok=True)  # of rows that are overwritten now
    shapes = {
        "views": ((k_views, len(pictures), SIZE, SIZE, 3), np.uint8),
        "features": ((k_views, len(pictures), 1280), np.float16),
    }
    views, features = (
        np.lib.format.open_memmap(args.cache_dir / f"{name}.npy", "r+")
        if done
        else np.lib.format.open_memmap(args.cache_dir / f"{name}.npy", "w+", dtype, shape)
        for name, (shape, dtype) in shapes.items()
    )
    if done < k_views * len(pictures):
        fill(pictures, chance, views, features, done, args, mark, facts)
    return {SIZE: views, SMALL: shrunk(views, args.cache_dir / f"views_{SMALL}.npy")}, features


def fill(pictures, chance, views, features, done: int, args, mark: Path, facts: dict) -> None:
    teacher = compiled_teacher(args.teacher)
    total = len(views) * len(pictures)
    flat_views, flat_features = views.reshape(total, *views.shape[2:]), features.reshape(total, -1)

    def render_row(row: int) -> list:
        k, i = divmod(row, len(pictures))
        rng = np.random.default_rng([args.seed, k, i])
        if k < args.views:
            return render(pictures[i], rng, (TEACHER_SIZE, SIZE))
        return render_mixed(pictures, i, chance, rng, (TEACHER_SIZE, SIZE))

    with Progress("views and teacher", total, "views") as bar, ThreadPoolExecutor(2) as pool:
        bar.update(done)
        for start in range(done, total, CHUNK):
            rows = range(start, min(start + CHUNK, total))
            big, small = zip(*pool.map(render_row, rows))
            flat_views[start : rows.stop] = small
            flat_features[start : rows.stop] = teacher(np.stack(big))
            if start // CHUNK % 400 == 399 or rows.stop == total:
                views.flush()
                features.flush()
                temporary = mark.with_suffix(".tmp")
                temporary.write_text(json.dumps({"facts": facts, "done": rows.stop}), encoding="utf-8")
                temporary.replace(mark)
            bar.update(len(rows))


def compiled_teacher(path: Path):
    """uint8 (B, H, W, 3) -> features (B, D), by OpenVINO: the teacher is pure inference."""
    import openvino

    from pretrained.to_onnx import to_onnx
    from pretrained.weights import load_backbone

    backbone = load_backbone(path)
    model = to_onnx(backbone.network, (TEACHER_SIZE, TEACHER_SIZE), backbone.record.pad_mode).SerializeToString()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU", settings)
    mean = np.float32([255 * value for value in backbone.record.image.mean_unit])
    std = np.float32([255 * value for value in backbone.record.image.std_unit])

    def features(pixels: np.ndarray) -> np.ndarray:
        return compiled([np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))])[0]

    return features


def shrunk(views: np.ndarray, path: Path) -> np.ndarray:
    """The views at SMALL pixels a side, kept in `path`."""
    shape = (*views.shape[:2], SMALL, SMALL, 3)
    if path.exists() and path.stat().st_mtime >= (path.parent / "progress.json").stat().st_mtime:
        small = np.lib.format.open_memmap(path, "r")
        if small.shape == shape:
            return small
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    small = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
    flat, flat_small = views.reshape(-1, *views.shape[2:]), small.reshape(-1, *shape[2:])

    def shrink(row: int) -> None:
        flat_small[row] = np.asarray(Image.fromarray(flat[row]).resize((SMALL, SMALL), Image.BILINEAR))

    with Progress("small views", len(flat), "views") as bar, ThreadPoolExecutor(2) as pool:
        for start in range(0, len(flat), 1024):
            rows = range(start, min(start + 1024, len(flat)))
            list(pool.map(shrink, rows))
            bar.update(len(rows))
    small.flush()
    temporary.replace(path)
    return np.lib.format.open_memmap(path, "r")
