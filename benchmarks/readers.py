"""The readers that `mutations.py` gives damaged files.

A reader is a pair: `prepare(folder)` writes good files and names the one to damage; `read(folder)` gives a value that
can be compared, or raises `InputError`, or `DamagedPicture`, in words.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from PIL import Image


class Reader(NamedTuple):
    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]
    checked: bool  # whether the format has a checksum, or ours beside it: another value is then wrong for right


def value(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def picture(side: int = 48) -> Image.Image:
    noise = np.random.default_rng(1).normal(0, 12, (side, side, 3))
    return Image.fromarray((np.array([150, 90, 60]) + noise).clip(0, 255).astype(np.uint8))


def jpeg() -> bytes:
    content = io.BytesIO()
    picture().save(content, "JPEG", quality=90)
    return content.getvalue()


WEIGHTS_FACTS = """
name: toy
width: 0.1
pad_mode: pad
bn_eps: 0.001
image: {size: [32, 32], resize: 36, mean_unit: [0.5, 0.5, 0.5], std_unit: [0.5, 0.5, 0.5]}
source: random numbers
licence: none
"""


def prepare_ckpt(folder: Path) -> Path:
    import mindspore as ms

    from pretrained.files import facts_file
    from pretrained.mobilenet_v2 import MobileNetV2

    path = folder / "toy.ckpt"
    network = MobileNetV2(0.1, "pad", 1e-3)
    ms.save_checkpoint([{"name": p.name, "data": p} for p in network.get_parameters()], str(path))
    path.chmod(0o644)
    facts_file(path).write_text(WEIGHTS_FACTS, encoding="utf-8")
    return path


def prepare_facts(folder: Path) -> Path:
    from pretrained.files import facts_file

    return facts_file(prepare_ckpt(folder))


def read_ckpt(folder: Path) -> str:
    from pretrained.weights import load_backbone

    backbone = load_backbone(folder / "toy.ckpt")
    return f"{backbone.digest} {backbone.record}"


def prepare_chunk(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    for number in range(3):
        picture(40 + number).save(folder / "pictures" / f"{number}.png")
    read_chunk(folder)
    return next((folder / "cache").rglob("*.features.npy"))


class PixelsEngine:
    """Features without a network: the first values of a picture."""

    numeric_class, batch_size = "f32", 8

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :64].astype(np.float32)


def read_chunk(folder: Path) -> str:
    from datasets.image import ImageSpec
    from finetune.features.cache import extract

    spec = ImageSpec(size=(32, 32), resize=36, mean_unit=(0.5,) * 3, std_unit=(0.5,) * 3)
    backbone = SimpleNamespace(digest="toy", record=SimpleNamespace(image=spec))
    paths = sorted((folder / "pictures").iterdir())
    return value(extract(paths, backbone, PixelsEngine(), folder / "cache", 1).rows[:])


def prepare_keys(folder: Path) -> Path:
    chunk = prepare_chunk(folder)
    return chunk.with_name(chunk.name.replace(".features.", ".keys."))


def prepare_idx(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    for prefix, count in (("train", 30), ("t10k", 20)):
        for name, array in (
            ("images-idx3", rng.integers(0, 256, (count, 28, 28))),
            ("labels-idx1", rng.integers(0, 10, count)),
        ):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{prefix}-{name}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    return folder / "train-images-idx3-ubyte"


def prepare_packed_idx(folder: Path) -> Path:
    plain = prepare_idx(folder)
    packed = plain.with_name(f"{plain.name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return packed


def read_mnist(folder: Path) -> str:
    from datasets.sources import mnist

    dataset = mnist.load(folder)
    return value(dataset.pixels, dataset.labels)


def prepare_csv(folder: Path) -> Path:
    from datasets.sources import arabic

    rng = np.random.default_rng(3)
    with zipfile.ZipFile(folder / arabic.ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for (pixels, labels), count in zip(arabic.PARTS.values(), (6, 4)):
            rows = rng.integers(0, 256, (count, arabic.SIDE**2))
            archive.writestr(pixels, "".join(",".join(map(str, row)) + "\n" for row in rows))
            archive.writestr(labels, "".join(f"{label}\n" for label in rng.integers(1, 29, count)))
    return folder / arabic.ARCHIVE


def read_arabic(folder: Path) -> str:
    from datasets.sources import arabic

    dataset = arabic.load(folder)
    return value(dataset.pixels, dataset.labels)


def prepare_picture(name: str, content: bytes) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return prepare


def read_picture(folder: Path) -> str:
    from datasets.decoding.decode import decode

    (path,) = folder.iterdir()
    return value(np.asarray(decode(path.read_bytes(), 32).picture))


def prepare_npy(folder: Path) -> Path:
    prepare_split(folder)
    (folder / "pictures").mkdir()
    np.save(folder / "pictures" / "eval.npy", np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28, 1))
    return folder / "pictures" / "eval.npy"


def read_npy(folder: Path) -> str:
    from finetune.run_folder import evaluation_pictures

    return value(evaluation_pictures(folder))


def prepare_split(folder: Path) -> Path:
    from datasets.files import write_json

    parts = {part: {f"{part}/猫_{n}.jpg": "cat" for n in range(9)} for part in ("train", "valid", "eval")}
    write_json(folder / "split.json", {"root": "/pictures", "classes": ["cat", "dog"], **parts})
    return folder / "split.json"


def prepare_metrics(folder: Path) -> Path:
    from datasets.files import write_json
    from finetune.metrics import summarise

    probabilities = np.random.default_rng(4).dirichlet([1, 1], 30)
    numbers = summarise(probabilities, np.arange(30) % 2, ("cat", "dog"))
    facts = {"classes": ["cat", "dog"], "before": numbers, "after": numbers, "best_epoch": 3, "seconds": {"load": 0.5}}
    write_json(folder / "metrics.json", facts)
    return folder / "metrics.json"


def read_of_run(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from finetune.run_folder import read_json

        return read_json(folder, name)

    return read


def prepare_manifest(folder: Path) -> Path:
    from datasets.files import write_json
    from datasets.image import ImageSpec
    from export.manifest import FORMAT, MANIFEST, model_facts

    spec = ImageSpec(size=(32, 32), resize=36, mean_unit=(0.5,) * 3, std_unit=(0.5,) * 3)
    models = {"mobilenetv2.onnx": model_facts("ONNX", "tensor", spec)}
    files = {name: {"sha256": "0" * 64, "bytes": 9} for name in ("labels.txt", "mobilenetv2.onnx")}
    facts = {"format": FORMAT, "name": "toys", "models": models, "classes": ["猫", "dog"], "image": spec.to_dict()}
    write_json(folder / MANIFEST, {**facts, "files": files, "confidence": None})
    return folder / MANIFEST


def read_manifest(folder: Path) -> object:
    from export.manifest import read_manifest as read

    return read(folder)


def prepare_config(folder: Path) -> Path:
    from finetune.config import Config, to_yaml

    (folder / "config.yaml").write_text(to_yaml(Config()), encoding="utf-8")
    return folder / "config.yaml"


def read_config(folder: Path) -> object:
    from finetune.config import load_config

    return str(load_config(str(folder / "config.yaml")))


def prepare_table(folder: Path) -> Path:
    from datasets.files import write_csv

    rows = [{"path": f"猫_{n}.jpg", "true": "cat", "predicted": "dog", "confidence": 0.75} for n in range(9)]
    write_csv(folder / "predictions.csv", rows)
    return folder / "predictions.csv"


def read_table(folder: Path) -> object:
    from datasets.files import read_csv

    return read_csv(folder / "predictions.csv", {"true": str, "predicted": str, "confidence": float}, "Repeat the run.")


def encoded(file_format: str, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    picture().convert(mode).save(content, file_format)
    return content.getvalue()


READERS = {
    "CKPT": Reader(prepare_ckpt, read_ckpt, checked=False),
    "facts of weights (YAML)": Reader(prepare_facts, read_ckpt, checked=False),
    "cache, rows": Reader(prepare_chunk, read_chunk, checked=True),
    "cache, keys": Reader(prepare_keys, read_chunk, checked=True),
    "IDX": Reader(prepare_idx, read_mnist, checked=False),
    "IDX, packed": Reader(prepare_packed_idx, read_mnist, checked=True),
    "PGM": Reader(prepare_picture("a.pgm", encoded("PPM", "L")), read_picture, checked=False),
    "CSV in zip": Reader(prepare_csv, read_arabic, checked=True),
    "JPEG": Reader(prepare_picture("a.jpg", jpeg()), read_picture, checked=False),
    "PNG": Reader(prepare_picture("a.png", encoded("PNG")), read_picture, checked=False),
    "NPY of a run": Reader(prepare_npy, read_npy, checked=False),
    "manifest.json": Reader(prepare_manifest, read_manifest, checked=True),
    "metrics.json": Reader(prepare_metrics, read_of_run("metrics.json"), checked=True),
    "split.json": Reader(prepare_split, read_of_run("split.json"), checked=True),
    "config.yaml": Reader(prepare_config, read_config, checked=False),
    "predictions.csv": Reader(prepare_table, read_table, checked=False),
}
