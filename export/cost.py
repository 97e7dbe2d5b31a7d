"""What a network costs, whatever runs it: parameters, multiply-adds and the memory of its activations."""

from __future__ import annotations

from pretrained.fold import Block, fold, multiply_adds

FLOAT_BYTES = 4


def cost(trained) -> dict:
    """Of one picture. Only the parameters of a network from scratch, whose steps are its own.

    `trained`: a `finetune.trained.Trained`.
    """
    if trained.backbone is None:
        return {"parameters": sum(parameter.size for parameter in trained.network.get_parameters())}
    blocks = fold(trained.backbone.network)
    head = sum(layer.weight.size for layer in (trained.head.hidden, trained.head.dense) if layer is not None)
    folded = sum(c.weight.size + c.bias.size for block in blocks for c in block.convolutions)
    return {
        "parameters": folded + sum(parameter.size for parameter in trained.head.get_parameters()),
        "multiply_adds": sum(multiply_adds(blocks, trained.image.size)) + head,
        "peak_activation_bytes": peak_activation_bytes(blocks, trained.image.size),
    }


def peak_activation_bytes(blocks: list[Block], size: tuple[int, int]) -> int:
    """The largest sum, in float32, of what a convolution reads, what it writes, and what waits to be added to it."""
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
