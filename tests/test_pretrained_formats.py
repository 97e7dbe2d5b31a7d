"""Weight files as five other frameworks wrote them, and files that mean harm."""

import json

import mindspore as ms
import numpy as np
import pytest
from conftest import SHARED, needs_real_data

from pretrained.weights import load_backbone

FOREIGN = SHARED / "pretrained" / "foreign"
FILES = {
    "torchvision/state_dict.pth": 1e-4,
    "torchvision/state_dict_legacy.pth": 1e-4,
    "torchvision/checkpoint_of_a_training.pth": 1e-4,
    "torchvision/half.safetensors": 1e-2,  # float16
    "timm/model.safetensors": 1e-4,
    "huggingface": 1e-4,  # a folder
    "huggingface_symmetric": 1e-4,
    "keras/whole_model.h5": 1e-4,
    "keras/whole_model.keras": 1e-4,
    "keras/model.weights.h5": 1e-4,
    "keras/transfer_learning_model.keras": 1e-4,
    "keras_real/dog_breeds_1.0_160.h5": 1e-4,
    "mindcv/mobilenet_v2_035.ckpt": 1e-4,
}


def distance(found, wanted):
    """The largest distance of two rows, in lengths of the wanted one."""
    return (np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max()


@needs_real_data
@pytest.mark.parametrize("name", FILES)
def test_features_are_those_of_the_framework_that_wrote_the_file(name):
    path = FOREIGN / name
    folder = path if path.is_dir() else path.parent
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    expected = np.load(folder / "expected.npz")
    backbone = load_backbone(path)
    record = backbone.record
    assert record.width == facts["width"] and record.bn_eps == facts["bn_eps"]
    assert record.pad_mode == ("pad" if facts["padding"].startswith("symmetric") else "same")
    assert np.allclose(record.image.mean_unit, facts["mean"]) and np.allclose(record.image.std_unit, facts["std"])
    found = backbone.network(ms.Tensor(expected["input"])).asnumpy()
    assert distance(found, expected["features"]) <= FILES[name]
    one = backbone.network(ms.Tensor(expected["input"][:1])).asnumpy()
    assert distance(one, expected["features"][:1]) <= FILES[name]
