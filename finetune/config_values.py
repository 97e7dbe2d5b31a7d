"""From a YAML file, or from what is typed after --set, to values of the types that the settings have; and which of them
make no sense together."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

from datasets.base import InputError


def read_yaml(path: Path) -> dict:
    import yaml

    if not path.is_file():
        raise InputError(f"{path}: no such recipe. Recipes are YAML files; see finetune/configs.")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: also a date that is none
        raise InputError(f"{path}: not readable as YAML in UTF-8: {error}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected `key: value` lines, found {type(loaded).__name__}.")
    return loaded


def flatten(nested: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def convert(value: Any, kind: Any, key: str, where: str) -> Any:
    """A value from YAML or from the command line as its declared type; text like 1e-3 is a number."""
    optional = type(None) in typing.get_args(kind)
    if optional:
        if value in (None, "null"):  # as YAML has it, and as it is typed after --set
            return None
        kind = next(t for t in typing.get_args(kind) if t is not type(None))
    try:
        return _parse(value, kind)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: {key} must be of type {kind.__name__}, found {value!r}.") from None


def _parse(value: Any, kind: type) -> Any:
    if kind is list or typing.get_origin(kind) is list:
        if isinstance(value, str):  # 6,16 or, as YAML has it, [6, 16]
            value = [one.strip() for one in value.strip("[] ").split(",") if one.strip()]
        values = list(value)
        return [_parse(one, *typing.get_args(kind)) for one in values] if typing.get_args(kind) else values
    if kind is bool:
        words = {"true": True, "yes": True, "false": False, "no": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() not in words:
            raise ValueError
        return words[str(value).lower()]
    if kind is str:
        if isinstance(value, (dict, list)):
            raise TypeError
        return str(value)
    if isinstance(value, bool):
        raise TypeError
    if kind is int and isinstance(value, float) and value != int(value):
        raise ValueError
    return kind(value)


def without_contradiction(config: Any) -> Any:
    """The `finetune.config.Config`, if its settings make sense together.

    Raises:
        InputError: they do not.
    """
    model, train = config.model, config.train
    of_head = [name for name in ("prune", "oversample", "undersample", "members")
               if getattr(train, name) != getattr(type(train), name)]  # fmt: skip
    scratch, convolution = model.backbone is None, model.convolution
    for found, reason in (
        (
            not scratch and (convolution, model.width, model.residual) != ("plain", 1, 0),
            "model.convolution, model.width and model.residual are of networks from scratch, and model.backbone is "
            f"{model.backbone}. Use --set model.backbone=null, or leave them out.",
        ),
        (
            convolution != "plain" and model.network == "mlp",
            f"model.convolution {convolution}: an mlp has no convolutions. Use --set model.network=lenet5.",
        ),
        (
            convolution != "plain" and model.separable,
            f"model.convolution {convolution} and model.separable are two kinds of one layer. Choose one of them.",
        ),
        (
            convolution == "binary" and model.residual,
            "model.convolution binary and model.residual: a sum in front of a sign takes part of its meaning. Leave "
            "one of them out.",
        ),
        (
            of_head and model.cut is not None,
            f"train.{(of_head or [''])[0]} is for heads and for networks from scratch, not for the blocks of "
            f"model.train_from {model.train_from}. Leave one of them out.",
        ),
        (
            train.prune and convolution == "binary",
            "train.prune: the sign of a weight that is 0 is +1, so that nothing is gone. Leave it or model.convolution "
            "binary out.",
        ),
        (
            config.workers > 1 and not scratch and model.cut is None,
            f"workers {config.workers}: a head on cached features trains in a second and needs no workers. Leave "
            "--workers out, or train a network from scratch (--set model.backbone=null).",
        ),
        (
            config.workers > (train.batch_size or config.workers),
            f"workers {config.workers} would share batches of {train.batch_size} rows. Use fewer --workers, or a "
            "larger train.batch_size.",
        ),
        (
            train.prune and train.epochs < 2,
            "train.prune needs an epoch to learn in before. Use 2 train.epochs or more.",
        ),
        (
            train.oversample != "none" and train.undersample,
            f"train.oversample {train.oversample} and train.undersample: after one of them nothing is left to do for "
            "the other. Choose one.",
        ),
        (
            train.resamples and (train.sampling, train.class_weights) != ("each", "none"),
            "train.oversample and train.undersample make classes equal, and so do train.sampling balanced and "
            "train.class_weights balanced. Choose one of them.",
        ),
        (
            train.resamples and config.data.views_per_picture > 1,
            "train.oversample and train.undersample take one row a picture, and data.views_per_picture is "
            f"{config.data.views_per_picture}. Set it to 1.",
        ),
        (
            train.head != "gradient" and (scratch or model.hidden or model.dropout or of_head),
            f"train.head {train.head}: for one linear head on a backbone's features. Leave model.hidden, "
            "model.dropout, train.members, train.prune and resampling out, or train.head.",
        ),
        (
            train.head != "gradient" and any((train.l1, train.weight_decay, train.label_smoothing)),
            f"train.head {train.head} chooses its own penalty. Leave train.l1, train.weight_decay and "
            "train.label_smoothing out.",
        ),
        (
            "int8" in config.export.precision and "ONNX" not in config.export.file_format,
            "export.precision int8 is of ONNX. Add ONNX to export.file_format.",
        ),
        (
            "fp16" in config.export.precision and "LITE" not in config.export.file_format,
            "export.precision fp16 is of LITE. Add LITE to export.file_format.",
        ),
        (
            train.head != "gradient" and (train.sampling, train.class_weights) != ("each", "none"),
            f"train.head {train.head} takes each row once. Leave train.sampling and train.class_weights out.",
        ),
        (
            scratch and (config.data.size or config.data.fit != "crop"),
            "data.size and data.fit are of a backbone's pictures, and model.backbone is null. Use model.image_size.",
        ),
    ):
        if found:
            raise InputError(reason)
    return config
