from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
import yaml
from conftest import REAL_WEIGHTS, SHARED, TOY_RECORD, needs_real_data, save_toy_backbone

from datasets.base import InputError
from pretrained import weights
from pretrained.catalog import EMBEDDED, EMBEDDED_FILE, TENSORFLOW_1_0_224
from pretrained.files import facts_file
from pretrained.record import WeightsRecord
from pretrained.weights import load_backbone, read_ckpt


def rewrite(path, change):
    """Apply `change` to the {name: array} of a CKPT."""
    arrays = change(read_ckpt(path))
    path.unlink()
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()], str(path))
    path.chmod(0o644)


@pytest.fixture
def ckpt(tmp_path):
    return save_toy_backbone(tmp_path / "toy.ckpt")


def expect(path, *words):
    with pytest.raises(InputError) as caught:
        load_backbone(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_loads_every_parameter_and_freezes(ckpt):
    backbone = load_backbone(ckpt)
    arrays = read_ckpt(ckpt)
    for parameter in backbone.network.get_parameters():
        assert np.array_equal(parameter.asnumpy(), arrays[parameter.name])
    assert backbone.network.trainable_params() == []
    assert not any(cell.training for _, cell in backbone.network.cells_and_names())
    assert backbone.record == TOY_RECORD and "(toy.ckpt.yaml)" in backbone.facts_from


def test_batchnorm_is_in_inference(ckpt):
    network = load_backbone(ckpt).network
    x = np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32)
    together = network(ms.Tensor(x)).asnumpy()
    alone = network(ms.Tensor(x[:1])).asnumpy()
    assert np.allclose(together[0], alone[0], atol=1e-5)


def test_missing_unexpected_and_misshapen_are_all_listed(ckpt):
    def change(arrays):
        arrays["features.99.weight"] = arrays.pop("features.18.features.0.weight")
        arrays["features.0.features.1.gamma"] = np.ones(5, np.float32)
        return arrays

    rewrite(ckpt, change)
    expect(ckpt, "1 missing:\n    features.18.features.0.weight", "1 unexpected:\n    features.99.weight")
    expect(ckpt, "1 of another shape:\n    features.0.features.1.gamma: (5,) in the file, (8,) in the network")


def test_a_head_and_optimizer_state_are_left_out(ckpt):
    first = load_backbone(ckpt).digest
    extra = {"dense.weight": np.ones((2, 1280), np.float32), "moments.dense.weight": np.ones(3, np.float32)}
    rewrite(ckpt, lambda arrays: {**arrays, **extra, "learning_rate": np.float32(0.1).reshape(1)})
    assert load_backbone(ckpt).digest == first


def test_width_is_read_from_the_shapes(ckpt):
    facts_file(ckpt).unlink()
    backbone = load_backbone(ckpt)
    assert backbone.record.width == TOY_RECORD.width and "width 0.1 (shapes)" in backbone.facts_from


def test_a_stated_width_that_the_shapes_contradict(ckpt):
    stated = replace(TOY_RECORD, width=1.0).to_dict()
    facts_file(ckpt).write_text(yaml.safe_dump(stated), encoding="utf-8")
    expect(ckpt, "toy.ckpt.yaml states width 1.0, and the shapes in the file are those of 0.1")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a ckpt", None], ids=["empty", "other format", "cut short"])
def test_unreadable_files(ckpt, content):
    ckpt.write_bytes(ckpt.read_bytes()[:-1000] if content is None else content)
    expect(ckpt, "not readable as weights", "copy it again")


def test_not_a_number(ckpt):
    rewrite(ckpt, lambda arrays: {**arrays, "features.0.features.1.beta": np.full(8, np.nan, np.float32)})
    expect(ckpt, "NaN or infinite values in features.0.features.1.beta")


def test_no_such_file_lists_what_is_there(ckpt):
    expect(ckpt.with_name("other.ckpt"), "no such file", "There: toy.ckpt")


def test_names_are_looked_up_without_regard_to_case(ckpt):
    assert load_backbone(ckpt.with_name("TOY.ckpt")).path == ckpt


def test_chinese_path_with_spaces(tmp_path):
    assert load_backbone(save_toy_backbone(tmp_path / "权重 文件" / "网络.ckpt")).digest


