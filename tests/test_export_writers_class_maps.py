"""The maps are exact, and the box is what the network sees."""

import io

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import TOY_SPEC
from PIL import Image

from datasets.image import ImageSpec, normalise, to_array
from export.writers.class_maps import seen_box, with_class_maps
from export.writers.onnx_file import onnx_model
from export.writers.onnx_pixels import take_pixels
from finetune.trained import Trained
from finetune.training.networks import Classifier, Head
from pretrained.weights import load_backbone


def trained(toy_backbone, hidden=0, **features):
    backbone = load_backbone(toy_backbone, **features)
    head = Head(backbone.feature_size, 3, hidden, seed=5)
    for parameter in head.get_parameters():  # larger than fresh ones, so that the answers differ
        noise = np.random.default_rng(1).normal(0, 0.5, parameter.shape)
        parameter.set_data(ms.Tensor(noise.astype(np.float32)))
    return Trained(Classifier(backbone.network, head), backbone, head, ("a", "b", "c"), TOY_SPEC)


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("features", [{}, {"mirror_mean": True}, {"mirror_mean": True, "beside_last": (14, 17)}])
@pytest.mark.parametrize("input_form", ["tensor", "image"])
def test_the_average_of_the_maps_is_the_answer(toy_backbone, input_form, features):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    spec = ImageSpec((64, 64), 72, TOY_SPEC.mean_unit, TOY_SPEC.std_unit)
    network = Trained(**{**vars(trained(toy_backbone, **features)), "image": spec})
    model = onnx_model(network, input_form)
    (wanted,) = run(model, images if input_form == "image" else normalise(images, spec))
    take_pixels(model, spec, input_form)
    assert with_class_maps(model)
    probabilities, maps = run(model, images)
    assert maps.shape == (5, 3, 2, 2)
    assert np.abs(probabilities - wanted).max() < 1e-5
    assert np.abs(softmax(maps.mean((2, 3))) - probabilities).max() < 1e-5
    assert maps.std((2, 3)).min() > 1e-3  # the places do differ


def test_with_the_mirror_mean_what_is_left_of_a_map_is_left_in_the_picture(toy_backbone):
    """The maps of a mirror image are those of the picture, mirrored; each is the mean of both ways to look."""
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 96, 3), dtype=np.uint8)
    spec, maps = ImageSpec((32, 96), (32, 96), TOY_SPEC.mean_unit, TOY_SPEC.std_unit), {}
    for mirror_mean in (False, True):
        network = Trained(**{**vars(trained(toy_backbone, mirror_mean=mirror_mean)), "image": spec})
        model = onnx_model(network, "image")
        assert with_class_maps(model)
        maps[mirror_mean] = [run(model, x)[1] for x in (images, images[:, :, ::-1].copy())]
    plain, of_mirror_images = maps[False]
    assert np.abs(maps[True][0] - (plain + of_mirror_images[..., ::-1]) / 2).max() < 1e-4
    assert np.abs(maps[True][1] - maps[True][0][..., ::-1]).max() < 1e-4


def test_behind_a_hidden_layer_there_is_no_map(toy_backbone):
    model = onnx_model(trained(toy_backbone, hidden=7), "image")
    before = model.SerializeToString()
    assert not with_class_maps(model)
    assert model.SerializeToString() == before


def test_another_network_has_no_map():
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", 4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Softmax", ["x"], ["y"])], "other", [x], [y])
    assert not with_class_maps(onnx.helper.make_model(graph))


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (2000, 40), (33, 900)])
@pytest.mark.parametrize("resize", [72, (72, 72), (80, 128)])
def test_the_box_is_what_the_network_sees(size, resize):
    """Each pixel says where it is: red its column, green its row."""
    spec = ImageSpec((64, 64), resize, (0.5,) * 3, (0.5,) * 3)
    width, height = size
    columns, rows = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    picture = np.stack([columns, rows, 0 * rows], 2).round().astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    seen = to_array(content.getvalue(), spec)[..., :2] / 255
    left, top, share_x, share_y = seen_box(width, height, spec)
    pixel = np.array([share_x, share_y]) / 64
    assert seen[32, 0] == pytest.approx([left + pixel[0] / 2, top + share_y / 2 + pixel[1] / 2], abs=0.02)
    assert seen[32, -1, 0] == pytest.approx(left + share_x - pixel[0] / 2, abs=0.02)
    assert seen[0, 32, 1] == pytest.approx(top + pixel[1] / 2, abs=0.02)
    assert seen[-1, 32, 1] == pytest.approx(top + share_y - pixel[1] / 2, abs=0.02)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (2000, 40), (33, 900)])
def test_the_box_of_a_letterbox_goes_beyond_the_picture(size):
    """Where the box says that the picture lies is what is no margin."""
    spec = ImageSpec((64, 64), (64, 64), (0.5,) * 3, (0.5,) * 3, letterbox=True)
    content = io.BytesIO()
    Image.new("RGB", size, (255, 0, 0)).save(content, "PNG")
    rows, columns = np.nonzero(to_array(content.getvalue(), spec)[..., 0] == 255)
    left, top, share_x, share_y = seen_box(*size, spec)
    assert min(left, top) <= 0 and max(share_x, share_y) >= 1
    edges = [round(-left / share_x * 64), round(-top / share_y * 64)]
    ends = [round((1 - left) / share_x * 64), round((1 - top) / share_y * 64)]
    assert edges == [columns.min(), rows.min()] and ends == [columns.max() + 1, rows.max() + 1]
