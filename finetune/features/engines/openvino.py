"""Features by OpenVINO, on the CPU: a frozen backbone is pure inference, and this engine is made for that.

It gets our own ONNX of the backbone that was loaded. Scaling is part of the compiled network, so that
pictures go in as bytes. Each core has a stream of its own, which takes one picture after the other: what lies
between two layers then stays in the core's own cache. A call queues all its pictures at once, so that no stream
waits for Python between two of them.
"""

from __future__ import annotations

import queue
import sys

# Its telemetry would tell a statistics server of each start; without the package OpenVINO uses its own stand-in.
sys.modules.setdefault("openvino_telemetry", None)

import numpy as np
import openvino
from openvino import opset13 as opset

from datasets.base import InputError
from datasets.image import ImageSpec, mean_and_std
from finetune.device import without_kernel_guard
from finetune.features.engines.openvino_bf16 import drawn_pictures, round_to_bf16
from pretrained.to_onnx import to_onnx
from pretrained.weights import Backbone

CAPABILITY = {"f32": "FP32", "bf16": "BF16"}  # as OpenVINO calls what a processor can do


class OpenVinoEngine:
    """uint8 pictures (B, H, W, 3) -> pooled features float32 (B, D), or the input (B, C, H, W) of block `cut`."""

    name = "openvino"
    batch_size = 8  # pictures a call; each goes through the network alone, a fifth faster than eight together

    def __init__(self, backbone: Backbone, precision: str, threads: int, cut: int | None = None):
        image = backbone.record.image
        settings = {
            "INFERENCE_PRECISION_HINT": precision,  # not stated, it is bf16 wherever the chip has it
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
        }
        with without_kernel_guard():
            core = openvino.Core()
            check_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
            model = with_scaling(core.read_model(onnx_of(backbone, cut)), image)
            if precision == "bf16":
                round_to_bf16(core, model, drawn_pictures(image))
            compiled = core.compile_model(model, "CPU", settings)
        self.idle = queue.SimpleQueue()
        for _ in range(threads + 1):  # the threads of finetune.features.compute
            self.idle.put([compiled.create_infer_request() for _ in range(self.batch_size)])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        requests = self.idle.get()
        rows = []
        try:
            for start in range(0, len(images), self.batch_size):
                under_way = list(zip(requests, images[start : start + self.batch_size]))
                for request, picture in under_way:
                    request.start_async([picture[np.newaxis]])
                for request, _ in under_way:
                    request.wait()
                    rows.append(request.get_output_tensor().data[0].copy())
        finally:
            self.idle.put(requests)
        return np.stack(rows)


def check_precision(precision: str, capabilities: list[str]) -> None:
    """Raises InputError where the processor does not have the number format."""
    if CAPABILITY[precision] not in capabilities:
        raise InputError(
            f"--precision {precision}: this processor does not have it (it has {', '.join(capabilities)}). "
            "Use --precision f32."
        )


def with_scaling(model: openvino.Model, image: ImageSpec) -> openvino.Model:
    """The network with `datasets.image.normalise` in front of it: uint8 (1, H, W, 3) goes in.

    The numbers are given for a whole row of pixels, which keeps a processor's vectors full and the order of the values
    in memory: 2 % of the network's time.
    """
    mean, std = (np.tile(one, (image.size[1], 1)) for one in mean_and_std(image))
    prepared = openvino.preprocess.PrePostProcessor(model)
    prepared.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    prepared.input().model().set_layout(openvino.Layout("NCHW"))
    steps = prepared.input().preprocess().convert_element_type(openvino.Type.f32)
    steps.custom(lambda x: opset.divide(opset.subtract(x, opset.constant(mean)), opset.constant(std)).output(0))
    model = prepared.build()
    model.reshape([1, *image.size, 3])
    return model


def onnx_of(backbone: Backbone, cut: int | None = None) -> bytes:
    record = backbone.record
    return to_onnx(backbone.network, record.image.size, record.pad_mode, cut).SerializeToString()
