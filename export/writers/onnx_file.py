"""Write the trained network as ONNX: pictures (B, ...) -> probabilities (B, C), and novelty (B,) where it is told.

BatchNorm is folded into the convolutions, and only the plain operators that every runtime has are used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, save

from export.manifest import NOVELTY, PROBABILITIES
from export.writers.onnx_layers import Graph, network_nodes
from export.writers.onnx_pixels import normalise_nodes
from finetune.insight.novelty import LEAST_LENGTH, Novelty
from finetune.trained import Trained
from pretrained.to_onnx import IR_VERSION, OPSET, backbone_nodes


def write_onnx(
    trained: Trained,
    path: Path,
    input_form: str,
    batch_size: int | None = None,
    novelty: Novelty | None = None,
) -> None:
    save(onnx_model(trained, input_form, batch_size, novelty), str(path))


def onnx_model(
    trained: Trained, input_form: str, batch_size: int | None = None, novelty: Novelty | None = None
) -> ModelProto:
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
    for more_nodes, more_arrays in (*parts, network_nodes(trained.head, x, PROBABILITIES)):
        nodes, arrays = nodes + more_nodes, arrays + more_arrays
    height, width = trained.image.size
    batch, channels = batch_size or "B", trained.image.channels
    kind, shape = {
        "tensor": (TensorProto.FLOAT, [batch, channels, height, width]),
        "image": (TensorProto.UINT8, [batch, height, width, channels]),
    }[input_form]
    outputs = [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [batch, len(trained.classes)])]
    if novelty is not None:
        more_nodes, more_arrays = novelty_nodes(novelty, x)
        nodes, arrays = nodes + more_nodes, arrays + more_arrays
        outputs.append(helper.make_tensor_value_info(NOVELTY, TensorProto.FLOAT, [batch]))
    graph = helper.make_graph(
        nodes,
        trained.name,
        [helper.make_tensor_value_info(input_form, kind, shape)],
        outputs,
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return model


def novelty_nodes(novelty: Novelty, x: str) -> tuple[list, list]:
    """(nodes, initializers) from features (B, D) to their novelty (B,), as `finetune.insight.novelty` has it."""
    graph = Graph("novelty_")
    length = graph.node("Sqrt", squares(graph, x, keepdims=1))
    length = graph.node("Max", length, graph.number(LEAST_LENGTH))
    d = graph.node("Sub", graph.node("Div", x, length), graph.array(novelty.mean))
    far = graph.node("Mul", squares(graph, d), graph.number(novelty.scale))
    along = squares(graph, graph.node("MatMul", d, graph.array(novelty.axes)))
    graph.nodes.append(helper.make_node("Sub", [far, along], [NOVELTY]))
    return graph.nodes, graph.arrays


def squares(graph: Graph, x: str, keepdims: int = 0) -> str:
    """The sum of each row's."""
    return graph.node("ReduceSum", graph.node("Mul", x, x), graph.array(np.array([1])), keepdims=keepdims)
