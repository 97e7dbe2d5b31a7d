"""How pictures reach the backbone and what features are of, from the command line to every exported file."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import TOY_RECORD, call, save_toy_backbone
from PIL import Image
from test_export_lite import lite_python  # noqa: F401  a fixture

from datasets.base import InputError
from datasets.image import ImageSpec, load_images
from export.predictors import load_predictor
from export.run_predictor import RunPredictor
from finetune.config import DataConfig, load_config
from finetune.inputs import image_in_short, load_inputs, prepared
from finetune.run_folder import MOBILENETV2, ckpt_path
from finetune.trained import load_trained
from pretrained.weights import load_backbone

SETTINGS = {
    "data.size": 64,
    "data.fit": "letterbox",
    "data.mirror_mean": "true",
    "model.features": "block_15,block_17,last",
    "train.head": "ridge",
    "data.views": "false",
    "train.epochs": 4,
    "export.file_format": "MINDIR,ONNX",
    "export.input_form": "tensor,image",
}


def flags(place, settings: dict) -> list:
    places = ["--dataset_path", place / "toys", "--runs_dir", place / "runs", "--cache_dir", place / "cache"]
    return [*places, *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures of odd sizes, whose colour and whose brighter side tell the class."""
    place = tmp_path_factory.mktemp("letterbox")
    for part, count in (("train", 16), ("eval", 6)):
        for name, colour in (("green", (60, 150, 60)), ("red", (150, 60, 60))):
            folder = place / "toys" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([number, len(name), len(part)])
                size = rng.integers(17, 120, 2)
                noise = rng.normal(0, 15, (*size, 3)) + np.linspace(-40, 40, size[1])[:, None]
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{number:02d}.png")
    save_toy_backbone(place / "toy.ckpt")
    return place


