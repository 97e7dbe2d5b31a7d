"""Networks without a backbone: the features of a picture are its normalised pixels; the rest is the same journey."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, Split, cannot_read
from datasets.decoding.decode import decode, read_file
from datasets.decoding.formats import DamagedPicture
from datasets.files import replace_file
from datasets.image import ImageSpec, from_pixels, normalise, odd_tone, to_array
from finetune.config import Config, ModelConfig
from finetune.features.cache import Features
from finetune.run_folder import PICTURES
from finetune.training.networks import from_scratch
from pretrained.files import find_weights
from pretrained.recognise import of_training
from pretrained.weights import load_strict, read_ckpt

ROWS_AT_ONCE = 4096
DECIMALS = 4  # of mean and standard deviation: what a reader can compare


def read_pixels(dataset: Dataset, config: ModelConfig) -> Features:
    """Rows uint8 (N, H, W, channels), as they are.

    Raises:
        InputError: the first picture cannot be read, or the size that is asked for is none.
    """
    images, keys, damaged = read_images(dataset, config)
    readable = np.array([row not in damaged for row in range(len(dataset))])
    reasons = {dataset.picture_name(row): reason for row, reason in damaged.items()}
    tones = {}
    if dataset.paths is not None:
        tones = {row: tone for row in np.flatnonzero(readable) if (tone := odd_tone(images[row]))}
    return Features(images, keys, readable, reasons, tones, computed=0, seconds=0.0)


def normalise_pixels(found: Features, dataset: Dataset, split: Split) -> tuple[Features, ImageSpec]:
    """Rows float32 (N, channels, H, W), normalised by the training rows' own mean and standard deviation."""
    images = found.rows
    spec = spec_of(images, split.train, dataset.strokes)
    rows = np.empty((len(images), spec.channels, *spec.size), np.float32)
    for start in range(0, len(images), ROWS_AT_ONCE):
        rows[start : start + ROWS_AT_ONCE] = normalise(images[start : start + ROWS_AT_ONCE], spec)
    rows[~found.readable] = np.nan
    return replace(found, rows=rows), spec


def read_images(dataset: Dataset, config: ModelConfig) -> tuple[np.ndarray, list, dict[int, str]]:
    """uint8 (N, H, W, channels) of all pictures, N digests of what they were made of, and {row: reason} of those that
    cannot be read."""
    size, channels = shape_of(dataset, config)
    spec = ImageSpec(size, size, (0.0,) * channels, (1.0,) * channels, dataset.strokes)
    if dataset.pixels is not None:
        images = from_pixels(dataset.pixels, spec)
        return images, [hashlib.sha256(image.tobytes()).digest() for image in images], {}
    images, keys, damaged = np.zeros((len(dataset), *size, channels), np.uint8), [None] * len(dataset), {}
    for row, path in enumerate(dataset.paths):
        try:
            content = read_file(path)
            keys[row] = hashlib.sha256(content).digest()
            images[row] = to_array(content, spec)
        except DamagedPicture as error:
            damaged[row] = str(error)
        except OSError as error:
            raise cannot_read(path, error) from error
    return images, keys, damaged


def shape_of(dataset: Dataset, config: ModelConfig) -> tuple[tuple[int, int], int]:
    """((H, W), channels) that the pictures get: as the recipe says, else as they are; files as the first of them is.

    Raises:
        InputError: the first file cannot be read, or model.image_size is not two numbers.
    """
    if dataset.pixels is not None:
        size, channels = dataset.pixels.shape[1:3], 1 if dataset.pixels.ndim == 3 else 3
    else:
        size, channels = shape_of_files(dataset.paths)
    if config.image_size and len(config.image_size) != 2:
        raise InputError(f"model.image_size must be two numbers, height and width, found {config.image_size}.")
    return tuple(config.image_size or size), channels


def shape_of_files(paths: Sequence[Path]) -> tuple[tuple[int, int], int]:
    """((H, W), channels) of the first file that can be read; 1 channel where it is stored in grey.

    Raises:
        InputError: none can be read.
    """
    for path in paths:
        try:
            first = decode(read_file(path), enough=64)
        except DamagedPicture:
            continue
        except OSError as error:
            raise cannot_read(path, error) from error
        return first.size[::-1], 1 if first.grey else 3
    raise InputError(
        f"{paths[0].parent.parent}: none of the {len(paths)} pictures can be read; `python -m datasets check` of this "
        "folder says why."
    )


def spec_of(images: np.ndarray, rows: np.ndarray, strokes: int) -> ImageSpec:
    """How pictures are prepared from now on: uint8 (N, H, W, channels), of which `rows` are looked at."""
    size, channels = images.shape[1:3], images.shape[3]
    levels = np.zeros((channels, 256))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        piece = images[rows[start : start + ROWS_AT_ONCE]]
        levels += [np.bincount(piece[..., channel].ravel(), minlength=256) for channel in range(channels)]
    share, unit = levels / levels.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ unit
    std = np.sqrt(share @ unit**2 - mean**2)
    return ImageSpec(
        size=tuple(int(side) for side in size),
        resize=tuple(int(side) for side in size),
        mean_unit=tuple(round(float(value), DECIMALS) for value in mean),
        std_unit=tuple(round(max(float(value), 0.01), DECIMALS) for value in std),
        strokes=strokes,
    )


def make_network(config: Config, spec: ImageSpec, class_count: int):
    """A fresh network of the recipe, or one that begins with the weights of model.pretrain_ckpt.

    Raises:
        InputError: the layers do not fit the pictures, or the file is of another network: it lists the differences.
    """
    network = from_scratch(config.model, (spec.channels, *spec.size), class_count, config.seed)
    if config.model.pretrain_ckpt:
        path = find_weights(config.model.pretrain_ckpt)
        own = {parameter.name for parameter in network.get_parameters()}
        weights = {name: v for name, v in read_ckpt(path).items() if name in own or not of_training(name, v, own)}
        remedy = (
            "Give a CKPT of this very network, or change model.network, model.layers, model.filters, model.paddings, "
            "model.image_size and the data set to those it was trained with."
        )
        load_strict(network, weights, path, remedy)
    return network


def write_pictures(run: Path, dataset: Dataset, rows: np.ndarray, spec: ImageSpec) -> None:
    """The evaluation pictures of a data set of arrays, uint8 (n, H, W, channels), for everyone who comes after."""
    if dataset.pixels is not None:
        (run / PICTURES).parent.mkdir(exist_ok=True)
        replace_file(run / PICTURES, lambda file: np.save(file, from_pixels(dataset.pixels[rows], spec)))
