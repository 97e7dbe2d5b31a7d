import mindspore as ms
import numpy as np
import pytest

from pretrained.mobilenet_v2 import MobileNetV2, round_channels

TOY = {"width": 0.1, "bn_eps": 1e-5}


def shapes(network) -> dict:
    return {p.name: tuple(p.shape) for p in network.get_parameters()}


def test_parameters_are_named_as_in_the_model_zoo():
    found = shapes(MobileNetV2())
    wanted = {
        "features.0.features.0.weight": (32, 3, 3, 3),
        "features.0.features.1.gamma": (32,),
        "features.0.features.1.moving_variance": (32,),
        "features.1.conv.0.features.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.beta": (16,),
        "features.2.conv.2.weight": (24, 96, 1, 1),
        "features.17.conv.3.moving_mean": (320,),
        "features.18.features.0.weight": (1280, 320, 1, 1),
    }
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("width, millions", [(1.0, 3.47), (1.4, 6.06), (0.75, 2.61), (0.5, 1.95), (0.35, 1.66)])
def test_parameter_counts_are_the_published_ones(width, millions):
    """Paper, table 4, and the README of TensorFlow's model zoo; both with the 1,001-class head."""
    network = MobileNetV2(width)
    trained = sum(p.size for p in network.get_parameters() if "moving" not in p.name)
    assert (trained + 1001 * (network.feature_size + 1)) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("channels, rounded", [(32, 32), (11.2, 16), (8.4, 8), (5.6, 8), (33.6, 32), (44.8, 48)])
def test_round_channels(channels, rounded):
    assert round_channels(channels) == rounded
    assert rounded % 8 == 0 and rounded >= 0.9 * channels


def test_features_are_the_map_averaged():
    network = MobileNetV2(pad_mode="pad", **TOY).set_train(False)
    x = ms.Tensor(np.random.default_rng(0).random((2, 3, 64, 96), dtype=np.float32))
    feature_map = network.forward_map(x).asnumpy()
    assert feature_map.shape == (2, network.feature_size, 2, 3)
    assert np.allclose(network(x).asnumpy(), feature_map.mean((2, 3)), atol=1e-6)


@pytest.fixture
def at_once():
    """Without compiling, which takes longer than all that is computed here."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=before)


def test_maps_beside_the_last_stand_in_front_of_it(at_once):
    plain = MobileNetV2(**TOY).set_train(False)
    more = MobileNetV2(**TOY, beside_last=(14, 17)).set_train(False)
    for parameter, given in zip(more.get_parameters(), plain.get_parameters()):
        parameter.set_data(given.value())
    x = ms.Tensor(np.random.default_rng(0).random((2, 3, 64, 96), dtype=np.float32))
    wanted = [x]
    for block in plain.features:
        wanted.append(block(wanted[-1]))
    wanted = np.concatenate([wanted[number + 1].asnumpy() for number in (14, 17, 18)], 1)
    found = more.forward_map(x).asnumpy()
    assert found.shape == (2, more.feature_size, 2, 3) and np.allclose(found, wanted, atol=1e-6)
    assert np.allclose(more(x).asnumpy(), wanted.mean((2, 3)), atol=1e-6)


def mirrored(x: np.ndarray) -> np.ndarray:
    return x[..., ::-1].copy()


def test_the_mirror_mean_is_of_the_picture_and_of_its_mirror_image(at_once):
    """On an odd side too, where padding as TensorFlow's is not symmetric."""
    network = MobileNetV2(pad_mode="same", **TOY).set_train(False)
    x = np.random.default_rng(0).random((3, 3, 64, 65), dtype=np.float32)
    plain, other = (network.forward_map(ms.Tensor(one)).asnumpy() for one in (x, mirrored(x)))
    network.mirror_mean = True
    assert np.allclose(network.forward_map(ms.Tensor(x)).asnumpy(), (plain + mirrored(other)) / 2, atol=1e-6)
    features = network(ms.Tensor(x)).asnumpy()
    assert np.allclose(features, (plain.mean((2, 3)) + other.mean((2, 3))) / 2, atol=1e-6)
    assert np.abs(features - plain.mean((2, 3))).max() > 1e-4 * np.abs(features).max()  # it is another answer
    assert np.allclose(features, network(ms.Tensor(mirrored(x))).asnumpy(), atol=1e-6)


def test_padding_is_symmetric_or_as_tensorflow():
    """At stride 2 on an even side, "same" pads nothing on the left, "pad" one pixel."""
    x = np.zeros((1, 3, 32, 32), np.float32)
    x[:, :, 0, 0] = 1
    for pad_mode, seen in (("pad", (1, 1)), ("same", (0, 0))):
        conv = MobileNetV2(pad_mode=pad_mode, **TOY).features[0].features[0]
        kernel = conv.weight.asnumpy()
        found = conv(ms.Tensor(x)).asnumpy()[0, :, 0, 0]
        assert np.allclose(found, kernel[:, :, seen[0], seen[1]].sum(1), atol=1e-6)
