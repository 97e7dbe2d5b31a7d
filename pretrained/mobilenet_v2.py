"""MobileNetV2, the backbone, with the parameter names of MindSpore's model zoo.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2
(https://arxiv.org/abs/1801.04381).

Letters used below: B pictures a batch, H x W pixels, D features a picture.
"""

from mindspore import nn, ops

from pretrained.shapes import STAGES, round_channels

halves = ops.Split(axis=0, output_num=2)


def with_mirror_images(x):
    """(B, 3, H, W) -> (2 B, 3, H, W)."""
    return ops.concat((x, ops.flip(x, (3,))))


def mean_of_both(maps):
    """(2 B, D, H', W') of pictures and of their mirror images -> (B, D, H', W'), the latter turned back: what is on the
    left of a map stays on the left of the picture."""
    plain, mirrored = halves(maps)
    return (plain + ops.flip(mirrored, (3,))) / 2


def conv2d(c_in: int, c_out: int, kernel_size: int, stride: int, group: int, pad_mode: str) -> nn.Conv2d:
    """A convolution without bias. `pad_mode` is a fact of the weights: "same" pads as TensorFlow
    does (more on the right and bottom at stride 2), "pad" on all sides as the zoo and PyTorch do."""
    padding = (kernel_size - 1) // 2 if pad_mode == "pad" else 0
    return nn.Conv2d(c_in, c_out, kernel_size, stride, pad_mode=pad_mode, padding=padding, group=group, has_bias=False)


class ConvBNReLU(nn.Cell):
    """Convolution, BatchNorm, ReLU6."""

    def __init__(self, c_in, c_out, kernel_size=3, stride=1, group=1, pad_mode="pad", bn_eps=1e-5):
        super().__init__()
        self.features = nn.SequentialCell(
            conv2d(c_in, c_out, kernel_size, stride, group, pad_mode),
            nn.BatchNorm2d(c_out, eps=bn_eps),
            nn.ReLU6(),
        )

    def construct(self, x):
        return self.features(x)


class InvertedResidual(nn.Cell):
    """Expand by 1x1, filter depthwise by 3x3, project by 1x1; add the input where the shape is kept."""

    def __init__(self, c_in, c_out, stride, expansion, pad_mode, bn_eps):
        super().__init__()
        hidden = c_in * expansion
        facts = {"pad_mode": pad_mode, "bn_eps": bn_eps}
        layers = [] if expansion == 1 else [ConvBNReLU(c_in, hidden, kernel_size=1, **facts)]
        layers += [
            ConvBNReLU(hidden, hidden, stride=stride, group=hidden, **facts),
            conv2d(hidden, c_out, 1, 1, 1, pad_mode),
            nn.BatchNorm2d(c_out, eps=bn_eps),
        ]
        self.conv = nn.SequentialCell(layers)
        self.residual = stride == 1 and c_in == c_out

    def construct(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Cell):
    """The convolutional part: normalised pictures (B, 3, H, W) -> pooled features (B, D).

    D is 1280 up to width 1.0 and grows with the width above it. `mirror_mean`: the mean of a picture's features and of
    its mirror image's. `beside_last`: numbers of blocks with maps as large as the last one; their channels come first.
    """

    def __init__(
        self,
        width: float = 1.0,
        pad_mode: str = "pad",
        bn_eps: float = 1e-5,
        mirror_mean: bool = False,
        beside_last: tuple[int, ...] = (),
    ):
        super().__init__()
        self.mirror_mean, self.beside_last = mirror_mean, tuple(beside_last)
        channels, more = round_channels(32 * width), 0
        facts = {"pad_mode": pad_mode, "bn_eps": bn_eps}
        layers = [ConvBNReLU(3, channels, stride=2, **facts)]
        for expansion, c, blocks, first_stride in STAGES:
            c_out = round_channels(c * width)
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                layers.append(InvertedResidual(channels, c_out, stride, expansion, **facts))
                channels = c_out
                more += channels if len(layers) - 1 in self.beside_last else 0
        last = round_channels(1280 * max(1.0, width))
        self.feature_size = more + last
        layers.append(ConvBNReLU(channels, last, kernel_size=1, **facts))
        self.features = nn.SequentialCell(layers)
        self.last = len(layers) - 1

    def forward_map(self, x):
        """(B, 3, H, W) -> (B, D, H/32, W/32): the last feature map, before pooling, behind those beside it."""
        if self.mirror_mean:
            x = with_mirror_images(x)
        if self.beside_last:
            maps = ()
            for number, block in enumerate(self.features.cell_list):
                x = block(x)
                if number in self.beside_last or number == self.last:
                    maps += (x,)
            x = ops.concat(maps, 1)
        else:
            x = self.features(x)
        return mean_of_both(x) if self.mirror_mean else x

    def forward_features(self, x):
        """(B, 3, H, W) -> (B, D): the feature map averaged over its pixels."""
        return ops.mean(self.forward_map(x), (2, 3))

    def construct(self, x):
        return self.forward_features(x)
