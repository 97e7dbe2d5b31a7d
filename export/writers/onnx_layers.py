"""A head, or a network from scratch, as ONNX nodes: a table with a line for each kind of layer.

Only operators that every runtime has. What training alone needs is gone: dropout, and the floats behind binary weights.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn
from onnx import helper, numpy_helper

from finetune.layers.binary import BinaryConvolution, BinaryDense, FixedPointConvolution, Round, Sign
from finetune.layers.convolutions import POOL, ChannelShuffle, PooledConvolution, Residual, ShuffleUnit
from finetune.training.ensemble import Ensemble
from finetune.training.networks import MLP, Dropout, Head, LeNet5


class Graph:
    """Nodes and arrays in the making; each step takes the name of a tensor and gives that of the next.

    `prefix` is that of all names but those of parameters, where one graph becomes a part of another.
    """

    def __init__(self, prefix: str = ""):
        self.prefix, self.nodes, self.arrays = prefix, [], []

    def array(self, values) -> str:
        """A parameter is called as in the network, with underscores."""
        name = f"{self.prefix}array{len(self.arrays)}"
        name = values.name.replace(".", "_") if isinstance(values, ms.Parameter) else name
        values = values.asnumpy() if isinstance(values, ms.Tensor) else np.asarray(values)
        self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, value: float) -> str:
        return self.array(np.float32(value))

    def node(self, operator: str, *inputs: str, **attributes) -> str:
        name = f"{self.prefix}{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def layer(self, layer: nn.Cell, x: str) -> str:
        return WRITERS[type(layer)](self, layer, x)

    def chain(self, layers, x: str) -> str:
        for layer in layers:
            x = self.layer(layer, x)
        return x


def convolution(graph: Graph, layer: nn.Conv2d, x: str, weight: np.ndarray | None = None, group: int = 0) -> str:
    weight = layer.weight.asnumpy() if weight is None else weight
    return graph.node(
        "Conv",
        x,
        graph.array(weight),
        kernel_shape=list(layer.kernel_size),
        pads=[layer.padding] * 4,
        dilations=list(layer.dilation),
        group=group or layer.group,
    )


def fixed_point(graph: Graph, layer: FixedPointConvolution, x: str) -> str:
    return convolution(graph, layer, graph.layer(layer.round_pixels, x), layer.round_weights(layer.weight).asnumpy())


def binary_convolution(graph: Graph, layer: BinaryConvolution, x: str) -> str:
    x = argument(graph, layer, x, layer.shift.reshape(-1, 1, 1))
    near = convolution(graph, layer, graph.node("Abs", x), layer.ones.asnumpy(), 1)
    near = graph.node("Mul", near, graph.number(layer.share))
    signs = convolution(graph, layer, graph.layer(layer.sign, x), layer.sign(layer.weight).asnumpy())
    return scaled(graph, layer, signs, near)


def binary_dense(graph: Graph, layer: BinaryDense, x: str) -> str:
    x = argument(graph, layer, x, layer.shift)
    near = graph.node("ReduceSum", graph.node("Abs", x), graph.array(np.array([1])), keepdims=1)
    near = graph.node("Mul", near, graph.number(layer.share))
    signs = graph.node("MatMul", graph.layer(layer.sign, x), graph.array(layer.sign(layer.weight).asnumpy().T))
    return graph.node("Add", scaled(graph, layer, signs, near), graph.array(layer.bias))


def argument(graph: Graph, layer: BinaryConvolution | BinaryDense, x: str, shift: ms.Tensor) -> str:
    return graph.layer(layer.round, graph.node("Sub", x, graph.array(shift)))


def scaled(graph: Graph, layer: BinaryConvolution | BinaryDense, signs: str, near: str) -> str:
    """In the order of the layer itself: another one would round otherwise."""
    return graph.node("Mul", graph.node("Mul", signs, near), graph.array(layer.scales()))


def sign(graph: Graph, layer: Sign, x: str) -> str:
    positive = graph.node("GreaterOrEqual", x, graph.number(0))
    return graph.node("Where", positive, graph.number(1), graph.number(-1))


def rounded(graph: Graph, layer: Round, x: str) -> str:
    x = graph.node("Mul", x, graph.number(1 / layer.step))
    x = graph.node("Floor", graph.node("Add", x, graph.number(0.5)))
    return graph.node("Mul", x, graph.number(layer.step))


def pooled(graph: Graph, layer: PooledConvolution, x: str) -> str:
    return graph.node("MaxPool", graph.layer(layer.convolution, x), kernel_shape=[POOL, POOL], strides=[POOL, POOL])


def shuffled(graph: Graph, layer: ChannelShuffle, x: str) -> str:
    return graph.node("Gather", x, graph.array(layer.order), axis=1)


def mean_probabilities(graph: Graph, layer: Ensemble, x: str) -> str:
    """(B, C), of the members' probabilities; sums, because MindSpore Lite's converter knows no mean of several."""
    total, *others = (graph.node("Softmax", graph.layer(member, x), axis=-1) for member in layer.members)
    for other in others:
        total = graph.node("Add", total, other)
    return graph.node("Div", total, graph.number(len(layer.members)))


def residual(graph: Graph, layer: Residual, x: str) -> str:
    scale = layer.scale.asnumpy()
    return graph.node("Add", x, graph.node("Mul", graph.array(scale), graph.layer(layer.layers, x)))


def dense(graph: Graph, layer: nn.Dense, x: str) -> str:
    return graph.node("Gemm", x, graph.array(layer.weight), graph.array(layer.bias), transB=1)


def head(graph: Graph, layer: Head, x: str) -> str:
    if layer.hidden is not None:
        x = graph.node("Relu", graph.layer(layer.hidden, x))
    return graph.layer(layer.dense, x)


WRITERS: dict[type, Callable[[Graph, nn.Cell, str], str]] = {
    nn.Flatten: lambda graph, layer, x: graph.node("Flatten", x, axis=1),
    nn.Dense: dense,
    nn.Conv2d: convolution,
    nn.SequentialCell: lambda graph, layer, x: graph.chain(layer, x),
    nn.ReLU: lambda graph, layer, x: graph.node("Relu", x),
    nn.Sigmoid: lambda graph, layer, x: graph.node("Sigmoid", x),
    nn.Tanh: lambda graph, layer, x: graph.node("Tanh", x),
    nn.ELU: lambda graph, layer, x: graph.node("Elu", x, alpha=1.0),
    nn.LeakyReLU: lambda graph, layer, x: graph.node("LeakyRelu", x, alpha=float(layer.alpha)),
    nn.PReLU: lambda graph, layer, x: graph.node("PRelu", x, graph.array(layer.w)),
    Dropout: lambda graph, layer, x: x,
    PooledConvolution: pooled,
    ShuffleUnit: lambda graph, layer, x: graph.chain(layer.steps, x),
    ChannelShuffle: shuffled,
    Residual: residual,
    FixedPointConvolution: fixed_point,
    BinaryConvolution: binary_convolution,
    BinaryDense: binary_dense,
    Sign: sign,
    Round: rounded,
    MLP: lambda graph, layer, x: graph.chain(layer.steps, x),
    LeNet5: lambda graph, layer, x: graph.chain((*layer.steps, layer.classifier), x),
    Head: head,
}


def network_nodes(network: nn.Cell, x: str, probabilities: str) -> tuple[list, list]:
    """(nodes, initializers) from the pictures, or from the features of a head, to the probabilities."""
    graph = Graph()
    if isinstance(network, Ensemble):  # its logits are the logarithms of just these
        mean = mean_probabilities(graph, network, x)
        graph.nodes.append(helper.make_node("Identity", [mean], [probabilities]))
    else:
        logits = graph.layer(network, x)
        graph.nodes.append(helper.make_node("Softmax", [logits], [probabilities], axis=-1))
    return graph.nodes, graph.arrays
