"""One call for every form of a model: uint8 pictures (B, H, W, 3) -> probabilities (B, C); `look` tells more.

predictor = load_predictor(Path("runs/cats_vs_dogs"))                                   the CKPT of a run
predictor = load_predictor(Path("runs/cats_vs_dogs/export/mobilenetv2.mindir"))         by MindSpore
predictor = load_predictor(Path("runs/cats_vs_dogs/export/mobilenetv2_image.onnx"))     by ONNX Runtime
predictor = load_predictor(Path("runs/cats_vs_dogs/export/mobilenetv2.ms"))             by MindSpore Lite
"""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.image import ImageSpec, batches
from export.key import MODE, right_key
from export.manifest import (
    MANIFEST,
    NOVELTY,
    PROBABILITIES,
    check_unchanged,
    confidence_facts,
    novelty_threshold,
    outputs_of,
    read_manifest,
)
from export.standalone.lite import HOW_TO, VARIABLE, Lite, lite_python
from finetune.device import usable_cores
from finetune.insight.novelty import load_novelty

# Else sums of int8 overflow on x86 processors without VNNI: a network of ten classes changed 15 % of its answers.
EXACT_INT8 = ("session.x64quantprecision", "1")
BATCH_SIZE = 4  # for MindSpore on the CPU as good as 8, and a third faster beside another process


@dataclass(frozen=True)
class Seen:
    """What a model says of B pictures."""

    probabilities: np.ndarray  # (B, C)
    novelty: np.ndarray | None = None  # (B,), see `finetune.insight.novelty`; None where it is not told
    maps: np.ndarray | None = None  # (B, C, H', W') logits by place; their mean is the class's logit

    def __getitem__(self, rows) -> Seen:
        """Of some of the pictures, or of one."""
        return Seen(*(None if part is None else part[rows] for part in self.parts()))

    def parts(self) -> list[np.ndarray | None]:
        return [getattr(self, field.name) for field in fields(self)]


def together(some: list[Seen]) -> Seen:
    """Of several batches as of one."""
    columns = zip(*(one.parts() for one in some))
    return Seen(*(None if column[0] is None else np.concatenate(column) for column in columns))


