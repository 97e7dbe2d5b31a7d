"""Every setting and its default. Defaults < YAML file < command-line flags.

config = load_config("recipe.yaml", {"train.epochs": "5"})
"""

from __future__ import annotations

import difflib
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Optional

from datasets.base import InputError


@dataclass(frozen=True)
class DataConfig:
    dataset_path: str = "drawn"  # a folder: <root>/{train,eval}/<class>/* or <root>/<class>/*; or a known name
    valid_fraction: float = 0.1  # of the training rows, to choose the best epoch
    eval_fraction: float = 0.2  # of all rows, where the folder has no evaluation part
    rotation: Optional[int] = None  # of each class one picture evaluates and the next validates, counted from this
    group_by: Optional[str] = None  # one side of the split a group: folder, prefix, exif, duplicates, or a CSV file
    exclude: Optional[str] = None  # a file that names pictures to leave out: CSV with a column path, or a name a line
    views: bool = True  # write <dataset>/features/{train,eval}_{feature,label}.npy


@dataclass(frozen=True)
class ModelConfig:
    # A MindSpore CKPT: the backbone's, else the project's own one; or where a network from scratch begins.
    pretrain_ckpt: Optional[str] = None
    backbone: Optional[str] = "mobilenetv2"  # null: `network` learns from the pixels
    hidden: int = 0  # units of a hidden layer in the head; 0 is a linear head
    dropout: float = 0.0  # share of the features, or of the units of each hidden layer, set to 0 in training
    # Without a backbone:
    network: str = "lenet5"  # lenet5, mlp
    image_size: list[int] = field(default_factory=list)  # H, W that pictures are resized to; empty: as they are
    layers: list[int] = field(default_factory=lambda: [120, 84])  # units of the hidden layers
    activation: str = "relu"  # relu, sigmoid, tanh, elu, leaky_relu, prelu
    filters: list[int] = field(default_factory=lambda: [6, 16])  # of each convolution of lenet5
    paddings: list[int] = field(default_factory=lambda: [2, 0])  # rows of zeros around the input of each
    kernel: int = 5
    dilation: int = 1
    separable: bool = False  # each filter a channel first (depthwise), then 1x1 over the channels


@dataclass(frozen=True)
class AugmentConfig:
    """How far training pictures are moved at most, anew each epoch; all 0: not at all."""

    shift: float = 0.0  # pixels, each way
    rotate: float = 0.0  # degrees, each way
    zoom: float = 0.0  # share of the size, bigger or smaller
    elastic: float = 0.0  # pixels a point is moved on average
    smoothness: float = 4.0  # of the elastic field: standard deviation of its Gaussian in pixels


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 30
    batch_size: Optional[int] = None  # rows a step; null: 64, or fewer so that an epoch has 20 steps
    optimizer: str = "adam"  # sgd, momentum, adam, rmsprop, adadelta, adagrad
    learning_rate: float = 0.001  # the highest; a cosine leads it to 0
    second_optimizer: Optional[str] = None  # takes over for the last part of the epochs
    second_learning_rate: float = 0.01  # its own
    second_part: float = 0.3  # share of the epochs it gets
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0  # the optimizer's own: added to the gradient of the weights
    l1: float = 0.0  # penalty in the loss: l1 * sum of |weights|
    l2: float = 0.01  # penalty in the loss: l2 * sum of weights**2
    label_smoothing: float = 0.0
    class_weights: str = "none"  # none, balanced
    sampling: str = "each"  # each row once an epoch; balanced: as many draws, of each class the same number
    patience: int = 10  # epochs without a better validation loss before it stops; 0 never stops
    calibration_folds: int = 3  # heads trained beside the real one to fit its confidence; 0 leaves that out
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # pixels only


@dataclass(frozen=True)
class ExportConfig:
    file_format: list = field(default_factory=lambda: ["MINDIR"])  # MINDIR, ONNX
    input_form: list = field(default_factory=lambda: ["tensor"])  # tensor, image


@dataclass(frozen=True)
class InsightConfig:
    """What is found out of the data and of the number beside a run; heads are linear, on the cached features."""

    folds: int = 5  # 0: no insight
    seeds: int = 3  # how often the folds are dealt anew


