"""Write the trained network as ONNX: pictures (B, ...) -> probabilities (B, C).

BatchNorm is folded into the convolutions, and only the plain operators that every runtime has are used.
"""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, TensorProto, checker, helper, save

from export.writers.onnx_layers import network_nodes
from export.writers.onnx_pixels import normalise_nodes
from finetune.trained import Trained
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
    backbone, parts = trained.backbone, []
    if backbone is not None:
        parts.append(backbone_nodes(backbone.network, backbone.record.pad_mode, x, "features"))
        x = "features"
    for more_nodes, more_arrays in (*parts, network_nodes(trained.head, x, OUTPUT)):
        nodes, arrays = nodes + more_nodes, arrays + more_arrays
    height, width = trained.image.size
    batch, channels = batch_size or "B", trained.image.channels
    kind, shape = {
        "tensor": (TensorProto.FLOAT, [batch, channels, height, width]),
        "image": (TensorProto.UINT8, [batch, height, width, channels]),
    }[input_form]
    graph = helper.make_graph(
        nodes,
        trained.name,
        [helper.make_tensor_value_info(input_form, kind, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, len(trained.classes)])],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return model
