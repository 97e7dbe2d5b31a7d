"""Class maps of a run folder: exact, drawn where they belong, and no picture is ever replaced by one."""

import csv

import numpy as np
import pytest
from conftest import call
from PIL import Image

from datasets.image import ImageSpec, load_images
from export.draw_map import AGAINST, FOR, draw_map
from export.predict import MapFiles
from export.predictors import CkptPredictor
from export.run_predictor import RunPredictor, class_maps


def test_the_maps_add_up_to_the_answer(finished, toy_pictures):
    predictor = RunPredictor(finished.folder)
    images, _ = load_images(sorted((toy_pictures / "eval").glob("*/*"))[:9], predictor.image)
    seen = predictor.look(images)
    assert np.abs(seen.probabilities - CkptPredictor(finished.folder)(images)).max() < 1e-5
    exponentials = np.exp(seen.maps.mean((2, 3)))
    assert np.abs(exponentials / exponentials.sum(1, keepdims=True) - seen.probabilities).max() < 1e-5
    assert seen.novelty.shape == (9,)


def test_class_maps_by_hand():
    last = np.zeros((1, 2, 1, 3), np.float32)
    last[0, 0, 0, 0], last[0, 1, 0, 2] = 4, 6
    found = class_maps(last, np.array([[1, 0], [0.5, -1]], np.float32), np.array([0, 1], np.float32))
    assert found.tolist() == [[[[4, 0, 0]], [[3, 1, -5]]]]


def test_a_map_lies_over_what_the_network_sees(tmp_path):
    """The network sees the middle square of a wide grey picture; left speaks for the class, right against it."""
    Image.new("RGB", (200, 100), (128, 128, 128)).save(tmp_path / "wide.png")
    spec = ImageSpec((64, 64), 64, (0.5,) * 3, (0.5,) * 3)
    maps = np.array([[[5.0, -5.0]], [[0.0, 0.0]]])
    draw_map(tmp_path / "wide.png", maps, 0, spec, tmp_path / "map.png")
    drawn = np.asarray(Image.open(tmp_path / "map.png")).astype(int)
    assert drawn.shape == (100, 200, 3)
    assert (drawn[:, :45] == 128).all() and (drawn[:, 155:] == 128).all()
    for pixel, colour in ((drawn[50, 60], FOR), (drawn[50, 140], AGAINST)):
        wanted = 128 + 0.72 * (np.array(colour) - 128)
        assert np.abs(pixel - wanted).max() < 3
    draw_map(tmp_path / "wide.png", maps, 1, spec, tmp_path / "none.png")
    inside = np.asarray(Image.open(tmp_path / "none.png"))[10:90, 60:140]
    assert (inside == 128).all()  # nothing speaks for or against the other class


def test_maps_are_named_after_pictures_and_replace_none(tmp_path):
    pictures = [tmp_path / "a.png", tmp_path / "a_map.png", tmp_path / "other" / "a.png"]
    for picture in pictures:
        picture.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (9, 9, 9)).save(picture)
    before = [picture.read_bytes() for picture in pictures]
    spec = ImageSpec((32, 32), 36, (0.5,) * 3, (0.5,) * 3)
    files = MapFiles(tmp_path, pictures, spec)
    names = [files.draw(picture, np.ones((2, 1, 1)), 0) for picture in pictures]
    assert names == ["a_map2.png", "a_map_map.png", "a_map3.png"]
    (tmp_path / "one").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "one" / "A.png")
    assert (
        files.draw(tmp_path / "one" / "A.png", np.ones((2, 1, 1)), 0) == "A_map4.png"
    )  # case does not count everywhere
    assert [picture.read_bytes() for picture in pictures] == before
    pictures[0].unlink()
    assert files.draw(pictures[0], np.ones((2, 1, 1)), 0) == ""


def test_predict_draws_maps_or_says_why_not(finished, exported, toy_pictures, tmp_path):
    picture = next((toy_pictures / "eval" / "red").iterdir())
    table = tmp_path / "out.csv"
    done = call("finetune", "predict", finished.folder, picture, "--maps", tmp_path / "maps", "--csv", table)
    assert done.returncode == 0, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert f"maps: 1 written to {tmp_path / 'maps'}" in done.stdout
    assert row["map"] == f"{picture.stem}_map.png" and Image.open(tmp_path / "maps" / row["map"]).size == (40, 40)
    for place in (table, table / "deeper"):
        done = call("finetune", "predict", finished.folder, picture, "--maps", place)
        assert done.returncode == 2 and f"--maps {place}: {table} is a file" in done.stderr
    done = call("finetune", "predict", exported / "export" / "mobilenetv2.onnx", picture, "--maps", tmp_path / "none")
    assert done.returncode == 0 and "no maps: an exported file" in done.stderr and not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["model.hidden=5"], "no maps: the head is not one linear layer"),
        pytest.param(["train.members=2"], "no maps: the head is not one linear layer", marks=pytest.mark.slow),
        pytest.param(
            ["model.backbone=null", "model.network=mlp", "model.image_size=[8, 8]"],
            "no maps: the network was trained from",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_predict_goes_on_where_there_are_no_maps(toy_pictures, toy_backbone, tmp_path, settings, says):
    from_scratch = "model.backbone=null" in settings
    flags = () if from_scratch else ("--pretrain_ckpt", toy_backbone)
    flags = (*flags, *(word for pair in settings for word in ("--set", pair)), "--set", "data.views=false")
    place = ("--runs_dir", tmp_path / "runs", "--cache_dir", tmp_path / "cache", "--epochs", 1, "--name", "toys")
    done = call("finetune", "train", "--dataset_path", toy_pictures, *flags, *place)
    assert done.returncode == 0, done.stderr
    picture = next((toy_pictures / "eval" / "red").iterdir())
    done = call("finetune", "predict", tmp_path / "runs" / "toys", picture, "--maps", tmp_path / "maps")
    assert done.returncode == 0 and says in done.stderr and picture.name in done.stdout, done.stderr
    assert not (tmp_path / "maps").exists()
    unlike = call("finetune", "insight", tmp_path / "runs" / "toys", "--unlabelled", toy_pictures / "eval", *place[2:4])
    assert ("from scratch" in unlike.stderr) == (unlike.returncode == 2) == from_scratch
