"""The main job on real photographs with ImageNet weights. Skipped where they are not at hand."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import REAL_WEIGHTS, SHARED, call, needs_real_data

pytestmark = needs_real_data


def run(place, pictures, *flags):
    """A run by the command line, on a copy: the views are written beside the pictures."""
    arguments = ["--dataset_path", pictures, "--pretrain_ckpt", REAL_WEIGHTS, "--runs_dir", place / "runs"]
    done = call("finetune", *flags[:1], *arguments, "--cache_dir", place / "cache", "--name", "real", *flags[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def facts(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def cats_dogs(place):
    pictures = shutil.copytree(SHARED / "data" / "cats_vs_dogs", place / "cats_vs_dogs")
    run(place, pictures, "run")
    return place / "runs" / "real"


def test_cats_and_dogs_before_and_after(cats_dogs):
    found = facts(cats_dogs, "metrics.json")
    assert found["after"]["pictures"] == 200 and found["damaged"] == {}
    assert 0.35 <= found["before"]["accuracy"] <= 0.65
    assert found["after"]["accuracy"] >= 0.975
    assert found["features"]["computed"] == 1600


def test_the_mindir_is_the_trained_network(cats_dogs):
    found = facts(cats_dogs, "export/parity.json")
    assert found["equal"] and found["same_class"] == found["pictures"] == 200
    assert found["largest_difference"]["to_ckpt"] <= 1e-5 and found["ckpt_by"] == "openvino"
    assert found["accuracy"]["exported"] == facts(cats_dogs, "metrics.json")["after"]["accuracy"]


def test_adding_three_photographs_computes_three(cats_dogs, place):
    for i, path in enumerate(sorted((SHARED / "data" / "clothing10" / "eval" / "hat").iterdir())[:3]):
        shutil.copy(path, place / "cats_vs_dogs" / "train" / "cat" / f"hat_{i}.jpg")
    run(place, place / "cats_vs_dogs", "features")
    keys = [key.tobytes() for path in (place / "cache").rglob("*.keys.npy") for key in np.load(path)]
    assert len(keys) == len(set(keys)) == 1603


@pytest.mark.slow
def test_ten_kinds_of_clothing(place):
    pictures = shutil.copytree(SHARED / "data" / "clothing10", place / "clothing10")
    run(place, pictures, "train", "--name", "clothing")
    found = facts(place / "runs" / "clothing", "metrics.json")
    assert len(found["classes"]) == 10 and found["after"]["pictures"] == 341
    assert found["after"]["accuracy"] >= 0.80


def test_predictions_name_photographs_and_their_classes(cats_dogs):
    with (cats_dogs / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["predicted"] for row in rows if row["predicted"] == row["path"].split("/")[1]]
    assert len(right) / len(rows) == facts(cats_dogs, "metrics.json")["after"]["accuracy"]
    assert set(right) == {"cat", "dog"}


@pytest.mark.slow
def test_clothes_are_unlike_cats_and_dogs(cats_dogs, place):
    table = place / "unlike.csv"
    hats, cats = SHARED / "data" / "clothing10" / "eval" / "hat", SHARED / "data" / "cats_vs_dogs" / "eval" / "cat"
    done = call("finetune", "predict", cats_dogs, hats, cats, "--csv", table, "--maps", place / "maps")
    assert done.returncode == 0, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    unlike = {name: [row["unlike"] == "yes" for row in rows if f"/{name}/" in row["path"]] for name in ("hat", "cat")}
    assert np.mean(unlike["hat"]) >= 0.7 and np.mean(unlike["cat"]) <= 0.05
    assert len(list((place / "maps").iterdir())) == len(rows)
