"""How MobileNetV2 is built up, without MindSpore: its blocks, its channels, and the width that given channels have.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2
(https://arxiv.org/abs/1801.04381).
"""

from __future__ import annotations

from collections.abc import Sequence

# Expansion factor, channels at width 1.0, number of blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STAGE_OF = {}  # block 1 .. 17 -> (stage, block in it), both from 0
for _stage, (_, _, _blocks, _) in enumerate(STAGES):
    for _inner in range(_blocks):
        STAGE_OF[len(STAGE_OF) + 1] = (_stage, _inner)
LAST = len(STAGE_OF) + 1  # the 1x1 convolution behind the blocks
PARTS = {  # the convolutions of each block, in order; block 0 is the stem
    0: ("stem",),
    1: ("depthwise", "project"),
    **{block: ("expand", "depthwise", "project") for block in range(2, LAST)},
    LAST: ("last",),
}
PUBLISHED = (1.0, 1.4, 0.35, 0.5, 0.75, 1.3)
WIDTHS = tuple(round(step / 100, 2) for step in range(5, 405, 5))


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, at least one of it and never more than 10 % below `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def channels_of(width: float) -> tuple[int, ...]:
    """What the stem, the last block of each stage and the last convolution give."""
    stages = (round_channels(channels * width) for _, channels, _, _ in STAGES)
    return (round_channels(32 * width), *stages, round_channels(1280 * max(1.0, width)))


def width_of(channels: Sequence[int | None]) -> float | None:
    """The width with these channels, as `channels_of` orders them; None among them is not known.

    Of several widths with the same channels it is a published one, or the smallest. None where no width has them.
    """
    fitting = [
        width for width in WIDTHS if all(known in (None, own) for known, own in zip(channels, channels_of(width)))
    ]
    return next((width for width in PUBLISHED if width in fitting), fitting[0] if fitting else None)
