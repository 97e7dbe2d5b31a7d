"""The class-activation map, exactly: where in a picture the evidence for each class lies.

Behind the last convolution the network only averages over all places and applies a linear head. Both are
linear, so they can be done the other way round: the head at each place first, which is a map a class, and
the average of the map is the class's logit (Zhou et al., Learning Deep Features for Discriminative
Localization, 2016). Nothing is approximated: softmax(mean of the maps) are the probabilities.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from datasets.image import LONGEST_ASPECT, ImageSpec, inside

MAPS = "class_maps"
LINEAR_HEAD = ["GlobalAveragePool", "Flatten", "Gemm", "Softmax"]  # the end of a graph that has such maps


def with_class_maps(model: ModelProto) -> bool:
    """Give an exported graph one more output: maps (B, C, H', W'), the head at each place of the last feature map.

    Returns False, and leaves the graph as it is, where it does not end in pooling and a linear head: behind a
    hidden layer the average of what each place says is not what the network says.
    """
    tail = tail_of(model, len(LINEAR_HEAD))
    if [node.op_type for node in tail] != LINEAR_HEAD:
        return False
    pool, _, dense, _ = tail
    arrays = {array.name: array for array in model.graph.initializer}
    weight = numpy_helper.to_array(arrays[dense.input[1]])  # (C, D)
    arrays_1x1 = numpy_helper.from_array(np.ascontiguousarray(weight[:, :, None, None]), f"{MAPS}_weight")
    model.graph.initializer.append(arrays_1x1)
    model.graph.node.append(helper.make_node("Conv", [pool.input[0], arrays_1x1.name, dense.input[2]], [MAPS]))
    shape = ["B", len(weight), "rows", "columns"]
    model.graph.output.append(helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, shape))
    checker.check_model(model)
    return True


def tail_of(model: ModelProto, length: int) -> list[NodeProto]:
    """The last nodes of the chain that ends in the graph's first output, in order; fewer if it begins earlier."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    name, found = model.graph.output[0].name, []
    while len(found) < length and name in made_by:
        found.append(made_by[name])
        name = found[-1].input[0]
    return found[::-1]


def seen_box(width: int, height: int, spec: ImageSpec) -> tuple[float, float, float, float]:
    """Which part of an upright picture the network sees: (left, top, width, height) as shares 0..1; with a margin
    around the picture, left or top is below 0 and width or height above 1.

    Follows `datasets.image.resize` and `centre_crop`.
    """
    seen_height, seen_width = spec.size
    kept = [width, height]
    if spec.letterbox:
        resized = inside((width, height), spec)
    elif isinstance(spec.resize, int):
        kept = [min(side, LONGEST_ASPECT * min(width, height)) for side in kept]
        scale = spec.resize / min(kept)
        resized = [max(spec.resize, round(side * scale)) for side in kept]
    else:
        resized = [spec.resize[1], spec.resize[0]]
    box = []
    for side, keep, full, seen in zip((width, height), kept, resized, (seen_width, seen_height)):
        begin = (side - keep) / 2 + ((full - seen) // 2) / full * keep
        box.append((begin / side, seen / full * keep / side))
    (left, share_x), (top, share_y) = box
    return left, top, share_x, share_y
