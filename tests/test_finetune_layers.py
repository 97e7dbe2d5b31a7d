"""Binary and shuffled convolutions, residual blocks, width: what their papers say, and that their files agree."""

import json

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from conftest import CHECKOUT, call
from mindspore import nn

from datasets.base import InputError
from datasets.image import ImageSpec
from export.writers.onnx_file import onnx_model
from finetune.config import ModelConfig, TrainConfig, load_config
from finetune.layers.binary import ARGUMENT_STEP, BinaryConvolution, BinaryDense, Round, Sign
from finetune.layers.convolutions import ChannelShuffle, multiply_adds
from finetune.trained import Trained
from finetune.training.networks import from_scratch
from finetune.training.predictor import Predictor
from finetune.training.trainer import Trainer

QUICK = TrainConfig(epochs=10, batch_size=16, learning_rate=0.01, l2=0.0, patience=0)


def model(**settings) -> ModelConfig:
    return ModelConfig(**{"backbone": None, "filters": [4, 8], "paddings": [2, 0], "layers": [16, 12], **settings})


def stripes(count=160, seed=0):
    """x (N, 1, 12, 12) with a noisy stripe, y (N,): 0 across, 1 down."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 0.3, (count, 1, 12, 12)), rng.integers(0, 2, count)
    for row, label in enumerate(y):
        place = rng.integers(2, 10)
        x[row, 0][(slice(None), place) if label else (place, slice(None))] += 2
    return x.astype(np.float32), y.astype(np.int32)


def trained(config: ModelConfig):
    network = from_scratch(config, (1, 12, 12), 2, 1)
    x, y = stripes()
    Trainer(network, (x, y), (x[:0], y[:0]), QUICK, 2, 1).fit(on_epoch=lambda line: None)
    network.set_train(False)
    return network


KINDS = [
    {"convolution": "binary"},
    {"convolution": "binary", "layers": [], "activation": "prelu"},
    {"convolution": "shuffle"},
    {"residual": 2, "kernel": 3, "paddings": [1, 1]},
    {"residual": 1, "separable": True},
    {"network": "mlp", "residual": 2, "layers": [16]},
    {"width": 1.5, "activation": "leaky_relu"},
]


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_every_design_learns_and_its_onnx_gives_the_same(settings):
    network = trained(model(**settings))
    x, y = stripes(200, seed=9)
    found = Predictor(network)(x)
    assert (found.argmax(1) == y).mean() > 0.9
    spec = ImageSpec(size=(12, 12), resize=(12, 12), mean_unit=(0.5,), std_unit=(0.5,))
    graph = onnx_model(Trained(network, None, network, ("across", "down"), spec, "net"), "tensor")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"tensor": x})[0] - found).max() < 1e-5


@pytest.fixture(scope="module")
def binary():
    return trained(model(convolution="binary"))


def test_what_a_binary_layer_multiplies_is_binary(binary):
    layer = binary.conv2.convolution
    assert type(layer) is BinaryConvolution and type(binary.classifier.fc1) is BinaryDense
    weights = layer.sign(layer.weight).asnumpy()
    assert set(np.unique(weights)) == {-1.0, 1.0}
    x = ms.Tensor(np.random.default_rng(1).normal(0, 1, (3, 4, 6, 6)).astype(np.float32))
    argument = np.floor((x - layer.shift.reshape(-1, 1, 1)).asnumpy() / ARGUMENT_STEP + 0.5) * ARGUMENT_STEP
    signs, size = np.where(argument >= 0, 1.0, -1.0), layer.kernel_size[0]
    alpha = np.abs(layer.weight.asnumpy()).mean((1, 2, 3))
    expected = np.empty((3, 8, 2, 2))
    for row, column in np.ndindex(2, 2):  # the paper's equation, a place at a time
        window = np.s_[:, :, row : row + size, column : column + size]
        products = np.einsum("bchw,fchw->bf", signs[window], weights)
        expected[:, :, row, column] = products * np.abs(argument[window]).mean((1, 2, 3))[:, None] * alpha
    np.testing.assert_allclose(layer(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_first_and_last_layer_are_no_signs(binary):
    assert not isinstance(binary.conv1.convolution, BinaryConvolution)
    assert not isinstance(binary.classifier.fc3, BinaryDense)
    weights = binary.conv1.convolution.round_weights(binary.conv1.convolution.weight).asnumpy()
    assert len(np.unique(weights)) > 10
    np.testing.assert_allclose(weights, binary.conv1.convolution.weight.asnumpy(), atol=2**-8)


class WeightedSum(nn.Cell):
    def __init__(self, layer, weights):
        super().__init__()
        self.layer, self.weights = layer, weights

    def construct(self, x):
        return (self.layer(x) * self.weights).sum()


def test_gradients_go_straight_through_near_zero():
    x = ms.Tensor(np.float32([-3, -1, 0, 1, 3]))  # their mean square is 4
    weights = ms.Tensor(np.float32([1, 2, 3, 4, 5]))
    for layer, expected in ((Sign(), [0, 1, 1.5, 2, 0]), (Round(0.25), [1, 2, 3, 4, 5])):
        gradient = ms.grad(WeightedSum(layer, weights))(x)
        np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=1e-5)
    assert Sign()(x).asnumpy().tolist() == [-1, -1, 1, 1, 1]
    assert Round(0.25)(ms.Tensor(np.float32([0.1, 0.125, -0.125, 0.3]))).asnumpy().tolist() == [0, 0.25, 0, 0.25]


def test_sums_in_front_of_signs_are_exact(binary):
    """In every order of adding, by every program: two of them gave other signs where they were not."""
    x = stripes(50, seed=4)[0]
    layer = binary.conv1.convolution
    pixels = layer.round_pixels(ms.Tensor(x)).asnumpy().astype(np.float64)
    weights = layer.round_weights(layer.weight).asnumpy().astype(np.float64)
    padded = np.pad(pixels, ((0, 0), (0, 0), (2, 2), (2, 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (2, 3))
    assert np.array_equal(layer(ms.Tensor(x)).asnumpy(), np.einsum("bcyxhw,fchw->bfyx", windows, weights))


@pytest.mark.parametrize("channels, groups, order", [(6, 2, [0, 3, 1, 4, 2, 5]), (6, 3, [0, 2, 4, 1, 3, 5])])
def test_the_shuffle_is_the_papers(channels, groups, order):
    """Channels as rows of groups, read by columns: ShuffleNet, section 3.1."""
    layer = ChannelShuffle(channels, groups)
    x = np.random.default_rng(0).normal(size=(2, channels, 3, 4)).astype(np.float32)
    assert np.array_equal(layer(ms.Tensor(x)).asnumpy(), x[:, order]) and layer.order.tolist() == order


def test_a_filter_behind_the_shuffle_sees_every_group():
    network = from_scratch(model(convolution="shuffle", filters=[4, 8], activation="tanh"), (1, 12, 12), 2, 1)
    unit = network.conv2.convolution
    x = np.zeros((1, 4, 6, 6), np.float32)
    seen = []
    for channel in range(4):
        moved = x.copy()
        moved[0, channel] = 1
        seen.append((unit(ms.Tensor(moved)) - unit(ms.Tensor(x))).asnumpy()[0].any((1, 2)))
    assert np.all(seen)
    assert unit.first.weight.shape == (8, 2, 1, 1)  # two groups


def test_residual_blocks_begin_as_nothing():
    plain, deep = (from_scratch(model(residual=n, network="mlp", layers=[8]), (1, 12, 12), 2, 1) for n in (0, 3))
    for one, other in zip(plain.get_parameters(), (p for p in deep.get_parameters() if "residual" not in p.name)):
        other.set_data(one.value().copy())
    x = ms.Tensor(stripes(5)[0])
    assert np.array_equal(plain(x).asnumpy(), deep(x).asnumpy())


def test_width_and_multiply_adds():
    lenet = ModelConfig(backbone=None)
    network = from_scratch(lenet, (1, 28, 28), 10, 1)
    assert network.multiply_adds == 150 * 28 * 28 + 2400 * 100 + 400 * 120 + 120 * 84 + 84 * 10
    assert multiply_adds(network.conv2, (14, 14)) == 2400 * 100
    wide = from_scratch(ModelConfig(backbone=None, width=0.5), (1, 28, 28), 10, 1)
    assert wide.conv2.convolution.weight.shape == (8, 3, 5, 5) and wide.classifier.fc2.weight.shape == (42, 60)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"model.convolution": "binary"}, "from scratch"),
        ({"model.width": 2}, "from scratch"),
        ({"model.backbone": None, "model.network": "mlp", "model.convolution": "shuffle"}, "no convolutions"),
        ({"model.backbone": None, "model.separable": True, "model.convolution": "shuffle"}, "two kinds of one layer"),
        ({"model.backbone": None, "model.residual": 1, "model.convolution": "binary"}, "in front of a sign"),
        ({"model.convolution": "ternary"}, "plain, shuffle, binary"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        load_config(None, settings)


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="cannot be dealt into 3 groups"):
        from_scratch(model(convolution="shuffle", groups=3), (1, 12, 12), 2, 1)
    with pytest.raises(InputError, match="Use an odd"):
        from_scratch(model(residual=1, kernel=4), (1, 12, 12), 2, 1)


@pytest.mark.parametrize(
    "settings",
    [
        ("model.convolution=binary",),
        pytest.param(("model.convolution=shuffle", "model.residual=1"), marks=pytest.mark.slow),
    ],
)
def test_the_whole_journey_ends_with_equal_files(settings, tmp_path):
    wanted = ("model.network=lenet5", "model.paddings=2,2", "model.layers=20", "model.activation=relu", *settings)
    done = call(
        *("finetune", "run", CHECKOUT / "finetune" / "configs" / "digits_bp.yaml", "--epochs", 6),
        *("--runs_dir", tmp_path, "--name", "net", "--set", "export.file_format=MINDIR,ONNX"),
        *(word for setting in wanted for word in ("--set", setting)),
    )
    assert done.returncode == 0, done.stderr
    parity = json.loads((tmp_path / "net" / "export" / "parity.json").read_text(encoding="utf-8"))
    assert parity["equal"] and parity["same_class"] == 450 and len(parity["models"]) == 2
    assert parity["largest_difference"]["to_ckpt"] < 1e-5
