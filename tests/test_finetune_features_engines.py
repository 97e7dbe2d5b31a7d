"""Engines against MindSpore, the choice between them, and what happens when they disagree."""

import importlib.util
import multiprocessing
import subprocess
import sys
import threading
from dataclasses import replace

import mindspore as ms
import numpy as np
import openvino
import pytest
from conftest import CHECKOUT, REAL_WEIGHTS, SHARED, TOY_RECORD, call, needs_real_data, save_toy_backbone
from openvino import opset13 as opset

from datasets.base import InputError
from datasets.decoding.decode import whole
from datasets.drawn.sample import draw_picture
from datasets.image import fitted, load_images
from finetune import device
from finetune.config import Config, load_config
from finetune.device import init_device
from finetune.features.engines.choose import ComparedEngine, choose_engine, choose_name, largest_distance
from finetune.features.engines.mindspore import MindSporeEngine
from finetune.features.engines.mindspore_processes import MindSporeProcesses
from finetune.features.engines.openvino import OpenVinoEngine, check_precision, onnx_of, with_scaling
from finetune.features.engines.openvino_bf16 import (
    constant,
    drawn_pictures,
    find_convolutions,
    inputs_of_convolutions,
    nearest,
    offset,
    round_to_bf16,
    round_together,
)
from pretrained.fold import FoldedMobileNetV2, fold
from pretrained.weights import load_backbone, read_ckpt

with device.without_kernel_guard():  # OpenVINO reads it once
    HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bf16")


def toy(place, pad_mode="pad", mean=(0.5, 0.5, 0.5)):
    image = replace(TOY_RECORD.image, mean_unit=mean, std_unit=(0.2, 0.3, 0.25))
    return load_backbone(
        save_toy_backbone(place / "toy.ckpt", record=replace(TOY_RECORD, pad_mode=pad_mode, image=image))
    )


def noise(count, side=32):
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("pad_mode", ["pad", "same"])
@pytest.mark.parametrize("count", [1, 8])
def test_openvino_gives_mindspores_features(tmp_path, pad_mode, count):
    backbone = toy(tmp_path, pad_mode, mean=(0.3, 0.5, 0.6))
    images = noise(count)
    found, wanted = OpenVinoEngine(backbone, "f32", threads=2)(images), MindSporeEngine(backbone)(images)
    assert found.shape == wanted.shape == (count, backbone.feature_size) and found.dtype == np.float32
    assert cosines(found, wanted).min() >= 0.99999
    assert largest_distance(found, wanted) <= 1e-4


@pytest.fixture(params=["pad", "same"])
def looks(request, tmp_path):
    """(a backbone, the same that looks at the mirror image as well, of pictures its features, by the first)."""
    path, images = toy(tmp_path, request.param).path, noise(5)
    plain, both = (load_backbone(path, mirror_mean, beside_last=(14, 17)) for mirror_mean in (False, True))
    once = MindSporeEngine(plain).once
    wanted = (once(images) + once(images[:, :, ::-1])) / 2
    assert wanted.shape[1] == load_backbone(path).feature_size + 16 + 32  # channels of block_14 and block_17
    assert largest_distance(once(images), wanted) > 1e-3
    return both, images, wanted


@pytest.mark.parametrize(
    "make",
    [MindSporeEngine, lambda b: MindSporeProcesses(b, threads=2), lambda b: OpenVinoEngine(b, "f32", 2)],
    ids=["ms", "processes", "ov"],
)
def test_each_engine_gives_the_mean_with_the_mirror_image_and_what_is_beside_the_last(looks, make):
    both, images, wanted = looks
    assert largest_distance(make(both)(images), wanted) <= 1e-4


def test_in_front_of_a_cut_there_is_the_picture_alone(looks):
    both, images, _ = looks
    plain = load_backbone(both.path)
    assert largest_distance(OpenVinoEngine(both, "f32", 2, 4)(images), MindSporeEngine(plain, 4).once(images)) <= 1e-4
    assert largest_distance(MindSporeEngine(both, 4).once(images), MindSporeEngine(plain, 4).once(images)) <= 1e-6


@pytest.mark.parametrize("pad_mode", ["pad", "same"])
def test_engines_agree_in_front_of_a_cut_and_the_rest_leads_on_to_the_features(tmp_path, pad_mode):
    backbone, images = toy(tmp_path, pad_mode, mean=(0.3, 0.5, 0.6)), noise(2)
    found = OpenVinoEngine(backbone, "f32", 2, cut=4)(images)
    reference = MindSporeEngine(backbone, cut=4)
    assert found.shape == (2, fold(backbone.network)[4].convolutions[0].weight.shape[1], 8, 8)
    assert largest_distance(found, reference(images)) <= 1e-4
    assert largest_distance(found, reference.once(images)) <= 1e-4
    rest = FoldedMobileNetV2(fold(backbone.network)[4:], pad_mode)(ms.Tensor(found)).asnumpy()
    assert largest_distance(rest, MindSporeEngine(backbone).once(images)) <= 1e-4


