"""The network that begins at a cut: the same numbers as the whole one, and a training that can be stopped."""

import contextlib
import shutil
from dataclasses import replace
from functools import partial

import mindspore as ms
import numpy as np
import pytest
from conftest import TOY_RECORD, save_toy_backbone
from mindspore import nn

import finetune.training.tail
from datasets.image import normalise
from finetune.config import TailConfig, TrainConfig
from finetune.training.networks import Classifier, Head
from finetune.training.optimizers import AdamW
from finetune.training.tail import Tail, meetings, tail_of, tail_optimizer, tail_training
from finetune.training.trainer import Trainer
from finetune.training.unfinished import NAME, Unfinished
from pretrained.fold import FoldedMobileNetV2, fold, multiply_adds, unfold
from pretrained.mobilenet_v2 import MobileNetV2
from pretrained.weights import load_backbone

SETTINGS = TrainConfig(tail=TailConfig(epochs=4, batch_size=8, learning_rate=0.002, head_learning_rate=0.01))
CLASSES, D = 3, 1280
CUT, SIZE = 17, (2, 2)


def toy(place, pad_mode="pad", seed=0):
    path = save_toy_backbone(place / f"{pad_mode}{seed}.ckpt", seed, replace(TOY_RECORD, pad_mode=pad_mode))
    backbone = load_backbone(path)
    rng = np.random.default_rng(seed)
    for parameter in backbone.network.get_parameters():  # a BatchNorm that does something
        if parameter.name.endswith(("gamma", "moving_variance")):
            parameter.set_data(ms.Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
        if parameter.name.endswith(("beta", "moving_mean")):
            parameter.set_data(ms.Tensor(rng.normal(0, 0.3, parameter.shape).astype(np.float32)))
    return backbone


@contextlib.contextmanager
def nothing_compiled():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)


def network_of(backbone, cut, size, head=None):
    head = head or Head(backbone.feature_size, CLASSES)
    return Tail(fold(backbone.network)[cut:], size, backbone.record.pad_mode, head)


@pytest.mark.parametrize("pad_mode", ["pad", "same"])
@pytest.mark.parametrize("cut", [1, 14, 18])  # in front of block 1 stand 16 x 16 pixels: convolutions and products
def test_the_tail_behind_the_front_is_the_whole_network(tmp_path, pad_mode, cut):
    backbone, head = toy(tmp_path, pad_mode), Head(D, CLASSES)
    x = ms.Tensor(np.random.default_rng(0).normal(0, 1, (6, 3, 32, 32)).astype(np.float32))
    with nothing_compiled():
        wanted = Classifier(backbone.network, head)(x).asnumpy()
        middle = FoldedMobileNetV2(fold(backbone.network)[:cut], pad_mode, pooled=False)(x).asnumpy()
        tail = network_of(backbone, cut, middle.shape[2:], head)
        assert tail.convolved == {1: 2, 14: 0, 18: 0}[cut]
        assert np.allclose(tail(ms.Tensor(middle)).asnumpy(), wanted, atol=1e-5)
        assert np.allclose(tail(ms.Tensor(middle.astype(np.float16))).asnumpy(), wanted, atol=1e-2)


