"""The folded arrays and the ONNX of the backbone against MindSpore, by NumPy, ONNX's own reference and ONNX Runtime."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from conftest import TOY_RECORD, save_toy_backbone
from mindspore import nn
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession

from pretrained.fold import FoldedMobileNetV2, fold, fold_pair
from pretrained.mobilenet_v2 import MobileNetV2
from pretrained.to_onnx import OUTPUT, to_onnx
from pretrained.weights import load_backbone

SIDE = 33  # odd and even sides follow each other on the way down: 33, 17, 9, 5, 3, 2


@pytest.fixture(params=["pad", "same"])
def backbone(request, tmp_path):
    """A toy with BatchNorm statistics that are not 0 and 1."""
    return load_backbone(save_toy_backbone(tmp_path / "toy.ckpt", record=replace(TOY_RECORD, pad_mode=request.param)))


def scramble_batchnorm(network: nn.Cell) -> None:
    rng = np.random.default_rng(3)
    for parameter in network.get_parameters():
        if parameter.name.endswith(("gamma", "moving_variance")):
            parameter.set_data(ms.Tensor(rng.uniform(0.8, 1.25, parameter.shape).astype(np.float32)))
        if parameter.name.endswith(("beta", "moving_mean")):
            parameter.set_data(ms.Tensor(rng.normal(0, 0.2, parameter.shape).astype(np.float32)))


def test_a_folded_pair_is_convolution_then_batchnorm():
    conv = nn.Conv2d(3, 5, 3, stride=2, pad_mode="pad", padding=1)
    norm = nn.BatchNorm2d(5, eps=1e-3).set_train(False)
    scramble_batchnorm(norm)
    folded = fold_pair(conv, norm, relu6=True)
    plain = nn.Conv2d(3, 5, 3, stride=2, pad_mode="pad", padding=1, has_bias=True,
                      weight_init=ms.Tensor(folded.weight), bias_init=ms.Tensor(folded.bias))  # fmt: skip
    x = ms.Tensor(np.random.default_rng(0).normal(0, 1, (2, 3, 9, 9)).astype(np.float32))
    assert np.allclose(plain(x).asnumpy(), norm(conv(x)).asnumpy(), atol=1e-5)
    assert (folded.stride, folded.group, folded.relu6) == (2, 1, True)


def test_the_fold_has_every_convolution_and_residual():
    blocks = fold(MobileNetV2())
    assert sum(len(block.convolutions) for block in blocks) == 52
    assert sum(block.residual for block in blocks) == 10
    assert blocks[-1].convolutions[-1].bias.shape == (1280,)


@pytest.mark.parametrize(("mirror_mean", "beside_last"), [(False, ()), (True, ()), (True, (15, 17))])
def test_the_folded_network_gives_the_same_features(backbone, mirror_mean, beside_last):
    backbone = load_backbone(backbone.path, mirror_mean, beside_last)
    scramble_batchnorm(backbone.network)
    x = ms.Tensor(np.random.default_rng(1).uniform(-1, 1, (2, 3, SIDE, SIDE)).astype(np.float32))
    folded = FoldedMobileNetV2(fold(backbone.network), backbone.record.pad_mode, True, mirror_mean, beside_last)
    found = folded(x).asnumpy()
    wanted = backbone.network(x).asnumpy()
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_onnx_gives_mindspores_features(backbone):
    scramble_batchnorm(backbone.network)
    x = np.random.default_rng(1).uniform(-1, 1, (3, 3, SIDE, SIDE)).astype(np.float32)
    model = to_onnx(backbone.network, (SIDE, SIDE), backbone.record.pad_mode)
    wanted = backbone.network(ms.Tensor(x)).asnumpy()
    for batch_size in (1, 3):
        (found,) = ReferenceEvaluator(model).run([OUTPUT], {"x": x[:batch_size]})
        assert found.shape == (batch_size, backbone.feature_size)
        assert np.abs(found - wanted[:batch_size]).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(("mirror_mean", "beside_last"), [(True, ()), (False, (14, 17)), (True, (16,))])
def test_onnx_has_what_features_are_of_for_any_number_of_pictures(backbone, mirror_mean, beside_last):
    backbone = load_backbone(backbone.path, mirror_mean, beside_last)
    scramble_batchnorm(backbone.network)
    session = InferenceSession(
        to_onnx(backbone.network, (SIDE, SIDE + 1), backbone.record.pad_mode).SerializeToString()
    )
    x = np.random.default_rng(1).uniform(-1, 1, (3, 3, SIDE, SIDE + 1)).astype(np.float32)
    wanted = backbone.network(ms.Tensor(x)).asnumpy()
    for batch_size in (1, 3):
        (found,) = session.run([OUTPUT], {"x": x[:batch_size]})
        assert found.shape == (batch_size, backbone.feature_size)
        assert np.abs(found - wanted[:batch_size]).max() <= 1e-4 * np.abs(wanted).max()
    front, plain = to_onnx(backbone.network, (SIDE, SIDE), "pad", cut=3), MobileNetV2(backbone.record.width)
    assert len(front.graph.node) == len(to_onnx(plain, (SIDE, SIDE), "pad", cut=3).graph.node)  # of the picture alone


def test_the_two_paddings_give_different_features(tmp_path):
    """Else the comparison above could not tell them apart."""
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    found = []
    for pad_mode in ("pad", "same"):
        path = save_toy_backbone(tmp_path / f"{pad_mode}.ckpt", record=replace(TOY_RECORD, pad_mode=pad_mode))
        model = to_onnx(load_backbone(path).network, (32, 32), pad_mode)
        found += ReferenceEvaluator(model).run([OUTPUT], {"x": x})
    assert np.abs(found[0] - found[1]).max() > 0.01 * np.abs(found[0]).max()