def test_a_row_does_not_depend_on_its_batch(tmp_path):
    engine = OpenVinoEngine(toy(tmp_path), "f32", threads=2)
    images = noise(8)
    together = engine(images)
    assert np.array_equal(np.concatenate([engine(images[i : i + 1]) for i in range(8)]), together)


@pytest.mark.parametrize(
    "make", [lambda b: MindSporeEngine(b), lambda b: OpenVinoEngine(b, "f32", 2)], ids=["ms", "ov"]
)
def test_engines_can_be_called_from_many_threads_at_once(tmp_path, make):
    engine = make(toy(tmp_path))
    batches = [noise(5 + i)[:8] for i in range(4)]
    wanted = [engine(batch) for batch in batches]
    found = [None] * 12

    def work(i):
        found[i] = engine(batches[i % 4])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(found[i], wanted[i % 4]) for i in range(12))


def test_processes_give_the_same_features(tmp_path):
    backbone = toy(tmp_path, "same")
    engine = MindSporeProcesses(backbone, threads=2, cut=14)
    images = noise(5)
    assert largest_distance(engine(images), MindSporeEngine(backbone, cut=14)(images)) <= 1e-5


def test_a_process_that_has_ended_is_an_error_and_not_a_wait(tmp_path):
    before = set(multiprocessing.active_children())
    engine = MindSporeProcesses(toy(tmp_path), threads=1)
    engine(noise(1))
    (process,) = set(multiprocessing.active_children()) - before
    process.kill()
    with pytest.raises(OSError, match="has ended"):
        engine(noise(1))


def test_once_is_the_same_without_a_graph(tmp_path):
    engine = MindSporeEngine(toy(tmp_path))
    images = noise(3)
    assert largest_distance(engine(images), engine.once(images)) <= 1e-4


CHOICES = [
    ("CPU", "auto", True, "openvino"),
    ("CPU", "auto", False, "mindspore"),
    ("CPU", "mindspore", True, "mindspore"),
    ("CPU", "openvino", True, "openvino"),
    ("GPU", "auto", True, "mindspore"),
    ("Ascend", "auto", True, "mindspore"),
]


@pytest.fixture
def installed(monkeypatch):
    def set_installed(yes: bool):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if yes else None)

    return set_installed


@pytest.mark.parametrize("platform, engine, yes, chosen", CHOICES)
def test_the_table_of_engines(installed, platform, engine, yes, chosen):
    installed(yes)
    assert choose_name(platform, engine, "f32") == chosen


@pytest.mark.parametrize(
    "platform, engine, precision, yes, words",
    [
        ("GPU", "openvino", "f32", True, "not on GPU. Use --engine auto"),
        ("CPU", "openvino", "f32", False, "not installed. Use --engine mindspore, or: pip install"),
        ("CPU", "mindspore", "bf16", True, "Use --precision f32"),
        ("GPU", "auto", "bf16", True, "Use --precision f32"),
    ],
)
def test_what_cannot_be_had_has_a_remedy(installed, platform, engine, precision, yes, words):
    installed(yes)
    with pytest.raises(InputError) as caught:
        choose_name(platform, engine, precision)
    assert words in str(caught.value)


def test_bf16_where_the_processor_lacks_it():
    with pytest.raises(InputError, match=r"this processor does not have it.*Use --precision f32"):
        check_precision("bf16", ["FP32", "INT8"])


class Drifting:
    """An engine that is wrong by `factor`."""

    def __init__(self, truth, factor):
        self.truth, self.factor, self.calls = truth, factor, 0

    def __call__(self, images):
        self.calls += 1
        return self.truth(images) * np.float32(self.factor)


def test_an_engine_that_disagrees_is_replaced_and_said_so(tmp_path, caplog):
    reference = MindSporeEngine(toy(tmp_path))
    drifting = Drifting(reference, 1.01)
    engine = ComparedEngine("openvino", "f32", lambda: drifting, reference)
    images = noise(8)
    assert np.array_equal(engine(images), reference(images))
    assert drifting.calls == 1 and engine.name == "mindspore"
    assert "engine: mindspore; openvino differs from mindspore by 1.0e-02" in caplog.text


@pytest.mark.parametrize("factor", [1.0, np.nan])
def test_an_engine_that_agrees_is_used_and_nan_is_no_agreement(tmp_path, factor):
    reference = MindSporeEngine(toy(tmp_path))
    other = Drifting(reference, factor)
    engine = ComparedEngine("openvino", "f32", lambda: other, reference)
    images = noise(4)
    assert np.array_equal(engine(images), reference(images))
    assert (engine.chosen is other) == (factor == 1.0)


