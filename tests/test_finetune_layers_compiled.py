"""Layers by kernels of our own are MindSpore's convolutions, forward and backward; without a compiler all goes on."""

import logging
import shutil
import stat
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from test_finetune_training_tail import nothing_compiled

from finetune.layers import compiled
from finetune.layers.compiled import Kernels, layer_of, library, load_kernels
from pretrained.fold import Convolution

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="the kernels are built with g++")


@pytest.fixture(scope="module")
def kernels():
    return Kernels(library())


class Weighed(nn.Cell):
    """The sum of what a layer gives times fixed numbers."""

    def __init__(self, layer: nn.Cell, factors: np.ndarray):
        super().__init__(auto_prefix=False)
        self.layer = layer
        self.factors = ms.Tensor(factors)
        self.turned = ms.Tensor(np.ascontiguousarray(factors.transpose(1, 2, 3, 0)))

    def construct(self, x):
        return (self.layer(x) * (self.turned if self.training else self.factors)).sum()


def value_and_gradients(weighed: Weighed, x: np.ndarray, training: bool) -> tuple[float, list[np.ndarray]]:
    """Of x (B, C, H, W), the weights and the bias; in training as (C, H, W, B)."""
    weighed.set_train(training)
    x = np.ascontiguousarray(x.transpose(1, 2, 3, 0)) if training else x
    with nothing_compiled():
        gradients = ms.value_and_grad(weighed, 0, ms.ParameterTuple(weighed.layer.trainable_params()))
        value, (dx, of_weights) = gradients(ms.Tensor(x))
        dx = dx.asnumpy()
    found = [one.asnumpy() for one in of_weights]
    return float(value.asnumpy()), [dx.transpose(3, 0, 1, 2) if training else dx, *found]


KINDS = {  # shape of the weights, stride, groups
    "depthwise": ((5, 1, 3, 3), 1, 5),
    "depthwise, stride 2": ((5, 1, 3, 3), 2, 5),
    "first": ((4, 3, 3, 3), 2, 1),
    "first, stride 1": ((4, 3, 3, 3), 1, 1),
    "1x1": ((4, 6, 1, 1), 1, 1),
}