@pytest.mark.parametrize(("cut", "side"), [(13, 32), (15, 32), (15, 480)])  # of 480 pixels 15 x 15: convolutions
def test_the_tail_gives_the_head_what_stands_beside_the_last(tmp_path, cut, side):
    backbone = load_backbone(toy(tmp_path).path, beside_last=(14, 17))
    x = ms.Tensor(np.random.default_rng(0).normal(0, 1, (2, 3, side, side)).astype(np.float32))
    with nothing_compiled():
        head = Head(backbone.feature_size, CLASSES)
        wanted = Classifier(backbone.network, head)(x).asnumpy()
        middle = FoldedMobileNetV2(fold(backbone.network)[:cut], "pad", pooled=False)(x).asnumpy()
        beside = [number + 1 - cut for number in (14, 17)]
        tail = Tail(fold(backbone.network)[cut:], middle.shape[2:], "pad", head, beside)
        assert (tail.convolved > 0) == (side > 32) and min(beside) == (0 if cut == 15 else 2)
        assert np.allclose(tail(ms.Tensor(middle)).asnumpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(("side", "stride"), [(7, 1), (14, 2), (5, 2), (2, 2), (1, 2)])
@pytest.mark.parametrize("pad_mode", ["pad", "same"])
def test_the_nine_taps_meet_the_pixels_that_a_convolution_does(side, stride, pad_mode):
    rng = np.random.default_rng(side)
    x, kernel = rng.normal(size=(1, 1, side, side)), rng.normal(size=(1, 1, 3, 3))
    padding = {"pad_mode": "pad", "padding": 1} if pad_mode == "pad" else {"pad_mode": "same"}
    weight = ms.Tensor(kernel.astype(np.float32))
    wanted = nn.Conv2d(1, 1, 3, stride, weight_init=weight, **padding)(ms.Tensor(x.astype(np.float32))).asnumpy()
    matrix = np.tensordot(kernel.ravel(), meetings((side, side), stride, pad_mode), 1)
    assert np.allclose(x.ravel() @ matrix, wanted.ravel(), atol=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="the kernels are built with g++")
def test_products_with_kernels_behind_them_are_the_same(tmp_path, backbone):
    blocks = fold(backbone.network)[16:]
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (11, blocks[0].convolutions[0].weight.shape[1], 2, 3)).astype(np.float16)
    found = []
    for tail in (tail_of(backbone, 16, x.shape, Head(D, CLASSES)), network_of(backbone, 16, (2, 3))):
        tail.set_train()
        assert not tail.by_kernels  # no block on large maps
        with nothing_compiled():
            weights = ms.ParameterTuple(tail.trainable_params())
            value, gradients = ms.value_and_grad(lambda x, tail=tail: tail(x).square().sum(), None, weights)(
                ms.Tensor(x)
            )
            found.append((float(value.asnumpy()), [one.asnumpy() for one in gradients]))
    (value, gradients), (wanted, wanted_gradients) = found
    assert value == pytest.approx(wanted, rel=1e-4) and value > 0
    for a, b in zip(gradients, wanted_gradients):
        assert np.allclose(a, b, atol=1e-4 * max(1, np.abs(b).max()))


@pytest.mark.skipif(not shutil.which("g++"), reason="the kernels are built with g++")
@pytest.mark.parametrize("pad_mode", ["pad", "same"])
def test_the_gradient_of_the_whole_network_is_that_of_the_plain_one(tmp_path, pad_mode):
    backbone, rng = toy(tmp_path, pad_mode), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 64, 64, 3), np.uint8)
    tail = tail_of(backbone, 0, pixels.shape, Head(D, CLASSES))
    plain = nn.SequentialCell(FoldedMobileNetV2(fold(backbone.network), pad_mode), Head(D, CLASSES))
    assert tail.by_kernels and tail.convolved == 5  # in front of them stand 64, 32, 32, 16 and 16 pixels of a side
    factors = ms.Tensor(rng.normal(size=(6, CLASSES)).astype(np.float32))
    normalised = normalise(pixels, backbone.record.image)
    found = []
    for network, parts, x in ((tail, (tail.blocks, tail.head), pixels), (plain, plain, normalised)):
        network.set_train()

        def weighed(x, network=network):
            return (network(x) * factors).sum()

        with nothing_compiled():
            weights = [parameter for part in parts for parameter in part.trainable_params()]
            of_weights = ms.value_and_grad(weighed, None, ms.ParameterTuple(weights))
            value, gradients = of_weights(ms.Tensor(x))
            found.append((float(value.asnumpy()), [one.asnumpy() for one in gradients]))
    (value, gradients), (wanted, wanted_gradients) = found
    assert value == pytest.approx(wanted, rel=1e-4) and len(gradients) == len(wanted_gradients) == 2 * 52 + 2
    for a, b in zip(gradients, wanted_gradients):
        assert np.abs(b).max() > 0 and np.abs(a.reshape(b.shape) - b).max() < 0.001 * np.abs(b).max()
    tail.set_train(False)
    with nothing_compiled():
        wanted = Classifier(backbone.network, plain[1])(ms.Tensor(normalised)).asnumpy()
        assert np.allclose(tail(ms.Tensor(pixels)).asnumpy(), wanted, atol=1e-5)