def test_an_engine_that_does_not_start_is_replaced(tmp_path, caplog):
    def make():
        raise RuntimeError("no such plugin")

    reference = MindSporeEngine(toy(tmp_path))
    engine = ComparedEngine("openvino", "f32", make, reference)
    assert np.array_equal(engine(noise(2)), reference(noise(2)))
    assert "openvino cannot be used here: no such plugin" in caplog.text


def test_a_disagreeing_bf16_engine_never_writes_f32_rows_under_its_name(tmp_path):
    reference = MindSporeEngine(toy(tmp_path))
    engine = ComparedEngine("openvino", "bf16", lambda: Drifting(reference, 1.5), reference)
    with pytest.raises(InputError, match="Use --precision f32"):
        engine(noise(2))


def test_rows_of_bf16_are_never_taken_for_others(tmp_path):
    reference = MindSporeEngine(toy(tmp_path))
    classes = {ComparedEngine("openvino", p, None, reference).numeric_class for p in ("f32", "bf16")}
    assert len(classes) == 2 and "bf16" not in classes  # which was the name of rows with weights rounded to the nearest


def test_the_nearest_bf16_number():
    x = np.float32([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8 - 2**-20, 0, 255, 257])
    assert nearest(x).tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -1 - 2**-7, 0, 255, 256]


@pytest.mark.parametrize("groups,outputs,n", [(5, 1, 9), (1, 8, 27)])
def test_weights_of_inputs_that_are_alike_are_rounded_together(groups, outputs, n):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (groups, 500, 1)) + 0.1 * rng.normal(0, 1, (groups, 500, n))
    weights = rng.normal(0, 1, (groups, outputs, n)).astype(np.float32)
    rounded = round_together(weights, np.stack([np.cov(one.T) for one in x]))

    def error(changed):
        return np.linalg.norm(x @ (changed - weights).transpose(0, 2, 1))

    assert np.array_equal(rounded, nearest(rounded)) and np.abs(rounded - weights).max() < 0.05
    assert error(rounded) < error(nearest(weights)) / 1.8


@pytest.mark.parametrize("pad_mode", ["pad", "same"])
def test_a_network_with_rounded_weights_gives_nearly_the_same(tmp_path, pad_mode):
    """In f32, so that rounding the weights is all that happens. The toy has all kinds of convolutions there are."""
    backbone, core = toy(tmp_path, pad_mode), openvino.Core()
    images = drawn(backbone)
    models = [with_scaling(core.read_model(onnx_of(backbone)), backbone.record.image) for _ in range(2)]
    round_to_bf16(core, models[1], drawn_pictures(backbone.record.image))
    plain, rounded = (in_f32(core, model, images) for model in models)
    weights = [node.data for node in models[1].get_ops() if node.get_type_name() == "Constant" and node.data.ndim > 3]
    of_convolutions = [one for one in weights if one.shape[0] > 1]
    assert len(of_convolutions) == 52 and all(np.array_equal(one, nearest(one)) for one in of_convolutions)
    assert not np.array_equal(plain, rounded) and cosines(plain, rounded).min() >= 0.999


@pytest.mark.parametrize("pad_mode", ["pad", "same"])
def test_what_is_taken_away_before_a_convolution_is_made_up_for(tmp_path, pad_mode):
    """Also at the border, where the convolution looks at zeros from which nothing was taken."""
    backbone, core = toy(tmp_path, pad_mode), openvino.Core()
    plain, moved = (with_scaling(core.read_model(onnx_of(backbone)), backbone.record.image) for _ in range(2))
    convolution = next(one for one in find_convolutions(moved) if one.get_type_name() == "GroupConvolution")
    index = find_convolutions(moved).index(convolution)
    inputs = list(inputs_of_convolutions(core, moved, drawn(backbone)[:2]))
    stored = offset(convolution, inputs[index])
    assert np.array_equal(stored, list(inputs_of_convolutions(core, moved, drawn(backbone)[:2]))[index])
    assert np.square(nearest(stored) - stored).mean() < np.square(nearest(inputs[index]) - inputs[index]).mean()
    assert largest_distance(*(in_f32(core, model, drawn(backbone)) for model in (moved, plain))) < 1e-5


def in_f32(core, model, images):
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled([picture[np.newaxis]])[0] for picture in images])


def drawn(backbone):
    """Other pictures than those by which the weights are rounded."""
    return np.stack([fitted(whole(draw_picture("cat", 1, i)), backbone.record.image) for i in range(8)])


