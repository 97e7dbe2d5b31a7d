"""What a command begins with: pictures and backbone, checked before anything is written, and said in the log; then
their features or pixels, the split, and a fresh head or network with the way to save it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, Split
from datasets.image import ImageSpec
from datasets.listing import passed_over_lines
from datasets.load import load
from finetune.blocks import time_needed, views_of
from finetune.config import Config, DataConfig
from finetune.device import Device
from finetune.features.cache import Features, extract
from finetune.features.engines.choose import choose_engine
from finetune.features.remote.on_ray import check_address
from finetune.features.usable import Findings, draw_split, shortened, usable_split
from finetune.storage.rows import held
from finetune.trained import save_from_scratch, save_trained
from finetune.training.ensemble import assembled
from finetune.training.networks import Head
from finetune.training.scratch import make_network, normalise_pixels, read_pixels, write_pictures
from pretrained.weights import Backbone, load_backbone

MOST_ENLARGED = 1.5  # pictures, to the size that weights are for

log = logging.getLogger("finetune")


def load_inputs(config: Config) -> tuple[Dataset, Backbone | None]:
    """Check what was given before anything is written.

    Raises:
        InputError: something is missing or cannot be used.
    """
    if config.machines:
        check_address(config.machines)
    dataset = load(config.data.dataset_path, config.cache_dir)
    draw_split(dataset, config)  # whether it can be: the pictures that are damaged are not known yet
    if not config.model.backbone:
        if config.model.cut is not None:
            raise InputError(
                f"model.train_from {config.model.train_from}: a block of a backbone, and model.backbone is null. "
                "Leave model.train_from out: the whole network is trained."
            )
        return dataset, None
    if dataset.paths is None:
        raise InputError(
            f"{dataset.name}: arrays of pixels; a backbone wants pictures in folders. Use a recipe without a backbone "
            "(finetune/configs), or give --dataset_path a folder of pictures."
        )
    model = config.model
    backbone = load_backbone(model.pretrain_ckpt, config.data.mirror_mean, model.beside_last)
    earliest = min(backbone.record.beside_last, default=18)
    if model.cut is not None and earliest < model.cut - 1:
        raise InputError(
            f"model.features block_{earliest} lies before block_{model.cut - 1}, and model.train_from "
            f"{model.train_from} keeps nothing of what is before that. Give --set model.features=last, or train from "
            f"block_{earliest + 1}."
        )
    side, own = config.data.size, min(backbone.record.image.size)
    if side and side > MOST_ENLARGED * own:
        log.warning(
            "data.size %d: %.1f times the %d pixels that these weights are for, where accuracy mostly falls. "
            "Compare with --set data.size=%d",
            *(side, side / own, own, own),
        )
    return dataset, prepared(backbone, config.data)


def prepared(backbone: Backbone, data: DataConfig) -> Backbone:
    """The backbone with pictures prepared as data.size and data.fit say, the margin of the crop in proportion."""
    image = backbone.record.image
    size = (data.size, data.size) if data.size else image.size
    own = fit_of(image)
    fit, resize = data.fit or own, size
    if fit == "crop" and own != "crop":
        resize = min(size)  # of weights that see all of a picture there is no margin
    elif fit == "crop" and isinstance(image.resize, int):
        resize = round(image.resize * min(size) / min(image.size))
    elif fit == "crop":
        resize = tuple(round(side * now / before) for side, now, before in zip(image.resize, size, image.size))
    image = replace(image, size=size, resize=resize, letterbox=fit == "letterbox")
    return replace(backbone, record=replace(backbone.record, image=image))


def fit_of(image: ImageSpec) -> str:
    """The value of data.fit that pictures are prepared by."""
    if image.letterbox:
        return "letterbox"
    return "whole" if image.resize == image.size else "crop"


def in_words(image: ImageSpec) -> str:
    if image.letterbox:
        return f"fitted whole into {image.size} with a margin of the mean colour"
    return f"resized to {image.resize} and cropped to {image.size}"


def image_in_short(config: Config, backbone: Backbone | None) -> dict | None:
    """For metrics.json: size and fit, where they were set or are not the middle of a picture; else None."""
    if backbone is None or not image_is_said(config, backbone):
        return None
    image = backbone.record.image
    return {"size": list(image.size), "fit": fit_of(image)}


def image_is_said(config: Config, backbone: Backbone) -> bool:
    return bool(config.data.size or config.data.fit or fit_of(backbone.record.image) != "crop")


def log_inputs(config: Config, device: Device, dataset: Dataset, backbone: Backbone | None) -> None:
    log.info("device: %s, %d threads; kernel guard %s", device.platform, device.threads, device.kernel_guard)
    log.info(
        "pictures: %s, %d in %d classes (%s)",
        dataset.root,
        len(dataset),
        len(dataset.classes),
        ", ".join(dataset.classes),
    )
    for line in (*dataset.notes, *shortened(passed_over_lines(dataset.passed_over))):
        log.info(line)
    if backbone:
        log.info("weights: %s: %s", backbone.path, backbone.found_as)
        log.info("facts: %s", backbone.facts_from)
        if backbone.assumed:
            log.warning(
                "%s: how its pictures are prepared is stated nowhere, and taken as is usual for its names. Of a CKPT "
                "of a run copy the .yaml beside it, too",
                backbone.path.name,
            )
        if image_is_said(config, backbone):
            log.info("data.size, data.fit: pictures are %s", in_words(backbone.record.image))
        if backbone.record.beside_last:
            blocks = ", ".join(f"block_{number}" for number in backbone.record.beside_last)
            log.info("model.features: those of %s beside the last; %d in all", blocks, backbone.feature_size)
        if backbone.record.mirror_mean:
            log.info("data.mirror_mean: features are the mean of a picture's and of its mirror image's; twice the time")
    if config.model.cut is not None:
        log.info(time_needed(config, backbone, dataset, device.threads))


def on_backbone(
    config: Config, device: Device, dataset: Dataset, backbone: Backbone, folder: Path
) -> tuple[Features, Split, Findings, np.ndarray, Callable, Callable]:
    """(features, split, what is to say of the pictures, all views of the training rows, a function that gives a fresh
    head, one that saves the trained head with its backbone)."""
    engine = choose_engine(backbone, device, config)
    found = extract(dataset.paths, backbone, engine, config.cache_dir, device.threads)
    split, findings = usable_split(dataset, found, config)
    seen = held(found.rows, split.train)
    if config.data.views_per_picture > 1 and config.model.cut is None:  # else they are for the blocks
        trained = [dataset.paths[row] for row in split.train]
        seen = held(extract(trained, backbone, engine, config.cache_dir, device.threads, views_of(config)).rows)
    classes, model = len(dataset.classes), config.model
    return (
        found,
        split,
        findings,
        seen,
        lambda: assembled(
            lambda seed: Head(backbone.feature_size, classes, model.hidden, model.dropout, seed),
            config.seed,
            config.train.members,
        ),
        lambda split, head: save_trained(folder, backbone, head),
    )


def on_pixels(
    config: Config, device: Device, dataset: Dataset, backbone: None, folder: Path
) -> tuple[Features, Split, Findings, np.ndarray, Callable, Callable]:
    """The same without a backbone: pixels are the features, and a whole network is trained and saved."""
    found = read_pixels(dataset, config.model)
    split, findings = usable_split(dataset, found, config)
    found, spec = normalise_pixels(found, dataset, split)

    def save(split: Split, network) -> None:
        save_from_scratch(folder, network, config.model.network, spec)
        write_pictures(folder, dataset, split.eval, spec)

    return (
        found,
        split,
        findings,
        found.rows[split.train],
        lambda: assembled(
            lambda seed: make_network(replace(config, seed=seed), spec, len(dataset.classes)),
            config.seed,
            config.train.members,
        ),
        save,
    )