def trainer_of(backbone):
    """From block 17 on, on maps of three kinds of noise, two views of each."""
    y = (np.arange(20) % CLASSES).astype(np.int32)
    channels = fold(backbone.network)[CUT].convolutions[0].weight.shape[1]
    x = np.random.default_rng(0).normal(0, 1, (40, channels, *SIZE)) + 0.5 * np.tile(y, 2)[:, None, None, None]
    x = x.astype(np.float16)
    make = partial(tail_optimizer, tail=SETTINGS.tail)
    rows = (x, y), (x[:5], y[:5])
    return Trainer(network_of(backbone, CUT, SIZE), *rows, tail_training(SETTINGS), CLASSES, 1, make)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("tail"))


@pytest.fixture(scope="module")
def trainer(backbone):
    """Each `fit` begins at the same weights, and compiling takes longer than all of them."""
    return trainer_of(backbone)


def fit(trainer, unfinished=None, on_epoch=lambda line: None) -> list[bytes]:
    trainer.fit(on_epoch=on_epoch, unfinished=unfinished)
    return [parameter.asnumpy().tobytes() for parameter in trainer.network.get_parameters()]


def test_one_seed_gives_the_same_bytes(trainer):
    first, second = fit(trainer), fit(trainer)
    trainer.seed = 2
    other = fit(trainer)
    trainer.seed = 1
    assert first == second != other


def test_training_by_products_is_training_by_convolutions(backbone, trainer, monkeypatch):
    monkeypatch.setattr(finetune.training.tail, "LARGEST_SIDE", 0)
    by_convolutions = trainer_of(backbone)
    fit(trainer)
    fit(by_convolutions)
    products, convolutions = trainer.network, by_convolutions.network
    assert (products.convolved, convolutions.convolved) == (0, 2)
    for one, other, before in zip(products.trained(), convolutions.trained(), fold(backbone.network)[CUT:]):
        for a, b, c in zip(one.convolutions, other.convolutions, before.convolutions):
            moved = np.abs(a.weight - c.weight).max()
            assert moved > 0.001 and np.abs(a.weight - b.weight).max() < 0.1 * moved


def test_the_backbone_gets_the_trained_blocks_and_keeps_the_others(tmp_path, trainer):
    backbone = toy(tmp_path)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in backbone.network.get_parameters()}
    fit(trainer)
    unfold(backbone.network, trainer.network.trained(), CUT)
    x = ms.Tensor(np.random.default_rng(0).normal(0, 1, (6, 3, 64, 64)).astype(np.float32))
    with nothing_compiled():
        whole = Classifier(backbone.network, trainer.network.head)(x).asnumpy()
        for block in list(backbone.network.features)[:CUT]:
            x = block(x)
        assert np.allclose(trainer.network(x).asnumpy(), whole, atol=1e-5)
    after = {parameter.name: parameter.asnumpy() for parameter in backbone.network.get_parameters()}
    changed = {name.split(".")[1] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"17", "18"}
    assert all((values == 1).all() for name, values in after.items() if "features.18" in name and "gamma" in name)


class Stopped(Exception):
    pass


def stop_in(epoch):
    def on_epoch(line):
        if line.startswith(f"epoch[{epoch}/"):
            raise Stopped

    return on_epoch


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stopped_training_goes_on_and_ends_with_the_same_bytes(tmp_path, trainer, epoch):
    wanted, said = fit(trainer), []
    with pytest.raises(Stopped):  # in this epoch, before it is written
        fit(trainer, Unfinished(tmp_path / "one"), stop_in(epoch))
    again = Unfinished(tmp_path / "one-2")
    assert fit(trainer, again, said.append) == wanted
    assert len([line for line in said if line.startswith("going on after epoch")]) == (epoch > 1)
    assert len([line for line in said if line.startswith("epoch[")]) == 5 - epoch
    again.remove()
    assert not list(tmp_path.glob(f"*/{NAME.as_posix()}"))


