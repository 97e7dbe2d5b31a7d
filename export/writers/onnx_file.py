"""Write the trained network as ONNX: pictures (B, ...) -> probabilities (B, C).

BatchNorm is folded into the convolutions, and only the plain operators that every runtime has are used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, save

from export.writers.onnx_pixels import normalise_nodes
from finetune.trained import Trained
from finetune.training.networks import Head
from pretrained.to_onnx import IR_VERSION, OPSET, backbone_nodes

OUTPUT = "probabilities"


def write_onnx(trained: Trained, path: Path, input_form: str, batch_size: int | None = None) -> None:
    save(onnx_model(trained, input_form, batch_size), str(path))


def onnx_model(trained: Trained, input_form: str, batch_size: int | None = None) -> ModelProto:
    """`input_form` as in `export.manifest`; it is also the name of the graph's input. `batch_size` None: any number."""
    nodes, arrays = [], []
    x = input_form
    if input_form == "image":
        nodes, arrays = normalise_nodes(trained.image, x, "normalised")
        x = "normalised"
    backbone = trained.backbone
    for more_nodes, more_arrays in (
        backbone_nodes(backbone.network, backbone.record.pad_mode, x, "features"),
        head_nodes(trained.head, "features", OUTPUT),
    ):
        nodes, arrays = nodes + more_nodes, arrays + more_arrays
    height, width = trained.image.size
    batch = batch_size or "B"
    kind, shape = {
        "tensor": (TensorProto.FLOAT, [batch, 3, height, width]),
        "image": (TensorProto.UINT8, [batch, height, width, 3]),
    }[input_form]
    graph = helper.make_graph(
        nodes,
        "mobilenetv2",
        [helper.make_tensor_value_info(input_form, kind, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, len(trained.classes)])],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return model


def head_nodes(head: Head, features: str, probabilities: str) -> tuple[list, list]:
    nodes, arrays = [], []
    here = features
    for name in ("hidden", "dense"):
        layer = getattr(head, name)
        if layer is None:
            continue
        weight, bias = (np.ascontiguousarray(values.asnumpy()) for values in (layer.weight, layer.bias))
        arrays += [numpy_helper.from_array(weight, f"{name}_weight"), numpy_helper.from_array(bias, f"{name}_bias")]
        nodes.append(helper.make_node("Gemm", [here, f"{name}_weight", f"{name}_bias"], [name], transB=1))
        here = name
        if name == "hidden":
            nodes.append(helper.make_node("Relu", [here], ["hidden_relu"]))
            here = "hidden_relu"
    nodes.append(helper.make_node("Softmax", [here], [probabilities], axis=-1))
    return nodes, arrays
