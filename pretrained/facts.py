"""The facts of a weight file, each with where it was found.

In this order: the catalog, by the file's sha256; <file>.yaml beside it; else what the file's own model and the
config.json and preprocessor_config.json beside it say, and for the rest what is usual for the scheme of its names.
Width is always read from the shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from datasets.base import InputError
from datasets.image import ImageSpec
from pretrained.catalog import ZOO, find_by_sha256, imagenet, tensorflow
from pretrained.files import facts_file, file_sha256
from pretrained.formats.base import WeightFile
from pretrained.recognise import Recognised, advice
from pretrained.record import WeightsRecord
from pretrained.shapes import channels_of

CROP = 0.875  # of the short side: 256 becomes 224
NOT_KNOWN = "not known"
SCHEME = "scheme"  # begins the origin of a fact that is usual
PILLOW = {2: "bilinear", 3: "bicubic"}  # how preprocessor_config.json numbers them


def usual(pad_mode: str, bn_eps: float, image: ImageSpec) -> WeightsRecord:
    return WeightsRecord("", 1.0, pad_mode, bn_eps, image, source=NOT_KNOWN, licence=NOT_KNOWN)


USUAL = {  # by scheme
    "zoo": usual("pad", 1e-5, ZOO.image),
    "mindcv": usual("pad", 1e-5, imagenet(256)),
    "torchvision": usual("pad", 1e-5, imagenet(256)),
    "timm": usual("pad", 1e-5, imagenet(256, "bicubic")),
    "keras": usual("same", 1e-3, tensorflow(224, (256, 256))),
    "huggingface": usual("same", 1e-3, tensorflow(224, 256)),
    "openmmlab": usual("pad", 1e-5, imagenet(256)),
}


@dataclass(frozen=True)
class Facts:
    record: WeightsRecord
    origins: dict[str, str]  # of each fact

    @property
    def assumed(self) -> bool:
        """Whether how pictures are prepared follows from nothing but the scheme of the names."""
        return self.origins["mean_unit"].startswith(SCHEME)

    def __str__(self) -> str:
        """`width 0.35 (shapes); pad_mode pad, bn_eps 1e-05 (scheme torchvision)`, for the log."""
        by_origin: dict[str, list[str]] = {}
        for name, origin in self.origins.items():
            by_origin.setdefault(origin, []).append(f"{name} {shown(self.record, name)}")
        return "; ".join(f"{', '.join(facts)} ({origin})" for origin, facts in by_origin.items())


def shown(record: WeightsRecord, name: str) -> str:
    value = getattr(record, name, None) if hasattr(record, name) else getattr(record.image, name)
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if isinstance(value[0], int) else str(list(value))
    return str(value)


IMAGE_FACTS = ("size", "resize", "interpolation", "mean_unit", "std_unit")
FACTS = ("width", "pad_mode", "bn_eps", *IMAGE_FACTS)


def find_facts(path: Path, file: WeightFile, found: Recognised) -> Facts:
    """The record of a weight file.

    Raises:
        InputError: no width of MobileNetV2 has these shapes, or what lies beside the file is damaged or contradicts it.
    """
    if found.width is None:
        raise InputError(f"{path}: {advice(found)}")
    beside, digest = facts_file(path), file_sha256(path)
    if known := find_by_sha256(digest):
        return _stated(path, known, f"catalog record {known.name}", found)
    if beside.is_file():
        record = read_record(beside)
        if record.sha256 and not digest.startswith(record.sha256.lower()):
            raise InputError(
                f"{path}: not the file that {beside.name} describes (its sha256 is another): changed or damaged. "
                f"Use another copy, or remove the sha256 from {beside.name} if the change is wanted."
            )
        return _stated(path, record, beside.name, found)
    scheme = found.scheme.name
    record = replace(USUAL[scheme], name=path.stem, width=found.width)
    origins = {**dict.fromkeys(FACTS, f"{SCHEME} {scheme}"), "width": "shapes"}
    inside = {"size": file.size, "bn_eps": file.bn_eps}
    said = {"the file's own model": inside, **_beside(path, scheme)}
    for origin, stated in said.items():
        record, origins = _with(record, origins, {name: v for name, v in stated.items() if v is not None}, origin)
    try:
        return Facts(WeightsRecord.from_dict(record.to_dict()), origins)
    except (TypeError, ValueError) as error:
        where = ", ".join(sorted({origin for origin in origins.values() if origin in said}))
        raise InputError(
            f"{path}: what is stated of it ({where}) cannot be: {error}. State the facts in {beside.name}."
        ) from error


def _stated(path: Path, record: WeightsRecord, origin: str, found: Recognised) -> Facts:
    wanted = channels_of(record.width)
    if any(known not in (None, own) for known, own in zip(found.channels, wanted)):
        raise InputError(
            f"{path}: {origin} states width {record.width}, and the shapes in the file are those of {found.width}. "
            f"Correct the width there."
        )
    return Facts(record, dict.fromkeys(FACTS, origin))


def _with(record: WeightsRecord, origins: dict, stated: dict, origin: str) -> tuple[WeightsRecord, dict]:
    of_image = {name: value for name, value in stated.items() if name in IMAGE_FACTS}
    if "size" in of_image and "resize" not in of_image:  # as much larger as is usual
        height, width = (round(side / CROP) for side in of_image["size"])
        of_image["resize"] = (height, width) if isinstance(record.image.resize, tuple) else min(height, width)
    record = replace(
        record,
        image=replace(record.image, **of_image),
        **{name: value for name, value in stated.items() if name not in IMAGE_FACTS},
    )
    return record, {**origins, **dict.fromkeys([*stated, *of_image], origin)}


def _beside(path: Path, scheme: str) -> dict[str, dict]:
    """{name: facts} of the JSON files that Hugging Face and timm put beside their weights."""
    readers: dict[str, Callable[[dict], dict]] = {}
    if scheme == "huggingface":
        readers = {"config.json": of_transformers, "preprocessor_config.json": of_preprocessor}
    elif scheme == "timm":
        readers = {"config.json": of_timm}
    found = {}
    for name, reader in readers.items():
        beside = path.parent / name
        if beside.is_file():
            try:
                found[name] = reader(json.loads(beside.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise InputError(
                    f"{beside}: damaged ({error!r}). Get it again from where {path.name} is from, or remove it and "
                    f"state the facts in {facts_file(path).name}."
                ) from error
    return found


def of_transformers(config: dict) -> dict:
    side = config.get("image_size")
    padding = config.get("tf_padding")
    return {
        "size": square(side),
        "bn_eps": float(config["layer_norm_eps"]) if "layer_norm_eps" in config else None,
        "pad_mode": None if padding is None else "same" if padding else "pad",
    }


def of_preprocessor(config: dict) -> dict:
    resize, crop = config.get("size") or {}, config.get("crop_size") or {}
    crop = (int(crop["height"]), int(crop["width"])) if crop else None
    return {
        "size": crop,
        "resize": int(resize["shortest_edge"]) if "shortest_edge" in resize else None,
        "mean_unit": unit(config.get("image_mean")),
        "std_unit": unit(config.get("image_std")),
        "interpolation": PILLOW.get(config.get("resample")),
    }


def of_timm(config: dict) -> dict:
    config = config.get("pretrained_cfg", config)
    size = tuple(int(side) for side in config["input_size"][1:]) if "input_size" in config else None
    crop = float(config.get("crop_pct", CROP))
    interpolation = config.get("interpolation")
    return {
        "size": size,
        "resize": int(min(size) / crop) if size else None,
        "mean_unit": unit(config.get("mean")),
        "std_unit": unit(config.get("std")),
        "interpolation": interpolation if interpolation in PILLOW.values() else None,
    }


def square(side: int | None) -> tuple[int, int] | None:
    return None if side is None else (int(side), int(side))


def unit(numbers: list | None) -> tuple[float, ...] | None:
    if numbers is None:
        return None
    found = tuple(float(number) for number in numbers)
    if len(found) != 3:
        raise ValueError(f"three numbers expected, found {numbers}")
    return found


def read_record(beside: Path) -> WeightsRecord:
    """Raises InputError: the YAML file is not a full record."""
    try:
        return WeightsRecord.from_dict(yaml.safe_load(beside.read_text(encoding="utf-8")))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"{beside}: not a record of weights ({error}). It needs the keys {', '.join(ZOO.to_dict())}."
        ) from error