def test_only_the_same_training_is_gone_on_with_and_only_from_a_whole_file(tmp_path, trainer):
    rows = np.arange(20)
    unfinished = Unfinished(tmp_path / "one")
    fit(trainer, unfinished)
    digest = trainer.digest(rows)
    found = Unfinished(tmp_path / "two").find(digest)
    assert found.epoch == 4 and len(found.history) == 4
    others = [trainer.digest(rows[:-1])]
    changes = {"seed": 2, "batch_size": 4, "config": replace(trainer.config, label_smoothing=0.2), "y": 2 - trainer.y,
               "device_x": trainer.device_x + 1, "start": trainer.start[:-1]}  # fmt: skip
    for name, other in changes.items():
        kept = getattr(trainer, name)
        setattr(trainer, name, other)
        others.append(trainer.digest(rows))
        setattr(trainer, name, kept)
    assert len({digest, *others}) == 8 and trainer.digest(rows) == digest
    assert Unfinished(tmp_path / "two").find(others[0]) is None
    for damage in (lambda content: content[: len(content) // 2], lambda content: b"", flip):
        content = unfinished.file.read_bytes()
        unfinished.file.write_bytes(damage(content))
        assert Unfinished(tmp_path / "two").find(digest) is None
        unfinished.file.write_bytes(content)
    assert Unfinished(tmp_path / "two").find(digest).epoch == 4


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_adamw_is_the_formula():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    parameters = [ms.Parameter(ms.Tensor(weight), name="w"), ms.Parameter(ms.Tensor(bias), name="b")]
    rates = np.array([0.1, 0.05, 0.02], np.float32)
    optimizer = AdamW(parameters, [1.0, 5.0], 0.3, rates)
    wanted, mean, square = [weight.astype(float), bias.astype(float)], [0, 0], [0, 0]
    for step, rate in enumerate(rates, 1):
        gradients = [rng.normal(size=one.shape).astype(np.float32) for one in wanted]
        optimizer(tuple(map(ms.Tensor, gradients)))
        for i, (gradient, factor, decay) in enumerate(zip(gradients, (1, 5), (0.3, 0))):
            mean[i] = 0.9 * mean[i] + 0.1 * gradient
            square[i] = 0.999 * square[i] + 0.001 * gradient**2
            direction = mean[i] / (1 - 0.9**step) / (np.sqrt(square[i] / (1 - 0.999**step)) + 1e-8)
            wanted[i] = wanted[i] - rate * factor * (direction + decay * wanted[i])
    for parameter, values in zip(parameters, wanted):
        assert np.allclose(parameter.asnumpy(), values, atol=1e-4)


def test_the_head_learns_faster_and_weights_alone_decay(trainer):
    optimizer = trainer.phases[0].train_steps.step.optimizer
    by_name = dict(zip((p.name for p in optimizer.parameters), zip(optimizer.factors, optimizer.decays)))
    assert by_name["dense.weight"] == (5, 0.01) and by_name["dense.bias"] == (5, 0)
    blocks = [pair for name, pair in by_name.items() if not name.startswith("dense")]
    assert set(blocks) == {(1, 0.01), (1, 0)}


def test_multiply_adds_are_those_of_the_paper():
    """Sandler et al., 2018, table 4: 300 million for MobileNetV2 1.0 at 224, with the classifier's 1.3 million."""
    counts = multiply_adds(fold(MobileNetV2()), (224, 224))
    assert len(counts) == 19 and sum(counts) == pytest.approx(300e6, rel=0.01)
    assert sum(counts[15:]) / sum(counts) == pytest.approx(0.25, abs=0.01)  # what fine-tuning from block_15 trains
