"""Write the trained network as ONNX in int8: weights and activations of 8 bits, by ONNX Runtime's quantization.

Static, a scale for each output channel of the weights (Krishnamoorthi, "Quantizing deep convolutional networks for
efficient inference", 2018), the range of each activation from training pictures. Docs: onnxruntime.ai, "Quantize ONNX
models".
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.image import batches, load_images
from export.writers.onnx_file import write_onnx
from finetune.run_folder import PICTURES, training_pictures
from finetune.trained import Trained

MOST = 256  # training pictures, drawn by the seed
SEED = 0
BATCH_SIZE = 8
OPERATIONS = ["Conv", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"]


def write_int8(trained: Trained, path: Path, input_form: str, batch_size: int | None, run: Path) -> None:
    """Raises InputError where none of the run's training pictures can be read any more."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as place, only_errors():
        in_float = Path(place, "float.onnx")
        write_onnx(trained, in_float, input_form, batch_size)
        quantize_static(
            str(in_float),
            str(path),
            Calibration(trained, run, input_form, batch_size or BATCH_SIZE),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATIONS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


class Calibration:
    """Training pictures as the graph takes them, batch by batch: what `quantize_static` calls a data reader."""

    def __init__(self, trained: Trained, run: Path, input_form: str, batch_size: int):
        if (run / PICTURES).is_file():
            raise InputError(
                f"{run}: int8 is calibrated on training pictures in files, and this run had arrays: leave it out."
            )
        paths = [path for path in training_pictures(run) if path.is_file()]
        rows = np.sort(np.random.default_rng(SEED).permutation(len(paths))[:MOST])
        images, damaged = load_images([paths[row] for row in rows], trained.image)
        images = images[[row not in damaged for row in range(len(rows))]]
        if not len(images):
            raise InputError(
                f"{run}: int8 is calibrated on the run's training pictures, and none of them can be read. Put them "
                "back, or leave int8 out of --precision."
            )
        images = images[np.arange(-(-len(images) // batch_size) * batch_size) % len(images)]  # a batch may be fixed
        starts = range(0, len(images), batch_size)
        pixels = (images[start : start + batch_size] for start in starts)
        self._batches = batches(images, trained.image, batch_size) if input_form == "tensor" else pixels
        self._input = input_form

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._input: batch}


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """The quantizer advises to prepare the graph first, which ours does not need."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
