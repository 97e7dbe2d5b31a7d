"""What a network costs, whatever runs it: parameters, multiply-adds and the memory of its activations."""

from __future__ import annotations

from finetune.training.cost import cost as cost_of_layers
from pretrained.fold import Block, fold, multiply_adds

FLOAT_BYTES = 4


def cost(trained) -> dict:
    """Of one picture; of a network from scratch what `finetune.training.cost` counts.

    `trained`: a `finetune.trained.Trained`.
    """
    head = cost_of_layers(trained.head)
    if trained.backbone is None:
        return head
    blocks = fold(trained.backbone.network)
    folded = sum(c.weight.size + c.bias.size for block in blocks for c in block.convolutions)
    passes = 2 if trained.backbone.record.mirror_mean else 1  # side by side
    return {
        "parameters": folded + head["parameters"],
        "multiply_adds": passes * sum(multiply_adds(blocks, trained.image.size)) + head["multiply_adds"],
        "peak_activation_bytes": passes * peak_activation_bytes(blocks, trained.image.size),
    }


def peak_activation_bytes(blocks: list[Block], size: tuple[int, int]) -> int:
    """The largest sum, in float32, of what a convolution reads, what it writes, and what waits to be added to that."""
    largest = 0
    for block in blocks:
        waits = 0
        for convolution in block.convolutions:
            channels = convolution.weight.shape[1] * convolution.group
            read = channels * size[0] * size[1]
            size = tuple(-(-side // convolution.stride) for side in size)
            write = convolution.weight.shape[0] * size[0] * size[1]
            largest = max(largest, read + write + waits)
            waits = waits or (read if block.residual else 0)
    return FLOAT_BYTES * largest
