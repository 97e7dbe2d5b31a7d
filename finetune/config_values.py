"""From a YAML file, or from what is typed after --set, to values of the types that the settings have; which values are
allowed, and which make no sense together."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

from datasets.base import InputError

OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop", "adadelta", "adagrad")
CHOICES = {
    "platform": ("auto", "CPU", "GPU", "Ascend"),
    "engine": ("auto", "openvino", "mindspore"),
    "precision": ("f32", "bf16"),
    "data.fit": ("crop", "whole", "letterbox"),
    "model.backbone": ("mobilenetv2",),
    "model.train_from": ("head", "all", *(f"block_{number}" for number in range(1, 19))),
    "model.features": ("block_14", "block_15", "block_16", "block_17", "last"),
    "model.network": ("lenet5", "mlp"),
    "model.activation": ("relu", "sigmoid", "tanh", "elu", "leaky_relu", "prelu"),
    "model.convolution": ("plain", "shuffle", "binary"),
    "train.head": ("gradient", "logistic", "ridge", "lda", "auto"),
    "train.optimizer": OPTIMIZERS,
    "train.second_optimizer": OPTIMIZERS,
    "train.oversample": ("none", "random", "smote"),
    "train.sampling": ("each", "balanced"),
    "train.class_weights": ("none", "balanced"),
    "export.file_format": ("MINDIR", "ONNX", "LITE"),
    "export.precision": ("int8", "fp16"),
    "export.input_form": ("tensor", "image"),
}

# Key -> (lowest, highest) allowed value; None is no bound.
BOUNDS = {
    "data.valid_fraction": (0, 0.9),
    "data.eval_fraction": (0.01, 0.9),
    "data.fraction": (0.001, 1),
    "data.rotation": (0, None),
    "data.size": (32, 1024),
    "data.views_per_picture": (1, 1000),
    "data.augment.crop": (0.01, 1),
    "data.augment.colour": (0, 0.9),
    "data.augment.blur": (0, 20),
    "device_id": (0, None),
    "threads": (0, None),
    "workers": (1, 4096),
    "seed": (0, 2**32 - 1),
    "model.hidden": (0, None),
    "model.dropout": (0, 0.95),
    "model.image_size": (1, None),
    "model.layers": (1, None),
    "model.filters": (1, None),
    "model.paddings": (0, None),
    "model.kernel": (1, None),
    "model.dilation": (1, None),
    "model.groups": (2, None),
    "model.width": (0.01, 100),
    "model.residual": (0, 20),
    "train.epochs": (1, None),
    "train.batch_size": (1, None),
    "train.learning_rate": (1e-9, None),
    "train.second_learning_rate": (1e-9, None),
    "train.second_part": (0.01, 0.99),
    "train.augment.shift": (0, None),
    "train.augment.rotate": (0, 180),
    "train.augment.zoom": (0, 0.9),
    "train.augment.elastic": (0, None),
    "train.augment.smoothness": (0.1, None),
    "train.warmup_epochs": (0, None),
    "train.momentum": (0, 0.9999),
    "train.weight_decay": (0, None),
    "train.l1": (0, None),
    "train.l2": (0, None),
    "train.label_smoothing": (0, 0.9),
    "train.prune": (0, 0.99),
    "train.members": (1, 100),
    "train.patience": (0, None),
    "train.calibration_folds": (0, 20),
    "train.tail.epochs": (1, None),
    "train.tail.batch_size": (1, None),
    "train.tail.learning_rate": (1e-9, None),
    "train.tail.head_learning_rate": (1e-9, None),
    "train.tail.warmup": (0, 0.9),
    "train.tail.weight_decay": (0, None),
    "train.tail.label_smoothing": (0, 0.9),
    "export.allowed_loss": (0, 100),
    "insight.folds": (2, 20),
    "insight.seeds": (1, 100),
}


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


def check(value: Any, key: str, where: str) -> None:
    """Raises InputError where it is none of the choices, or out of bounds."""
    choices = CHOICES.get(key)
    low, high = BOUNDS.get(key, (None, None))
    for one in value if isinstance(value, list) else [value]:
        if choices and one not in choices:
            raise InputError(f"{where}: {key} must be one of {', '.join(choices)}, found {one!r}.")
        too_low = low is not None and not one >= low
        too_high = high is not None and not one <= high
        if too_low or too_high:
            bounds = f"at least {low}" + (f" and at most {high}" if high is not None else "")
            raise InputError(f"{where}: {key} must be {bounds}, found {one!r}.")


def without_contradiction(config: Any) -> Any:
    """The `finetune.config.Config`, if its settings make sense together.

    Raises:
        InputError: they do not.
    """
    model, train = config.model, config.train
    batch = train.batch_size if model.cut is None else train.tail.batch_size
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
            "--workers out, train the last blocks (--recipe best), or from scratch (--set model.backbone=null).",
        ),
        (
            config.workers > (batch or config.workers),
            f"workers {config.workers} would share batches of {batch} rows. Use fewer --workers, or a larger "
            f"{'train.batch_size' if model.cut is None else 'train.tail.batch_size'}.",
        ),
        (
            config.workers > 1 and convolution == "binary",
            "workers and model.convolution binary: the gradient of a sign looks at the whole batch, and a worker has a "
            "part of it. Leave one of them out.",
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
            train.head != "gradient" and scratch,
            f"train.head {train.head} is of a backbone's features, and model.backbone is null. Leave train.head out.",
        ),
        (
            train.head != "gradient" and (model.hidden or model.dropout or of_head),
            f"train.head {train.head}: for one linear head on a backbone's features. Leave model.hidden, "
            "model.dropout, train.members, train.prune and resampling out, or train.head.",
        ),
        (
            train.head != "gradient"
            and (train.l1 or train.weight_decay or train.label_smoothing or train.l2 != type(train).l2),
            f"train.head {train.head} chooses its own penalty. Leave train.l1, train.l2, train.weight_decay and "
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
            scratch and (config.data.size or config.data.fit not in (None, "crop")),  # crop: of earlier versions
            "data.size and data.fit are of a backbone's pictures, and model.backbone is null. Use model.image_size.",
        ),
        (
            scratch and (config.data.mirror_mean or model.beside_last),
            "data.mirror_mean and model.features are of a backbone, and model.backbone is null. Leave them out.",
        ),
        (
            "last" not in (model.features or ["last"]),
            f"model.features {', '.join(model.features or [])}: the last block's are always seen. Add last.",
        ),
    ):
        if found:
            raise InputError(reason)
    return config
