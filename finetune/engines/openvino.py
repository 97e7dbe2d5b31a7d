"""Features by OpenVINO, on the CPU: a frozen backbone is pure inference, and this engine is made for that.

It gets our own ONNX of the backbone that was loaded. Scaling is part of the compiled network, so that
pictures go in as bytes. Each core has a stream of its own: as many calls at once as there are cores
compute side by side, which keeps all cores busier than one call spread over them.
"""

from __future__ import annotations

import queue

import numpy as np
import openvino

from datasets.base import InputError
from finetune.device import without_kernel_guard
from finetune.engines.mindspore import fill_up
from finetune.engines.openvino_bf16 import drawn_pictures, round_to_bf16
from pretrained.to_onnx import to_onnx
from pretrained.weights import Backbone

CAPABILITY = {"f32": "FP32", "bf16": "BF16"}  # as OpenVINO calls what a processor can do


class OpenVinoEngine:
    """uint8 pictures (B, H, W, 3) -> pooled features float32 (B, D)."""

    name = "openvino"
    batch_size = 8  # 4 to 16 measured the same

    def __init__(self, backbone: Backbone, precision: str, threads: int):
        image = backbone.record.image
        settings = {
            "INFERENCE_PRECISION_HINT": precision,  # not stated, it is bf16 wherever the chip has it
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
        }
        with without_kernel_guard():
            core = openvino.Core()
            check_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
            model = with_scaling(core.read_model(onnx_of(backbone)), image, self.batch_size)
            if precision == "bf16":
                round_to_bf16(core, model, drawn_pictures(image))
            compiled = core.compile_model(model, "CPU", settings)
        self.idle = queue.SimpleQueue()
        for _ in range(threads):
            self.idle.put(compiled.create_infer_request())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        request = self.idle.get()
        try:
            return request.infer([fill_up(images, self.batch_size)])[0][: len(images)]
        finally:
            self.idle.put(request)


def check_precision(precision: str, capabilities: list[str]) -> None:
    """Raises InputError where the processor does not have the number format."""
    if CAPABILITY[precision] not in capabilities:
        raise InputError(
            f"--precision {precision}: this processor does not have it (it has {', '.join(capabilities)}). "
            "Use --precision f32."
        )


def with_scaling(model: openvino.Model, image, batch_size: int) -> openvino.Model:
    """The network with `datasets.image.normalise` in front of it: uint8 (B, H, W, 3) goes in."""
    prepared = openvino.preprocess.PrePostProcessor(model)
    prepared.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    prepared.input().model().set_layout(openvino.Layout("NCHW"))
    steps = prepared.input().preprocess().convert_element_type(openvino.Type.f32)
    steps.mean([255 * value for value in image.mean_unit]).scale([255 * value for value in image.std_unit])
    model = prepared.build()
    model.reshape([batch_size, *image.size, 3])
    return model


def onnx_of(backbone: Backbone) -> bytes:
    return to_onnx(backbone.network, backbone.record.image.size, backbone.record.pad_mode).SerializeToString()
