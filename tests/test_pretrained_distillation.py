"""The fast form of the student is the network; a stopped distillation goes on to the same numbers."""

import shutil
import tarfile

import mindspore as ms
import numpy as np
import pytest
from conftest import RED_GREEN, draw_toys
from mindspore import nn

from pretrained.distillation import __main__ as distill
from pretrained.distillation import student, training, views
from pretrained.distillation.student import Kernels, Student, build_kernels, even_out, patches, settle_statistics
from pretrained.mobilenet_v2 import MobileNetV2
from pretrained.weights import read_ckpt

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="distillation builds its kernels with g++")


def pixels(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def as_input(batch: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1


@needs_compiler
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_kernel_is_the_convolution(tmp_path, stride):
    """Forward and both gradients, against MindSpore's own operator."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(16, 5, 8, 8)).astype(np.float32)
    weight = ms.Parameter(ms.Tensor(rng.normal(size=(5, 1, 3, 3)).astype(np.float32)))
    out = rng.normal(size=(16, 5, 8 // stride, 8 // stride)).astype(np.float32)
    conv = nn.Conv2d(5, 5, 3, stride, pad_mode="pad", padding=1, group=5)
    conv.weight.set_data(weight)
    kernel = Kernels(build_kernels(tmp_path)).depthwise[stride]

    def plain(x, w):
        return (ms.ops.conv2d(x, w, stride=stride, pad_mode="pad", padding=1, groups=5) * ms.Tensor(out)).sum()

    def fast(x, w):
        y = kernel(x.transpose(1, 2, 3, 0), w.reshape(5, 3, 3))
        return (y.transpose(3, 0, 1, 2) * ms.Tensor(out)).sum()

    inputs = (ms.Tensor(x), ms.Tensor(weight.asnumpy()))
    wanted, wanted_gradients = ms.value_and_grad(plain, (0, 1))(*inputs)
    found, found_gradients = ms.value_and_grad(fast, (0, 1))(*inputs)
    assert np.allclose(found.asnumpy(), wanted.asnumpy(), rtol=1e-4)
    for a, b in zip(found_gradients, wanted_gradients):
        assert np.allclose(a.asnumpy(), b.asnumpy(), atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("top", [0.0, 6.0])
def test_norm_kernel_is_batchnorm_with_relu6(tmp_path, top):
    rng = np.random.default_rng(2)
    x = rng.normal(1, 3, size=(32, 4, 3, 3)).astype(np.float32)
    gamma, beta = rng.normal(2, 1, 4).astype(np.float32), rng.normal(1, 1, 4).astype(np.float32)
    out = ms.Tensor(rng.normal(size=x.shape).astype(np.float32))
    norm = Kernels(build_kernels(tmp_path)).norm

    def plain(x, gamma, beta):
        mean = x.mean((0, 2, 3), keep_dims=True)
        variance = (x - mean).square().mean((0, 2, 3), keep_dims=True)
        y = (x - mean) / (variance + 1e-5).sqrt() * gamma.reshape(1, 4, 1, 1) + beta.reshape(1, 4, 1, 1)
        y = ms.ops.relu6(y) if top else y
        return (y * out).sum()

    def fast(x, gamma, beta):
        y, _, _ = norm(x.transpose(1, 2, 3, 0), gamma, beta, ms.Tensor(np.array([top], np.float32)))
        return (y.transpose(3, 0, 1, 2) * out).sum()

    inputs = tuple(map(ms.Tensor, (x, gamma, beta)))
    wanted, wanted_gradients = ms.value_and_grad(plain, (0, 1, 2))(*inputs)
    found, found_gradients = ms.value_and_grad(fast, (0, 1, 2))(*inputs)
    assert np.allclose(found.asnumpy(), wanted.asnumpy(), rtol=1e-3, atol=1e-3)
    for a, b in zip(found_gradients, wanted_gradients):
        assert np.allclose(a.asnumpy(), b.asnumpy(), rtol=1e-3, atol=1e-3)


@needs_compiler
def test_student_computes_what_the_network_computes_in_training(tmp_path):
    network = MobileNetV2(0.1, pad_mode="pad")
    training.initialise(network, seed=3)
    batch = pixels(32, 64)
    network.set_train(True)
    wanted = network(ms.Tensor(as_input(batch))).asnumpy()
    found = Student(network, Kernels(build_kernels(tmp_path)))(ms.Tensor(patches(batch))).asnumpy()
    assert np.allclose(found, wanted, atol=1e-3)


def test_settled_statistics_are_those_of_the_pictures():
    network = MobileNetV2(0.1, pad_mode="pad")
    training.initialise(network, seed=4)
    batch = as_input(pixels(24, 32))
    settle_statistics(network, [batch[:8], batch[8:16], batch[16:]])
    conv, norm = network.features[0].features[0], network.features[0].features[1]
    seen = [conv(ms.Tensor(part)).asnumpy() for part in (batch[:8], batch[8:16], batch[16:])]
    assert np.allclose(norm.moving_mean.asnumpy(), np.mean([s.mean((0, 2, 3)) for s in seen], 0), atol=1e-4)
    assert np.allclose(norm.moving_variance.asnumpy(), np.mean([s.var((0, 2, 3)) for s in seen], 0), rtol=2e-2)


def test_evened_features_spread_alike(monkeypatch):
    monkeypatch.setattr(student, "SPREAD", 0.05)  # far below ReLU6's ceiling
    network = MobileNetV2(0.1, pad_mode="pad")
    training.initialise(network, seed=6)
    batch = as_input(pixels(32, 64))
    settle_statistics(network, [batch])
    before = network(ms.Tensor(batch)).asnumpy()
    even_out(network, [batch[:16], batch[16:]])
    after = network(ms.Tensor(batch)).asnumpy()
    below = before.max(0) < 1.5  # so that none of the four places averaged was at the ceiling
    assert below.sum() > 50 and np.allclose(after.std(0)[below], 0.05, rtol=0.01)
    assert before.std(0)[below].max() > 1.2 * before.std(0)[below].min()


def test_half_of_the_batches_is_the_favoured_tar():
    chances = views.chances(["a"] * 30 + ["b"] * 10 + ["c"] * 20, "b")
    assert chances.sum() == pytest.approx(1) and chances[30:40].sum() == pytest.approx(0.5)


@pytest.mark.slow  # a minute and a half, and only who makes the embedded backbone anew runs it
@needs_compiler
def test_a_stopped_distillation_goes_on_from_the_same_numbers(tmp_path, monkeypatch):
    pictures = draw_toys(tmp_path / "pictures", {"": 20}, RED_GREEN)
    (tmp_path / "pool").mkdir()
    with tarfile.open(tmp_path / "pool" / "toys.tar", "w") as archive:
        archive.add(pictures, "toys")
    teacher = MobileNetV2(1.0, pad_mode="pad")
    rng = np.random.default_rng(5)
    head = [("dense.weight", rng.normal(size=(7, 1280))), ("dense.bias", rng.normal(size=7))]
    rows = [{"name": p.name, "data": p} for p in teacher.get_parameters()]
    rows += [{"name": name, "data": ms.Tensor(value.astype(np.float32))} for name, value in head]
    ms.save_checkpoint(rows, str(tmp_path / "teacher.ckpt"))
    inputs = ["--pool", tmp_path / "pool", "--teacher", tmp_path / "teacher.ckpt", "--cache_dir", tmp_path / "cache"]
    inputs = [*map(str, inputs), "--steps", "6", "--views", "2", "--mixed", "1", "--batch_size", "16", "--width", "0.1"]
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    monkeypatch.setattr(training, "SETTLE_BATCHES", 2)

    def save_and_stop_here(path, named, extra=None):
        """What lies there when a run is stopped behind its fourth step, kept while this one goes on."""
        save(path, named, extra)
        if extra == {"step": 4}:
            for name in ("stopped.training.ckpt", "as_stopped.ckpt"):
                shutil.copy(path, tmp_path / name)

    save = training.save
    with monkeypatch.context() as patch:
        patch.setattr(training, "save", save_and_stop_here)
        assert distill.main([*inputs, "--out", str(tmp_path / "whole.ckpt")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training.Batches, "make", lambda self, step: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            distill.main([*inputs, "--out", str(tmp_path / "stopped.ckpt")])
    assert not (tmp_path / "stopped.ckpt").exists()
    # The same state and the same batches: what is computed from them need not be the same to the last bit, because in a
    # fresh process MindSpore tries out numbers of threads.
    load_state, make, states, steps = training.load_state, training.Batches.make, [], []

    def load_and_look(path, into):
        step = load_state(path, into)
        states.append({name: parameter.asnumpy().copy() for name, parameter in into.items()})
        return step

    def make_and_note(self, step):
        steps.append(step)
        return make(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(training, "load_state", load_and_look)
        patch.setattr(training.Batches, "make", make_and_note)
        assert distill.main([*inputs, "--out", str(tmp_path / "stopped.ckpt"), "--resume"]) == 0
    assert steps == [4, 5]
    saved, (state,) = read_ckpt(tmp_path / "as_stopped.ckpt"), states
    assert {name.partition(".")[0] for name in state} >= {"moment1", "moment2", "beta1_power", "global_step"}
    assert saved.keys() - {"step"} == state.keys()
    assert all(np.array_equal(saved[name], state[name]) for name in state)
    whole, stopped = read_ckpt(tmp_path / "whole.ckpt"), read_ckpt(tmp_path / "stopped.ckpt")
    assert whole.keys() == stopped.keys() == {p.name for p in MobileNetV2(0.1).get_parameters()}

    going_on = ["--start_from", str(tmp_path / "whole.ckpt"), "--lr", "0", "--steps", "1"]
    assert distill.main([*inputs, *going_on, "--out", str(tmp_path / "on.ckpt")]) == 0
    going_on = read_ckpt(tmp_path / "on.ckpt")
    assert all(np.array_equal(whole[name], going_on[name]) for name in whole if whole[name].ndim == 4)