@dataclass(frozen=True)
class Config:
    name: Optional[str] = None  # of the run folder; the data set's name if not given
    runs_dir: str = "runs"
    exist_ok: bool = False  # write into an existing run folder instead of numbering a new one
    cache_dir: str = "cache"
    platform: str = "auto"  # auto, CPU, GPU, Ascend
    device_id: Optional[int] = None  # else the variable DEVICE_ID, else 0
    threads: int = 0  # 0: all cores this process may use
    engine: str = "auto"  # computes the features: openvino on CPU where installed, else mindspore
    precision: str = "f32"  # of the engine; bf16 is faster and coarser, where the processor has it
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    insight: InsightConfig = field(default_factory=InsightConfig)
    export: ExportConfig = field(default_factory=ExportConfig)


OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop", "adadelta", "adagrad")
CHOICES = {
    "platform": ("auto", "CPU", "GPU", "Ascend"),
    "engine": ("auto", "openvino", "mindspore"),
    "precision": ("f32", "bf16"),
    "model.backbone": ("mobilenetv2",),
    "model.network": ("lenet5", "mlp"),
    "model.activation": ("relu", "sigmoid", "tanh", "elu", "leaky_relu", "prelu"),
    "train.optimizer": OPTIMIZERS,
    "train.second_optimizer": OPTIMIZERS,
    "train.sampling": ("each", "balanced"),
    "train.class_weights": ("none", "balanced"),
    "export.file_format": ("MINDIR", "ONNX"),
    "export.input_form": ("tensor", "image"),
}

# Key -> (lowest, highest) allowed value; None is no bound.
BOUNDS = {
    "data.valid_fraction": (0, 0.9),
    "data.eval_fraction": (0.01, 0.9),
    "data.rotation": (0, None),
    "device_id": (0, None),
    "threads": (0, None),
    "seed": (0, 2**32 - 1),
    "model.hidden": (0, None),
    "model.dropout": (0, 0.95),
    "model.image_size": (1, None),
    "model.layers": (1, None),
    "model.filters": (1, None),
    "model.paddings": (0, None),
    "model.kernel": (1, None),
    "model.dilation": (1, None),
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
    "train.patience": (0, None),
    "train.calibration_folds": (0, 20),
    "insight.folds": (0, 20),
    "insight.seeds": (1, 100),
}


def load_config(yaml_path: Optional[str] = None, flags: Optional[dict[str, Any]] = None) -> Config:
    """Merge the defaults, a YAML file and flags given as {"section.key": value}.

    Raises:
        InputError: no such file, an unknown key, a value of the wrong type or out of bounds.
    """
    values = asdict(Config())
    if yaml_path:
        for key, value in _flatten(_read_yaml(Path(yaml_path))).items():
            _set(values, key, value, yaml_path)
    for key, value in (flags or {}).items():
        _set(values, key, value, "command line")
    return _build(Config, values)


def to_yaml(config: Config) -> str:
    import yaml

    return yaml.safe_dump(asdict(config), allow_unicode=True, sort_keys=False)


def _read_yaml(path: Path) -> dict:
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


def _flatten(nested: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _types(cls, prefix: str = "") -> dict[str, Any]:
    """{"train.epochs": int, ...} of a config class and its sections."""
    hints = typing.get_type_hints(cls)
    found = {}
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            found.update(_types(hints[f.name], f"{prefix}{f.name}."))
        else:
            found[prefix + f.name] = hints[f.name]
    return found


def _set(values: dict, key: str, value: Any, where: str) -> None:
    types = _types(Config)
    if key not in types:
        if value is None and any(known.startswith(f"{key}.") for known in types):
            return  # an empty section in a YAML file
        near = difflib.get_close_matches(key, types, n=1, cutoff=0.5)
        near = near or [known for known in types if known.split(".")[-1] == key]
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(types)}."
        raise InputError(f"{where}: unknown setting {key!r}. {hint}")
    value = _convert(value, types[key], key, where)
    *sections, last = key.split(".")
    for section in sections:
        values = values[section]
    values[last] = value


def _convert(value: Any, kind: Any, key: str, where: str) -> Any:
    """A value from YAML or from the command line as its declared type; text like 1e-3 is a number."""
    optional = type(None) in typing.get_args(kind)
    if optional:
        if value in (None, "null"):  # as YAML has it, and as it is typed after --set
            return None
        kind = next(t for t in typing.get_args(kind) if t is not type(None))
    try:
        converted = _parse(value, kind)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: {key} must be of type {kind.__name__}, found {value!r}.") from None
    _check(converted, key, where)
    return converted


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


def _check(value: Any, key: str, where: str) -> None:
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


def _build(cls, values: dict):
    hints = typing.get_type_hints(cls)
    return cls(**{k: _build(hints[k], v) if is_dataclass(hints[k]) else v for k, v in values.items()})
