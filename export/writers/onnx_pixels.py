"""What stands before a network in ONNX: uint8 pictures as they are, made into what the network wants."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from datasets.image import ImageSpec, mean_and_std

PIXELS = "pixels_in"


def normalise_nodes(spec: ImageSpec, x: str, normalised: str) -> tuple[list, list]:
    """What `datasets.image.normalise` does, in its order of operations: uint8 (B, H, W, 3) -> (B, 3, H, W)."""
    mean, std = mean_and_std(spec)
    arrays = [numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(std, "std")]
    nodes = [
        helper.make_node("Cast", [x], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], [normalised], perm=[0, 3, 1, 2]),
    ]
    return nodes, arrays


def take_pixels(model: ModelProto, spec: ImageSpec, input_form: str) -> None:
    """Make a graph of either input form take uint8 (B, H, W, 3), or (B, H, W, 1), any number of pictures at once."""
    (given,) = model.graph.input
    if input_form == "tensor":
        nodes, arrays = normalise_nodes(spec, PIXELS, given.name)
        rest = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend(nodes + rest)
        model.graph.initializer.extend(arrays)
        pixels = helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["B", *spec.size, spec.channels])
        given.CopyFrom(pixels)
    for value in (given, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    checker.check_model(model)
