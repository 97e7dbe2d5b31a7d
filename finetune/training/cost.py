"""What a trained network or head costs: parameters, multiply-adds of one picture, and bytes that its weights need.

The bytes are those of a file that spares nothing but what the design allows: 4 of a float; of a binary weight one bit,
and 4 bytes of each filter's scale; of a pruned layer one bit a place and 4 bytes of each weight that is left. The files
that are exported hold floats.
"""

from __future__ import annotations

import numpy as np
from mindspore import nn

from finetune.layers.binary import BINARY
from finetune.training.optimizers import decayed


def cost(network: nn.Cell) -> dict:
    """For metrics.json; `zeros` is the share of the weights, without biases, that are exactly 0."""
    signs = {id(cell.weight): cell for _, cell in network.cells_and_names() if isinstance(cell, BINARY)}
    weights = {id(parameter): parameter.asnumpy() for parameter in decayed(network)}
    zeros = sum(int((values == 0).sum()) for values in weights.values())
    size = 0.0
    for parameter in network.trainable_params():
        values = parameter.asnumpy()
        left = np.count_nonzero(values)
        if id(parameter) in signs:
            size += values.size / 8 + 4 * len(values)
        elif id(parameter) in weights and left < values.size:
            size += min(4 * values.size, values.size / 8 + 4 * left)
        else:
            size += 4 * values.size
    return {
        "parameters": sum(parameter.size for parameter in network.trainable_params()),
        "zeros": zeros / sum(values.size for values in weights.values()),
        "multiply_adds": getattr(network, "multiply_adds", sum(values.size for values in weights.values())),
        "weights_bytes": round(size),
    }