def test_rounded_weights_are_closer_than_the_nearest_ones():
    backbone, core = load_backbone(None), openvino.Core()
    models = [with_scaling(core.read_model(onnx_of(backbone)), backbone.record.image) for _ in range(3)]
    round_to_bf16(core, models[1], drawn_pictures(backbone.record.image))
    for convolution in find_convolutions(models[2]):
        (after,) = convolution.output(0).get_target_inputs()
        for node in (convolution, after.get_node()):
            node.input(1).replace_source_output(opset.constant(nearest(constant(node, 1))).output(0))
    plain, rounded, simply = (in_f32(core, model, drawn(backbone)) for model in models)
    assert largest_distance(rounded, plain) < largest_distance(simply, plain) / 4


@needs_bf16
def test_bf16_by_the_embedded_backbone():
    backbone = load_backbone(None)
    exact, found = (OpenVinoEngine(backbone, precision, threads=2)(drawn(backbone)) for precision in ("f32", "bf16"))
    assert cosines(exact, found).min() >= 0.9995 and not np.array_equal(exact, found)


def test_nothing_is_made_before_the_first_picture(tmp_path):
    made = []
    engine = ComparedEngine("openvino", "f32", lambda: made.append(1), MindSporeEngine(toy(tmp_path)))
    assert engine.numeric_class == "f32" and engine.batch_size > 0 and made == []


def test_a_run_with_everything_cached_does_not_import_openvino(finished, toy_pictures, toy_backbone):
    code = (
        "import sys; from finetune.__main__ import main\n"
        f"assert main({['features', '--dataset_path', str(toy_pictures), '--pretrain_ckpt', str(toy_backbone)]!r}"
        f" + ['--cache_dir', {str(finished.cache)!r}]) == 0\n"
        "assert not {'openvino', 'onnx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 computed" in done.stdout


def test_the_log_names_the_engine_and_the_difference(finished):
    assert "engine: openvino f32; differs from mindspore by" in finished.stdout


def test_the_flags_reach_the_engine(tmp_path, toy_pictures, toy_backbone):
    inputs = ["--dataset_path", toy_pictures, "--pretrain_ckpt", toy_backbone, "--cache_dir", tmp_path]
    done = call("finetune", "features", *inputs, "--engine", "mindspore", "--precision", "bf16")
    assert done.returncode == 2 and "--precision bf16: needs the engine openvino" in done.stderr
    done = call("finetune", "features", *inputs, "--engine", "tensorrt")
    assert done.returncode == 2 and "one of auto, openvino, mindspore" in done.stderr


def test_the_guard_is_off_for_others_and_back_after(monkeypatch):
    monkeypatch.setenv(device.GUARD_VARIABLE, device.GUARD_VALUE)
    with device.without_kernel_guard():
        assert device.GUARD_VARIABLE not in device.os.environ
    assert device.os.environ[device.GUARD_VARIABLE] == device.GUARD_VALUE


def test_another_value_of_the_user_stays(monkeypatch):
    monkeypatch.setenv(device.GUARD_VARIABLE, "AVX512_CORE")
    with device.without_kernel_guard():
        assert device.os.environ[device.GUARD_VARIABLE] == "AVX512_CORE"


@pytest.fixture(scope="module")
def photographs():
    """(backbone, uint8 pictures, MindSpore's features) of 32 real photographs."""
    backbone = load_backbone(REAL_WEIGHTS)
    paths = sorted((SHARED / "data" / "cats_vs_dogs" / "eval").rglob("*.jpg"))[::7][:32]
    images, damaged = load_images(paths, backbone.record.image)
    assert not damaged
    engine = MindSporeEngine(backbone)
    return backbone, images, np.concatenate([engine(images[i : i + 8]) for i in range(0, 32, 8)])


def imagenet_classes(features):
    """What the 1,001-class head in the same file says."""
    head = read_ckpt(REAL_WEIGHTS)
    return (features @ head["dense.weight"].T + head["dense.bias"]).argmax(1)


@needs_real_data
def test_f32_on_photographs(photographs):
    backbone, images, wanted = photographs
    engine = choose_engine(backbone, init_device("CPU"), Config())
    found = np.concatenate([engine(images[i : i + 8]) for i in range(0, 32, 8)])
    assert engine.chosen.name == "openvino"
    assert cosines(found, wanted).min() >= 0.99999
    assert np.array_equal(imagenet_classes(found), imagenet_classes(wanted))


@pytest.mark.slow
@needs_real_data
@needs_bf16
def test_bf16_on_photographs(photographs):
    backbone, images, wanted = photographs
    engine = choose_engine(backbone, init_device("CPU"), load_config(None, {"precision": "bf16"}))
    found = np.concatenate([engine(images[i : i + 8]) for i in range(0, 32, 8)])
    assert engine.precision == "bf16" and not np.array_equal(found, wanted)
    assert cosines(found, wanted).min() >= 0.998 and np.median(cosines(found, wanted)) >= 0.9995


def test_openvino_tells_no_statistics_server():
    code = (
        "import sys, finetune.features.engines.openvino, openvino.tools.ovc.telemetry_utils\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