class CkptPredictor:
    """The trained network of a run folder, rebuilt from its CKPT."""

    def __init__(self, run: Path):
        from finetune.trained import load_trained
        from finetune.training.predictor import Predictor, WithFeatures

        trained = load_trained(run)
        self.classes, self.image = trained.classes, trained.image
        self.confidence = confidence_facts(run)
        self.novelty = load_novelty(run)
        alone = self.novelty is None
        self._predict = Predictor(trained.network, BATCH_SIZE) if alone else WithFeatures(trained.network)

    def __call__(self, images: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
        return self.look(images, batch_size).probabilities

    def look(self, images: np.ndarray, batch_size: int = BATCH_SIZE) -> Seen:
        return together([self._look(batch) for batch in batches(images, self.image, batch_size)])

    def _look(self, batch: np.ndarray) -> Seen:
        if self.novelty is None:
            return Seen(self._predict(batch))
        probabilities, features = self._predict(batch)
        return Seen(probabilities, self.novelty(features))


class CkptByEngine:
    """The same in two steps: features (B, D) by the engine that computes them in f32 for a run, then probabilities."""

    def __init__(self, run: Path, threads: int):
        from finetune.features.engines.openvino import OpenVinoEngine
        from finetune.trained import load_trained
        from finetune.training.predictor import Predictor

        trained = load_trained(run)
        self.image = trained.image
        self.novelty = load_novelty(run)
        self.engine = OpenVinoEngine(trained.backbone, "f32", threads)
        self.head = Predictor(trained.head)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.engine(images)

    def look(self, features: np.ndarray) -> Seen:
        return Seen(self.head(features), None if self.novelty is None else self.novelty(features))


class ExportedPredictor(abc.ABC):
    """An exported file with the manifest beside it; nothing of the run is needed. Its runtime is a subclass."""

    no_maps = "an exported file has none; give the run folder"

    def __init__(self, model: Path):
        manifest = read_manifest(model.parent)
        if model.name not in manifest["models"]:
            known = ", ".join(manifest["models"])
            raise InputError(f"{model}: {MANIFEST} beside it does not name this file. It names {known}.")
        check_unchanged(model.parent, manifest, model.name)
        self.name = str(model)
        self.classes = tuple(manifest["classes"])
        self.image = ImageSpec.from_dict(manifest["image"])
        self.confidence = manifest["confidence"]
        self.facts = manifest["models"][model.name]
        self.input_form = self.facts["input_form"]
        self.outputs = outputs_of(self.facts)
        self.novelty_threshold = novelty_threshold(manifest, self.facts)

    def __call__(self, images: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
        return self.look(images, batch_size).probabilities

    def look(self, images: np.ndarray, batch_size: int = BATCH_SIZE) -> Seen:
        count, fixed = len(images), self.facts["input"]["shape"][0]
        if fixed != -1:
            batch_size = fixed
            images = images[np.minimum(np.arange(-(-count // fixed) * fixed), count - 1)]  # the last one fills it up
        found = [dict(zip(self.outputs, self.compute(batch))) for batch in self.inputs(images, batch_size)]
        return together([Seen(one[PROBABILITIES], one.get(NOVELTY)) for one in found])[:count]

    def inputs(self, images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        if self.input_form == "tensor":
            tensors = batches(images, self.image, batch_size)
            return (x.transpose(0, 2, 3, 1) for x in tensors) if self.facts["input"]["layout"] == "NHWC" else tensors
        return (images[start : start + batch_size] for start in range(0, len(images), batch_size))

    @abc.abstractmethod
    def compute(self, batch: np.ndarray) -> list[np.ndarray]:
        """One batch in the file's input form -> `outputs`, each (B, ...)."""


class MindirPredictor(ExportedPredictor):
    """Initialise the device first. `key`: of an encrypted file, see `export.key`."""

    def __init__(self, model: Path, threads: int = 0, key: bytes | None = None):
        super().__init__(model)
        key = right_key(model, self.facts, key)
        decryption = {"dec_key": key, "dec_mode": MODE} if key else {}
        import mindspore as ms
        from mindspore import nn

        try:
            self._graph = nn.GraphCell(ms.load(str(model), **decryption))
        except (RuntimeError, ValueError) as error:
            raise unreadable(model, "MindIR", error) from error
        self._tensor = ms.Tensor

    def compute(self, batch: np.ndarray) -> list[np.ndarray]:
        found = self._graph(self._tensor(batch))
        return [one.asnumpy() for one in (found if isinstance(found, tuple) else [found])]


class OnnxPredictor(ExportedPredictor):
    """On the CPU. `threads`: 0 takes all cores this process may use."""

    def __init__(self, model: Path, threads: int = 0, key: bytes | None = None):
        super().__init__(model)
        right_key(model, self.facts, key)
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.add_session_config_entry(*EXACT_INT8)
        try:
            self._session = onnxruntime.InferenceSession(
                model.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class but this
            raise unreadable(model, "ONNX", error) from error

    def compute(self, batch: np.ndarray) -> list[np.ndarray]:
        return self._session.run(self.outputs, {self.input_form: batch})


class LitePredictor(ExportedPredictor):
    """On the CPU, by the Python that has MindSpore Lite. `threads`: 0 takes its own default."""

    def __init__(self, model: Path, threads: int = 0, key: bytes | None = None):
        super().__init__(model)
        right_key(model, self.facts, key)
        need_lite()
        try:
            self._run = Lite(model, threads, self.outputs)
        except RuntimeError as error:
            raise InputError(f"{model}: {error}.") from error

    def compute(self, batch: np.ndarray) -> list[np.ndarray]:
        try:
            return self._run(batch)
        except RuntimeError as error:
            raise InputError(
                f"{self.name}: not run by MindSpore Lite: {error}. Export it again, or look at {VARIABLE}."
            ) from error


PREDICTORS = {".mindir": MindirPredictor, ".onnx": OnnxPredictor, ".ms": LitePredictor}


def load_predictor(path: Path, threads: int = 0, key: bytes | None = None) -> CkptPredictor | ExportedPredictor:
    """The predictor of a run folder or of an exported file. Initialise the device first.

    Raises:
        InputError: neither of both, unreadable, its runtime is not installed, or the key is not its.
    """
    if (path / MANIFEST).is_file():  # a bundle: its first file that has a runtime here
        names = list(read_manifest(path)["models"])
        here = {".mindir": "mindspore", ".onnx": "onnxruntime"}
        here = {suffix: importlib.util.find_spec(package) for suffix, package in here.items()} | {".ms": lite_python()}
        name = next((name for name in names if here[Path(name).suffix]), names[0])
        return load_predictor(path / name, threads, key)
    if path.is_dir():
        if key:
            raise InputError(f"{path}: a run folder's CKPT is not encrypted. Leave --enc_key_file out.")
        return CkptPredictor(path)
    if path.suffix in PREDICTORS and path.is_file():
        return PREDICTORS[path.suffix](path, threads, key)
    raise InputError(
        f"{path}: neither a run folder nor a {' or '.join(PREDICTORS)} file. Runs lie in runs/, models in "
        "runs/<name>/export/."
    )


def import_onnxruntime():
    """ONNX Runtime, which only those need who export or run ONNX.

    Raises:
        InputError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX files are run, and compared when they are exported, by ONNX Runtime, which cannot be imported here "
            f"({error}). Install it: pip install onnxruntime"
        ) from error
    return onnxruntime


def need_lite() -> None:
    """Raises InputError where no Python with MindSpore Lite is known."""
    if not lite_python():
        raise InputError(f"MindSpore Lite's .ms files are written, run and compared by {HOW_TO} (or --lite_python).")


def unreadable(model: Path, kind: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(f"{model}: not a readable {kind} ({reason}). Export it again.")
