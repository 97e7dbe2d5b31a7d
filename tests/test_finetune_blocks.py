"""A run that trains the last blocks, by the command line."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import CHECKOUT, call
from test_finetune_run import metrics, predictions

from datasets.base import InputError
from datasets.folder import load_folder
from finetune.__main__ import parse, recipe_of
from finetune.blocks import time_needed
from finetune.config import load_config
from finetune.insight.novelty import load_novelty
from finetune.metrics import mcnemar
from finetune.run import load_inputs
from finetune.training.unfinished import NAME
from pretrained.weights import load_backbone, read_ckpt

CKPT = "ckpt/mobilenetv2_best.ckpt"
WHOLE = (pytest.mark.slow, pytest.mark.timeout(3600))  # to compile 19 blocks and their gradients takes half a minute


def settings(train_from, place, pictures, backbone, cache) -> list:
    values = {
        "data.views": "false",
        "data.valid_fraction": 0.5,
        "data.views_per_picture": 2,
        "model.train_from": train_from,
        "train.epochs": 4,
    }
    tail = {"epochs": 5, "batch_size": 4, "learning_rate": 0.001}
    values |= {f"train.tail.{name}": value for name, value in tail.items()}
    places = [
        ("--dataset_path", pictures),
        ("--pretrain_ckpt", backbone),
        ("--runs_dir", place),
        ("--cache_dir", cache),
    ]
    given = [("--name", "toys"), *places, *(("--set", f"{key}={value}") for key, value in values.items())]
    return [word for pair in given for word in pair]


@pytest.fixture(scope="module", params=["block_16", pytest.param("all", marks=WHOLE)])
def tuned(request, tmp_path_factory, toy_pictures, toy_backbone, finished):
    place = tmp_path_factory.mktemp("blocks")
    cache = shutil.copytree(finished.cache, place / "cache")
    given = settings(request.param, place / "runs", toy_pictures, toy_backbone, cache)
    done = call("finetune", "run", *given, "--set", "export.file_format=MINDIR,ONNX")
    assert done.returncode == 0, done.stdout + done.stderr
    done.folder, done.cache, done.train_from = place / "runs" / "toys", cache, request.param
    return done


def test_three_accuracies_are_shown_and_kept(tuned):
    found = metrics(tuned.folder)
    for words in ("before: fresh head", "linear head", "after: fine-tuned network", "minutes on"):
        assert words in tuned.stdout
    rows = predictions(tuned.folder)
    right = {}
    columns = {"before": "before_predicted", "linear_head": "head_predicted", "after": "predicted"}
    for key, column in columns.items():
        right[key] = np.array([row[column] == row["true"] for row in rows])
        assert found[key]["accuracy"] == right[key].mean() and found[key]["pictures"] == 16
    assert found["mcnemar_p"] == mcnemar(right["after"], right["linear_head"])
    assert found["features"]["computed"] == 0 and found["confidence"]["folds"] == 1
    page = (tuned.folder / "report.html").read_text(encoding="utf-8")
    assert "linear head<b>" in page and "McNemar" in page


def test_the_epochs_of_both_trainings_are_counted_on(tuned):
    with (tuned.folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 10))
    assert metrics(tuned.folder)["best_epoch"] == 9  # the last: its learning rate is 0
    assert float(rows[-1]["learning_rate"]) < 0.1 * float(rows[5]["learning_rate"])


def test_the_ckpt_has_trained_blocks_behind_the_cut_and_given_ones_before_it(tuned, toy_backbone):
    given, kept = read_ckpt(toy_backbone), read_ckpt(tuned.folder / CKPT)
    changed = {name.split(".")[1] for name in given if not np.array_equal(given[name], kept[name])}
    blocks = range(16 if tuned.train_from == "block_16" else 0, 19)
    assert changed == set(map(str, blocks)) and set(kept) - set(given) == {"dense.weight", "dense.bias"}


def test_what_is_exported_evaluated_and_predicted_is_the_fine_tuned_network(tuned, toy_pictures):
    parity = json.loads((tuned.folder / "export" / "parity.json").read_text(encoding="utf-8"))
    assert all((tuned.folder / "export" / f"mobilenetv2.{kind}").is_file() for kind in ("mindir", "onnx"))
    assert parity["equal"] and parity["same_class"] == 16 and parity["largest_difference"]["to_evaluation"] < 1e-4
    done = call("finetune", "eval", tuned.folder, "--cache_dir", tuned.cache)
    assert f"16 pictures: accuracy {100 * metrics(tuned.folder)['after']['accuracy']:.1f} %" in done.stdout
    assert "features: 0 computed" in done.stdout
    novelty = load_novelty(tuned.folder)  # of the training pictures as the fine-tuned backbone sees them
    assert novelty is not None and metrics(tuned.folder)["novelty"]["evaluation_unlike"] < 0.3


def test_kill_9_in_the_middle_and_the_same_command_ends_with_the_same_bytes(
    tuned, tmp_path, toy_pictures, toy_backbone
):
    command = ["finetune", "train", *settings(tuned.train_from, tmp_path, toy_pictures, toy_backbone, tuned.cache)]
    running = subprocess.Popen([sys.executable, "-m", *map(str, command)], cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 1200
    while not (tmp_path / "toys" / NAME).is_file() and time.monotonic() < deadline:
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "toys" / "metrics.json").is_file()
    done = call(*command)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout and str(tmp_path / "toys" / NAME) in done.stdout
    assert (tmp_path / "toys-2" / CKPT).read_bytes() == (tuned.folder / CKPT).read_bytes()
    assert not list(tmp_path.rglob(NAME.name))
    one, other = (metrics(folder) for folder in (tuned.folder, tmp_path / "toys-2"))
    assert one["after"] == other["after"] and one["best_epoch"] == other["best_epoch"]


def test_blocks_of_no_backbone_are_refused():
    config = load_config(str(CHECKOUT / "finetune/configs/xor_mlp.yaml"), {"model.train_from": "block_15"})
    with pytest.raises(InputError, match=r"model\.backbone is null"):
        load_inputs(config)


def test_a_recipe_goes_by_its_name():
    assert recipe_of(parse(["run", "--recipe", "best"])) == str(CHECKOUT / "finetune" / "configs" / "best.yaml")
    assert recipe_of(parse(["run", "mine.yaml"])) == "mine.yaml" and recipe_of(parse(["run"])) is None
    with pytest.raises(InputError, match=r"no such recipe\. There are .*best, cats_vs_dogs"):
        recipe_of(parse(["run", "--recipe", "besst"]))
    with pytest.raises(InputError, match="give one of them"):
        recipe_of(parse(["run", "mine.yaml", "--recipe", "best"]))


def test_the_time_it_says_grows_with_views_and_epochs(toy_pictures):
    backbone = load_backbone(None)
    dataset = replace(load_folder(toy_pictures), parts=("train",) * 10**5, labels=np.zeros(10**5, np.int32))

    def minutes(threads=2, **changes):
        config = load_config(None, {"model.train_from": "block_15", **changes})
        return int(re.search(r"about (\d+) minutes", time_needed(config, backbone, dataset, threads))[1])

    assert minutes() < minutes(**{"data.views_per_picture": 9})
    assert minutes() < minutes(**{"model.train_from": "all"})
    assert minutes(**{"data.fraction": 0.5}) == pytest.approx(minutes() / 2, abs=1)
    assert minutes() < minutes(**{"train.tail.epochs": 24}) < minutes(**{"train.tail.epochs": 48})
    assert minutes(threads=4) == pytest.approx(minutes() / 2, abs=1)
