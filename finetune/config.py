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
from finetune.config_values import check, convert, flatten, read_yaml, without_contradiction


@dataclass(frozen=True)
class ViewConfig:
    """How the views of a photograph beyond the first, plain one are drawn; see data.views_per_picture."""

    crop: float = 0.35  # smallest share of the area that a window shows; 1: as much as can be
    flip: bool = True  # half of them are mirrored
    colour: float = 0.2  # brightness, contrast and saturation change by this share at most
    blur: float = 0.5  # largest radius in pixels


@dataclass(frozen=True)
class DataConfig:
    dataset_path: str = "drawn"  # a folder: <root>/{train,eval}/<class>/* or <root>/<class>/*; or a known name
    valid_fraction: float = 0.1  # of the training rows, to choose the best epoch
    eval_fraction: float = 0.2  # of all rows, where the folder has no evaluation part
    rotation: Optional[int] = None  # of each class one picture evaluates and the next validates, counted from this
    group_by: Optional[str] = None  # one side of the split a group: folder, prefix, exif, duplicates, or a CSV file
    fraction: float = 1.0  # of the rows of each class that train or validate; the others are left out
    exclude: Optional[str] = None  # a file that names pictures to leave out: CSV with a column path, or a name a line
    size: Optional[int] = None  # pixels of a side that the backbone sees; null: what its weights were trained with
    # crop: the middle of a picture; whole: all, squashed into a square; letterbox: all, with a margin; null: as its
    # weights were trained, mostly crop
    fit: Optional[str] = None
    # Features are the mean of a picture's and of its mirror image's, also when predicting; null: as the weights say
    mirror_mean: Optional[bool] = None
    views: bool = True  # write <dataset>/features/{train,eval}_{feature,label}.npy
    views_per_picture: int = 1  # of a training photograph: the plain one, and others drawn at random
    augment: ViewConfig = field(default_factory=ViewConfig)  # those others


@dataclass(frozen=True)
class ModelConfig:
    # A MindSpore CKPT: the backbone's, else the project's own one; or where a network from scratch begins.
    pretrain_ckpt: Optional[str] = None
    backbone: Optional[str] = "mobilenetv2"  # null: `network` learns from the pixels
    train_from: str = "head"  # what is trained: the head, or block_15 and all behind it as well, or all blocks
    features: Optional[list[str]] = None  # whose maps the head sees: last, block_14 to 17; null: as the weights say
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
    convolution: str = "plain"  # plain; shuffle: in groups, which are mixed; binary: signs of weights and of inputs
    groups: int = 2  # of a shuffle
    width: float = 1.0  # times all filters and layers
    residual: int = 0  # blocks behind each convolution, or each hidden layer of an mlp

    @property
    def cut(self) -> Optional[int]:
        """The number of the first block that is trained, 0: every block is; None: only the head is."""
        if self.train_from == "head":
            return None
        return 0 if self.train_from == "all" else int(self.train_from.partition("_")[2])

    @property
    def beside_last(self) -> Optional[tuple[int, ...]]:
        """The numbers of the blocks whose pooled maps the head sees beside the last one; None: as the weights say."""
        if self.features is None:
            return None
        return tuple(sorted({int(name.partition("_")[2]) for name in self.features if name != "last"}))


@dataclass(frozen=True)
class AugmentConfig:
    """How far training pictures are moved at most, anew each epoch; all 0: not at all."""

    shift: float = 0.0  # pixels, each way
    rotate: float = 0.0  # degrees, each way
    zoom: float = 0.0  # share of the size, bigger or smaller
    elastic: float = 0.0  # pixels a point is moved on average
    smoothness: float = 4.0  # of the elastic field: standard deviation of its Gaussian in pixels


@dataclass(frozen=True)
class TailConfig:
    """The second training, of the blocks from model.train_from on and of the head: AdamW, warm-up, one cosine to 0."""

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 0.0002  # the blocks' highest
    head_learning_rate: float = 0.001
    warmup: float = 0.1  # share of the steps
    weight_decay: float = 0.01
    label_smoothing: float = 0.1


@dataclass(frozen=True)
class TrainConfig:
    head: str = "gradient"  # by the optimizer; logistic, ridge, lda: linear, solved for; auto: the best of these
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
    oversample: str = "none"  # training rows of smaller classes: none, random, smote
    undersample: bool = False  # leave out training rows of larger classes
    prune: float = 0.0  # share of the weights of each layer that are set to 0
    members: int = 1  # heads or networks from as many seeds, whose probabilities are averaged
    patience: int = 10  # epochs without a better validation loss before it stops; 0 never stops
    calibration_folds: int = 3  # heads trained beside the real one to fit its confidence; 0 leaves that out
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # pixels only
    tail: TailConfig = field(default_factory=TailConfig)  # only where model.train_from names a block

    @property
    def resamples(self) -> bool:
        return self.oversample != "none" or self.undersample


@dataclass(frozen=True)
class ExportConfig:
    file_format: list = field(default_factory=lambda: ["MINDIR"])  # MINDIR, ONNX, LITE
    input_form: list = field(default_factory=lambda: ["tensor"])  # tensor, image
    precision: list = field(default_factory=list)  # beside float: int8 of ONNX, fp16 of LITE
    allowed_loss: float = 1.0  # points of accuracy that those may lose


@dataclass(frozen=True)
class InsightConfig:
    """What is found out of the data and of the number beside a run; heads are linear, on the cached features."""

    in_runs: bool = False  # also beside every run, in its report
    folds: int = 5
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
    workers: int = 1  # processes that share the training, started by MindSpore's msrun
    engine: str = "auto"  # computes the features: openvino on CPU where installed, else mindspore
    machines: Optional[str] = None  # that compute them: null is this one; ray, or ray://host:port, is a Ray cluster
    precision: str = "f32"  # of the engine; bf16 is faster and coarser, where the processor has it
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    insight: InsightConfig = field(default_factory=InsightConfig)
    export: ExportConfig = field(default_factory=ExportConfig)


def load_config(yaml_path: Optional[str] = None, flags: Optional[dict[str, Any]] = None) -> Config:
    """Merge the defaults, a YAML file and flags given as {"section.key": value}.

    Raises:
        InputError: no such file, an unknown key, a value of the wrong type or out of bounds, or two that contradict.
    """
    values = asdict(Config())
    if yaml_path:
        for key, value in flatten(read_yaml(Path(yaml_path))).items():
            _set(values, key, value, yaml_path)
    for key, value in (flags or {}).items():
        _set(values, key, value, "command line")
    return without_contradiction(_build(Config, values))


def to_yaml(config: Config) -> str:
    import yaml

    return yaml.safe_dump(asdict(config), allow_unicode=True, sort_keys=False)


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
        near = [known for known in types if known.split(".")[-1] == key]
        near = near or difflib.get_close_matches(key, types, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(types)}."
        raise InputError(f"{where}: unknown setting {key!r}. {hint}")
    value = convert(value, types[key], key, where)
    if value is not None:
        check(value, key, where)
    *sections, last = key.split(".")
    for section in sections:
        values = values[section]
    values[last] = value


def _build(cls, values: dict):
    hints = typing.get_type_hints(cls)
    return cls(**{k: _build(hints[k], v) if is_dataclass(hints[k]) else v for k, v in values.items()})