@needs_compiler
@pytest.mark.parametrize("size", [(8, 10), (9, 15)])
@pytest.mark.parametrize("pad_mode", ["pad", "same"])
@pytest.mark.parametrize(("kind", "relu6"), [*((kind, True) for kind in KINDS), ("1x1", False)])
def test_a_layer_is_the_convolution(kernels, kind, relu6, pad_mode, size):
    shape, stride, group = KINDS[kind]
    rng = np.random.default_rng(0)
    weight, bias = (rng.normal(0, 1, one).astype(np.float32) for one in (shape, shape[0]))
    channels, batch = shape[1] * group, 11  # a whole vector of pictures, and three
    layer = layer_of(Convolution(weight, bias, stride, group, relu6), size, pad_mode, kernels)
    x = rng.normal(1, 3, (batch, channels, *size)).astype(np.float32)  # on both sides of ReLU6
    factors = rng.normal(size=(batch, shape[0], *(-(-side // stride) for side in size))).astype(np.float32)
    weighed = Weighed(layer, factors)
    wanted, wanted_gradients = value_and_gradients(weighed, x, training=False)
    found, gradients = value_and_gradients(weighed, x, training=True)
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-3)
    first = shape[1] == 3
    for a, b in zip(gradients[first:], wanted_gradients[first:]):  # there is none of the pictures
        assert np.abs(b).max() > 0.1 and np.allclose(a, b, atol=1e-3)


class Gradients(nn.Cell):
    """Of the weights of all layers, as a training compiles it."""

    def __init__(self, weighed: list[Weighed]):
        super().__init__(auto_prefix=False)
        self.weighed = nn.CellList(weighed)
        weights = [parameter for one in weighed for parameter in one.layer.trainable_params()]
        self.gradients = ms.value_and_grad(self.total, None, ms.ParameterTuple(weights))

    def total(self, *several):
        sums = 0
        for one, x in zip(self.weighed, several):
            sums = sums + one(x)
        return sums

    def construct(self, *several):
        return self.gradients(*several)


@needs_compiler
def test_layers_are_the_same_in_a_compiled_graph(kernels):
    rng, several, pictures = np.random.default_rng(0), [], []
    for shape, stride, group in KINDS.values():
        weight, bias = (rng.normal(0, 1, one).astype(np.float32) for one in (shape, shape[0]))
        layer = layer_of(Convolution(weight, bias, stride, group, True), (8, 8), "same", kernels)
        for i, parameter in enumerate(layer.trainable_params()):
            parameter.name = f"{len(several)}.{i}"
        several.append(Weighed(layer, rng.normal(size=(8, shape[0], 8 // stride, 8 // stride)).astype(np.float32)))
        pictures.append(rng.normal(1, 3, (8, shape[1] * group, 8, 8)).astype(np.float32))
    wanted = [value_and_gradients(one, x, training=True) for one, x in zip(several, pictures)]
    turned = [ms.Tensor(np.ascontiguousarray(x.transpose(1, 2, 3, 0))) for x in pictures]
    value, gradients = Gradients(several).set_train()(*turned)
    assert float(value.asnumpy()) == pytest.approx(sum(one for one, _ in wanted), rel=1e-4, abs=1e-3)
    flat = [one for _, of_one in wanted for one in of_one[1:]]
    assert len(flat) == len(gradients) == 2 * len(KINDS)
    assert all(np.allclose(a.asnumpy(), b, atol=1e-3) for a, b in zip(gradients, flat))


@needs_compiler
def test_kernels_are_built_once_in_a_folder_of_their_users_alone(monkeypatch):
    found = library()
    monkeypatch.setattr(compiled.subprocess, "run", None)
    assert library() == found and list(found.parent.iterdir()) == [found]
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700


@pytest.fixture
def nothing_built(monkeypatch):
    """No library of this process yet."""
    monkeypatch.delenv("CXX", raising=False)
    library.cache_clear()
    yield monkeypatch
    library.cache_clear()


@pytest.mark.parametrize(("compiler", "said"), [(None, "install g++"), ("no such program", "no such program")])
def test_without_a_compiler_layers_are_mindspores(nothing_built, caplog, compiler, said):
    nothing_built.setattr(compiled.shutil, "which", lambda name: compiler)
    with caplog.at_level(logging.INFO, logger="finetune"):
        assert load_kernels() is None
    (line,) = caplog.messages
    assert "MindSpore's own" in line and said in line


SAYS = "#!/bin/sh\nprintf '\\261\\340: it cannot\\nbe' >&2; exit 1\n"  # not UTF-8
SAYS_NOTHING = "#!/bin/sh\nexit 3\n"
MAKES_NO_LIBRARY = '#!/bin/sh\nfor last; do :; done; echo "text" > "$last"\n'


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are for Linux")
@pytest.mark.parametrize(
    ("script", "said"), [(SAYS, ": it cannot"), (SAYS_NOTHING, "cxx: 3"), (MAKES_NO_LIBRARY, "kernels.so")]
)
def test_a_compiler_that_fails_stops_nothing(nothing_built, tmp_path, caplog, script, said):
    path = tmp_path / "cxx"
    path.write_text(script, encoding="utf-8")
    path.chmod(0o700)
    nothing_built.setenv("CXX", str(path))
    with caplog.at_level(logging.INFO, logger="finetune"):
        assert load_kernels() is None
    (line,) = caplog.messages
    assert line.startswith("layers: MindSpore's own") and said in line and "\n" not in line


def test_other_systems_have_none(nothing_built, caplog):
    nothing_built.setattr(compiled.sys, "platform", "darwin")
    with caplog.at_level(logging.INFO, logger="finetune"):
        assert load_kernels() is None
    assert "Linux" in caplog.text


@needs_compiler
@pytest.mark.parametrize("count", [8, 3])  # a whole vector, and less
def test_what_is_no_number_stays_none(kernels, count):
    x = np.array([[np.nan] + [1.0] * (count - 1)], np.float32)
    bias, top = ms.Tensor(np.zeros(1, np.float32)), ms.Tensor(np.array([6.0], np.float32))
    found = kernels.bias(ms.Tensor(x), bias, top).asnumpy()
    assert np.isnan(found[0, 0]) and (found[0, 1:] == 1).all()