def test_broken_facts_are_named(ckpt):
    facts_file(ckpt).write_text("width: 0.1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"toy\.ckpt\.yaml: not a record of weights"):
        load_backbone(ckpt)


def test_the_digest_follows_values_and_facts(tmp_path):
    same = [load_backbone(save_toy_backbone(tmp_path / name, seed=1)).digest for name in ("a.ckpt", "b.ckpt")]
    other_values = load_backbone(save_toy_backbone(tmp_path / "c.ckpt", seed=2)).digest
    other_facts = replace(TOY_RECORD, pad_mode="same")
    other_padding = load_backbone(save_toy_backbone(tmp_path / "d.ckpt", seed=1, record=other_facts)).digest
    assert same[0] == same[1]
    assert len({same[0], other_values, other_padding}) == 3


def test_what_features_are_of_is_a_fact_of_the_weights_that_can_be_asked_for(tmp_path):
    plain = save_toy_backbone(tmp_path / "plain.ckpt", seed=1)
    digests = [load_backbone(plain).digest]
    for facts in ({"mirror_mean": True}, {"beside_last": (14, 17)}, {"beside_last": (14,), "mirror_mean": True}):
        asked = load_backbone(plain, **facts)
        said = load_backbone(save_toy_backbone(tmp_path / "said.ckpt", seed=1, record=replace(TOY_RECORD, **facts)))
        assert asked.digest == said.digest and asked.record.to_dict() == said.record.to_dict()
        assert vars(asked.record) | facts == vars(said.record)
        assert (said.network.mirror_mean, said.network.beside_last) == (
            facts.get("mirror_mean", False),
            facts.get("beside_last", ()),
        )
        digests.append(said.digest)
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    "wrong", [{"mirror_mean": "left"}, {"beside_last": [3]}, {"beside_last": [17, 14]}, {"sha256": 123}]
)
def test_what_features_cannot_be_of_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WeightsRecord.from_dict({**TOY_RECORD.to_dict(), **wrong})


@needs_real_data
def test_the_imagenet_weights_are_in_the_catalog():
    backbone = load_backbone(REAL_WEIGHTS)
    assert backbone.record == TENSORFLOW_1_0_224
    assert "catalog" in backbone.facts_from


@needs_real_data
@pytest.mark.parametrize("name", ["Qishna__Task-01__LeNet5_19_step.ckpt", "ythlml__checkpoint_lenet-1_1875.ckpt"])
def test_other_peoples_lenet_is_refused(name):
    expect(SHARED / "pretrained" / "lenet_ckpt" / name, "not the weights of a MobileNetV2", "conv1.weight")


@needs_real_data
def test_imagenet_names_come_out_right():
    """The whole chain on real photographs: dogs are called dogs by the 1,001-class head in the file."""
    from datasets.image import batches, load_images

    backbone = load_backbone(REAL_WEIGHTS)
    head = read_ckpt(REAL_WEIGHTS)
    names = (SHARED / "pretrained" / "imagenet_labels_1001.txt").read_text(encoding="utf-8").splitlines()
    first, last = names.index("Chihuahua"), names.index("Mexican hairless")  # WordNet keeps dogs together
    photographs = sorted((SHARED / "data" / "cats_vs_dogs" / "eval" / "dog").iterdir())[:32]
    images, damaged = load_images(photographs, backbone.record.image)
    features = np.concatenate(
        [backbone.network(ms.Tensor(b)).asnumpy() for b in batches(images, backbone.record.image, 8)]
    )
    said = (features @ head["dense.weight"].T + head["dense.bias"]).argmax(1)
    assert not damaged
    assert np.mean((said >= first) & (said <= last)) >= 0.9


def test_the_embedded_backbone_is_the_committed_file():
    backbone = load_backbone(None)
    assert backbone.record == EMBEDDED and EMBEDDED_FILE.stat().st_size < 5_000_000
    image = np.random.default_rng(0).random((2, 3, 128, 128), np.float32) * 2 - 1
    features = backbone.network(ms.Tensor(image)).asnumpy()
    assert features.shape == (2, 1280) and np.abs(features[0] - features[1]).max() > 0.01


@pytest.mark.parametrize("damage", ["deleted", "cut short", "one byte changed"])
def test_a_damaged_embedded_backbone_is_not_used(tmp_path, monkeypatch, damage):
    copy = tmp_path / EMBEDDED_FILE.name
    whole = bytearray(EMBEDDED_FILE.read_bytes())
    if damage == "cut short":
        copy.write_bytes(whole[: len(whole) // 2])
    elif damage == "one byte changed":
        whole[len(whole) // 2] ^= 1
        copy.write_bytes(whole)
    monkeypatch.setattr(weights, "EMBEDDED_FILE", copy)
    with pytest.raises(InputError, match=f"git checkout -- pretrained/{copy.name}") as caught:
        load_backbone(None)
    assert str(copy) in str(caught.value) and ("missing" in str(caught.value)) == (damage == "deleted")
