"""One call for every form of a model: uint8 pictures (B, H, W, 3) -> probabilities (B, C).

predictor = load_predictor(Path("runs/cats_vs_dogs"))               the CKPT of a run
predictor = load_predictor(Path("runs/cats_vs_dogs/export/mobilenetv2.mindir"))
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.image import ImageSpec, batches

MANIFEST = "manifest.json"
BATCH_SIZE = 8


class CkptPredictor:
    """The trained network of a run folder, rebuilt from its CKPT."""

    def __init__(self, run: Path):
        from finetune.evaluate import Predictor
        from finetune.trained import load_trained

        trained = load_trained(run)
        self.classes, self.image = trained.classes, trained.image
        self._predict = Predictor(trained.network, BATCH_SIZE)

    def __call__(self, images: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
        return np.concatenate([self._predict(batch) for batch in batches(images, self.image, batch_size)])


class MindirPredictor:
    """An exported MindIR with the manifest beside it. Nothing of the run is needed."""

    def __init__(self, model: Path):
        import mindspore as ms
        from mindspore import nn

        manifest = read_manifest(model)
        self.classes = tuple(manifest["classes"])
        self.image = ImageSpec.from_dict(manifest["image"])
        try:
            self._graph = nn.GraphCell(ms.load(str(model)))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{model}: not a readable MindIR ({str(error).splitlines()[0]}). Export it again."
            ) from error
        self._tensor = ms.Tensor

    def __call__(self, images: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
        return np.concatenate(
            [self._graph(self._tensor(batch)).asnumpy() for batch in batches(images, self.image, batch_size)]
        )


def load_predictor(path: Path) -> CkptPredictor | MindirPredictor:
    """The predictor of a run folder or of a .mindir file. Initialise the device first.

    Raises:
        InputError: neither of both, or unreadable.
    """
    if path.is_dir():
        return CkptPredictor(path)
    if path.suffix == ".mindir" and path.is_file():
        return MindirPredictor(path)
    raise InputError(
        f"{path}: neither a run folder nor a .mindir file. Runs lie in runs/, models in runs/<name>/export/."
    )


def read_manifest(model: Path) -> dict:
    """The manifest beside a model file.

    Raises:
        InputError: there is none: without class names and preprocessing a model cannot be used right.
    """
    path = model.with_name(MANIFEST)
    if not path.is_file():
        raise InputError(
            f"{path}: not there. It lies beside the model when it is exported and says how to prepare pictures and "
            "what the classes are; copy it along."
        )
    return json.loads(path.read_text(encoding="utf-8"))
