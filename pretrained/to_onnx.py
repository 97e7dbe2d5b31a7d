"""The backbone as ONNX: normalised float32 (B, 3, H, W) -> pooled features (B, D), BatchNorm folded; or its first part.

The operators are the plain ones that every runtime has: Conv, Clip (ReLU6), Add, GlobalAveragePool and Flatten, and for
the mean with the mirror image Slice, Concat, Split and Mul. The batch is dynamic.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from pretrained.fold import Convolution, fold
from pretrained.mobilenet_v2 import MobileNetV2

OPSET = 13
IR_VERSION = 8  # of the file; readers refuse a newer one than they know
INPUT, OUTPUT = "x", "features"
FIRST = -(2**31)  # beyond the end of an axis that is walked backwards


def to_onnx(network: MobileNetV2, size: tuple[int, int], pad_mode: str, cut: int | None = None) -> ModelProto:
    """`size` is H, W; `pad_mode` is a fact of the weights, see `pretrained.catalog`. With a `cut` the graph ends in
    front of block `cut`, whose input (B, C', H', W') it gives."""
    nodes, arrays = backbone_nodes(network, pad_mode, INPUT, OUTPUT, cut)
    shape = ["B", network.feature_size] if cut is None else ["B", "channels", "rows", "columns"]
    graph = helper.make_graph(
        nodes,
        "mobilenetv2",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["B", 3, *size])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return model


def backbone_nodes(
    network: MobileNetV2, pad_mode: str, x: str, features: str, cut: int | None = None
) -> tuple[list, list]:
    """(nodes, initializers) that lead from the tensor named `x` to the one named `features`."""
    nodes = []
    arrays = [_array("zero", np.float32(0)), _array("six", np.float32(6))]
    here = x
    mirror_mean = network.mirror_mean and cut is None
    if mirror_mean:
        arrays += backwards_arrays()
        nodes += [backwards(x, "mirrored"), helper.make_node("Concat", [x, "mirrored"], ["both"], axis=0)]
        here = "both"
    maps = []
    for b, block in enumerate(fold(network)[:cut]):
        entry = here
        for c, convolution in enumerate(block.convolutions):
            name = f"block{b}_conv{c}"
            arrays += [_array(f"{name}_weight", convolution.weight), _array(f"{name}_bias", convolution.bias)]
            nodes.append(_conv(convolution, pad_mode, here, name))
            here = name
            if convolution.relu6:
                nodes.append(helper.make_node("Clip", [here, "zero", "six"], [f"{name}_relu6"]))
                here = f"{name}_relu6"
        if block.residual:
            nodes.append(helper.make_node("Add", [entry, here], [f"block{b}"]))
            here = f"block{b}"
        if b in network.beside_last:
            maps.append(here)
    if cut is not None:
        return [*nodes, helper.make_node("Identity", [here], [features])], arrays
    if maps:
        nodes.append(helper.make_node("Concat", [*maps, here], ["maps"], axis=1))
        here = "maps"
    if mirror_mean:
        nodes += [
            helper.make_node("Split", [here], ["map", "map_of_mirrored"], axis=0),
            backwards("map_of_mirrored", "map_turned_back"),
            helper.make_node("Add", ["map", "map_turned_back"], ["sum_of_maps"]),
            helper.make_node("Mul", ["sum_of_maps", "half"], ["mean_of_maps"]),
        ]
        here = "mean_of_maps"
    nodes.append(helper.make_node("GlobalAveragePool", [here], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], [features], axis=1))
    return nodes, arrays


def backwards_arrays() -> list[TensorProto]:
    ends = {"from_last": -1, "to_first": FIRST, "columns": 3, "backwards": -1}
    half = _array("half", np.float32(0.5))
    return [half, *(_array(name, np.array([value], np.int64)) for name, value in ends.items())]


def backwards(x: str, turned: str):
    """(B, C, H, W), each row of pixels from its end."""
    return helper.make_node("Slice", [x, "from_last", "to_first", "columns", "backwards"], [turned])


def _conv(convolution: Convolution, pad_mode: str, x: str, name: str):
    """Symmetric padding as numbers; TensorFlow's depends on the size, so that the runtime works it out."""
    kernel_size = convolution.weight.shape[-1]
    padding = {"auto_pad": "SAME_UPPER"} if pad_mode == "same" else {"pads": [(kernel_size - 1) // 2] * 4}
    return helper.make_node(
        "Conv",
        [x, f"{name}_weight", f"{name}_bias"],
        [name],
        kernel_shape=[kernel_size, kernel_size],
        strides=[convolution.stride, convolution.stride],
        group=convolution.group,
        **padding,
    )


def _array(name: str, values: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)