@pytest.fixture(scope="module")
def finished_run(place):
    done = call("finetune", "run", *flags(place, SETTINGS), "--pretrain_ckpt", place / "toy.ckpt", "--name", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    done.folder = place / "runs" / "all"
    return done


def test_the_log_and_the_manifest_say_it_all(finished_run):
    for words in ("fitted whole into (64, 64)", "those of block_15, block_17 beside", "of its mirror image's"):
        assert words in finished_run.stdout
    manifest = json.loads((finished_run.folder / "export" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["image"]["letterbox"] is True and manifest["image"]["size"] == [64, 64]
    assert "page" in manifest["resize_filter"] and "cropped" not in manifest["resize_filter"]
    assert manifest["weights"]["mirror_mean"] is True
    assert manifest["weights"]["features"] == ["block_15", "block_17", "last"]
    report = (finished_run.folder / "report.html").read_text(encoding="utf-8")
    for words in ("64 x 64 pixels: all of each picture, in", "mirror image", "maps of block_15, block_17"):
        assert words in report
    plain = load_backbone(finished_run.folder.parents[1] / "toy.ckpt")
    trained = load_trained(finished_run.folder)
    assert trained.backbone.feature_size == plain.feature_size + 16 + 32
    assert trained.image == ImageSpec((64, 64), (64, 64), (0.5,) * 3, (0.5,) * 3, letterbox=True)


def test_all_files_and_the_bundle_give_the_answers_of_the_run(finished_run, place, tmp_path):
    found = json.loads((finished_run.folder / "export" / "parity.json").read_text(encoding="utf-8"))
    assert found["equal"] and len(found["models"]) == 4
    pictures = sorted((place / "toys" / "eval").rglob("*.png"))
    ours = load_predictor(finished_run.folder)
    images, _ = load_images(pictures, ours.image)
    wanted = ours(images)
    for name in found["models"]:
        assert np.abs(load_predictor(finished_run.folder / "export" / name)(images) - wanted).max() < 1e-4
    alone = shutil.copytree(finished_run.folder / "export", tmp_path / "alone")
    command = [sys.executable, "predict.py", place / "toys" / "eval", "--model", "mobilenetv2_image.onnx"]
    done = subprocess.run([*map(str, command), "--csv", "out.csv"], cwd=alone, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    with (alone / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for path, row in zip(pictures, wanted):
        assert [float(rows[str(path)][f"p_{name}"]) for name in ours.classes] == pytest.approx(row, abs=1e-4)


def test_the_maps_of_the_run_add_up_to_its_answers(finished_run, place):
    run = RunPredictor(finished_run.folder)
    images, _ = load_images(sorted((place / "toys" / "eval").rglob("*.png")), run.image)
    seen, mirrored = run.look(images), run.look(images[:, :, ::-1])
    exponentials = np.exp(seen.maps.mean((2, 3)))
    assert np.abs(exponentials / exponentials.sum(1, keepdims=True) - seen.probabilities).max() < 1e-5
    assert np.abs(seen.maps - mirrored.maps[..., ::-1]).max() < 1e-4 < seen.maps.std((2, 3)).min()


def test_another_way_to_look_is_another_row_of_the_cache(finished_run, place):
    features = [word for word in flags(place, SETTINGS | {"data.mirror_mean": "false"})]
    again = call("finetune", "features", *flags(place, SETTINGS), "--pretrain_ckpt", place / "toy.ckpt")
    assert "features: 0 computed" in again.stdout, again.stdout + again.stderr
    other = call("finetune", "features", *features, "--pretrain_ckpt", place / "toy.ckpt")
    assert "features: 44 computed" in other.stdout, other.stdout + other.stderr


@pytest.mark.slow
def test_blocks_are_trained_under_the_same_features(finished_run, place):
    """From the answers of the tail to those of the exported files; block_15 is what stands in front of the cut."""
    tail = {"model.train_from": "block_16", "data.views_per_picture": 2, "train.tail.epochs": 2}
    settings = flags(place, SETTINGS | tail | {"export.input_form": "image"})
    done = call("finetune", "run", *settings, "--pretrain_ckpt", place / "toy.ckpt", "--name", "tail")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = place / "runs" / "tail"
    assert json.loads((folder / "export" / "parity.json").read_text(encoding="utf-8"))["equal"]
    trained, given = load_trained(folder).backbone, load_backbone(place / "toy.ckpt").network
    assert trained.record.mirror_mean and trained.record.beside_last == (15, 17)
    moved = {
        parameter.name: np.abs(parameter.asnumpy() - before.asnumpy()).max()
        for parameter, before in zip(trained.network.get_parameters(), given.get_parameters())
        if parameter.name.endswith("weight")
    }
    assert max(value for name, value in moved.items() if int(name.split(".")[1]) < 16) == 0
    assert min(value for name, value in moved.items() if int(name.split(".")[1]) >= 16) > 0


def test_how_a_run_looked_goes_on_with_its_weights_unless_told_otherwise(finished_run, place, caplog):
    def loaded(**settings):
        given = {"data.dataset_path": str(place / "toys"), "cache_dir": str(place / "cache")}
        given |= {"model.pretrain_ckpt": str(ckpt_path(finished_run.folder, MOBILENETV2)), **settings}
        config = load_config(None, given)
        backbone = load_inputs(config)[1]
        return backbone.record, image_in_short(config, backbone)

    record, said = loaded()
    assert record.mirror_mean and record.beside_last == (15, 17) and said == {"size": [64, 64], "fit": "letterbox"}
    record, said = loaded(**{"data.size": 96})
    assert record.image.letterbox and said == {"size": [96, 96], "fit": "letterbox"} and not caplog.records
    told = {"data.fit": "crop", "data.mirror_mean": "false", "model.features": "last", "model.train_from": "block_18"}
    record, said = loaded(**told)
    assert not record.mirror_mean and record.beside_last == () and said == {"size": [64, 64], "fit": "crop"}
    assert not record.image.letterbox and record.image.resize == 64
    loaded(**{"data.size": 128})
    assert "data.size 128: 2.0 times the 64 pixels" in caplog.text
    with pytest.raises(InputError, match=r"Give --set model\.features=last"):
        loaded(**{"model.train_from": "block_18"})


def test_features_of_blocks_before_the_cut_are_refused(place):
    given = {"data.dataset_path": str(place / "toys"), "model.pretrain_ckpt": str(place / "toy.ckpt")}
    given |= {"model.train_from": "block_17", "model.features": "block_15,last", "cache_dir": str(place / "cache")}
    with pytest.raises(InputError, match=r"block_15 lies before block_16.*train from block_16"):
        load_inputs(load_config(None, given))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model.features": "block_14"}, "Add last"),
        ({"model.features": "block_3,last"}, "must be one of block_14"),
        ({"model.backbone": None, "data.mirror_mean": True}, "are of a backbone"),
        ({"model.backbone": None, "model.features": "block_14,last"}, "are of a backbone"),
        ({"model.backbone": None, "data.fit": "letterbox"}, "are of a backbone's pictures"),
        ({"data.fit": "box"}, "must be one of crop, whole, letterbox"),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        load_config(None, settings)


def test_a_run_from_scratch_of_an_earlier_version_says_crop():
    """Where nothing was said that was written into its config.yaml."""
    old = {"model.backbone": None, "data.fit": "crop", "data.mirror_mean": False, "model.features": "last"}
    assert load_config(None, old).data.fit == "crop"


def test_fit_replaces_what_the_weights_do(place):
    backbone = load_backbone(place / "toy.ckpt")
    boxed = prepared(backbone, DataConfig(fit="letterbox"))
    assert boxed.record.image.letterbox and boxed.record.image.resize == boxed.record.image.size == (32, 32)
    assert prepared(boxed, DataConfig(size=48)).record.image == ImageSpec(
        (48, 48), (48, 48), TOY_RECORD.image.mean_unit, TOY_RECORD.image.std_unit, letterbox=True
    )
    assert not prepared(boxed, DataConfig(fit="whole")).record.image.letterbox
    assert prepared(backbone, DataConfig()).record == backbone.record


@pytest.mark.slow
def test_lite_and_int8_have_the_same_network(finished_run, lite_python, tmp_path):  # noqa: F811
    folder = shutil.copytree(finished_run.folder, tmp_path / "all")
    wanted = ("--file_format", "LITE", "ONNX", "--input_form", "tensor", "image", "--precision", "int8")
    done = call("export", folder, *wanted, "--lite_python", lite_python, "--allowed_loss", 100)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "export" / "parity.json").read_text(encoding="utf-8"))
    assert found["equal"] and {"mobilenetv2.ms", "mobilenetv2_image.ms", "mobilenetv2_int8.onnx"} <= {*found["models"]}
