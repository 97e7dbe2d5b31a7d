"""Copies, labels and the pages that show them, of a toy data set with planted faults."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import RED_GREEN, call, draw_toys
from PIL import Image

from finetune.insight.copies import Copy, accuracy_without
from finetune.insight.labels import doubtful
from finetune.insight.sheet import sheet
from finetune.insight.study import Rows, smallest


@pytest.fixture(scope="module")
def studied(tmp_path_factory, toy_backbone):
    """A run on toys of which one is wrong, one has a near copy on the other side, and one lies in two classes."""
    place = tmp_path_factory.mktemp("studied")
    root = draw_toys(place / "玩具", {"train": 12, "eval": 5}, RED_GREEN)
    noise = np.random.default_rng(9).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    photograph = Image.fromarray(noise).resize((120, 120), Image.Resampling.BICUBIC)
    photograph.save(root / "train" / "red" / "photo.png")
    photograph.resize((90, 90)).save(root / "eval" / "red" / "once more.jpg")
    shutil.copy(root / "train" / "green" / "green_003.png", root / "train" / "red" / "wrong.png")
    done = call(
        *("finetune", "train", "--dataset_path", root, "--pretrain_ckpt", toy_backbone, "--epochs", 3),
        *(
            "--runs_dir",
            place / "runs",
            "--cache_dir",
            place / "cache",
            "--name",
            "toys",
            "--set",
            "insight.in_runs=true",
        ),
    )
    assert done.returncode == 0, done.stderr
    done.folder = place / "runs" / "toys"
    return done


def rows(path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_copies_are_named_with_both_paths(studied):
    found = {(row["kind"], row["first"], row["second"]) for row in rows(studied.folder / "insight" / "copies.csv")}
    assert ("near", "train/red/photo.png", "eval/red/once more.jpg") in found
    assert ("exact", "train/green/green_003.png", "train/red/wrong.png") in found
    assert "1 pair(s) of copies lie on both sides" in studied.stdout + studied.stderr
    report = (studied.folder / "report.html").read_text(encoding="utf-8")
    assert "Under two labels" in report and "train/red/wrong.png" in report and "once more.jpg" in report


@pytest.mark.parametrize(("groups", "named"), [(None, "'b'"), ([1, 1, 1, 1, 2, 3, 4], "'a'")])
def test_the_class_that_leaves_few_folds_is_named(groups, named):
    y = np.array([0, 0, 0, 0, 1, 1, 1])
    keys = [bytes([i]) for i in range(7)]
    some = Rows(np.eye(7), y, ("a", "b"), keys, keys, keys, np.full(7, "train"), groups and np.array(groups))
    assert smallest(some) == named


def test_a_wrong_label_is_first(studied):
    found = rows(studied.folder / "insight" / "labels.csv")
    assert len(found) == 37 and found[0]["path"] in ("train/red/wrong.png", "train/red/photo.png")
    probabilities = [float(row["probability"]) for row in found]
    assert probabilities == sorted(probabilities)
    assert "data:image/jpeg" in (studied.folder / "insight" / "labels.html").read_text(encoding="utf-8")


def test_rows_are_left_out(studied, toy_backbone):
    split = json.loads((studied.folder / "split.json").read_text(encoding="utf-8"))
    table = studied.folder.parent / "exclude.csv"
    table.write_text("path,why\ntrain/red/wrong.png,green\neval/red/once more.jpg,copy\n", encoding="utf-8")
    place = studied.folder.parents[1]
    done = call(
        *("finetune", "train", "--dataset_path", split["root"], "--pretrain_ckpt", toy_backbone, "--epochs", 1),
        *("--runs_dir", place / "runs", "--cache_dir", place / "cache", "--name", "less", "--exclude", table),
        *("--group_by", "duplicates"),
    )
    assert done.returncode == 0, done.stderr
    less = json.loads((place / "runs" / "less" / "split.json").read_text(encoding="utf-8"))
    names = [{name for part in ("train", "valid", "eval") for name in facts[part]} for facts in (split, less)]
    assert names[0] - names[1] == {"train/red/wrong.png", "eval/red/once more.jpg"}
    assert not (place / "runs" / "less" / "insight").exists()
    table.write_text("train/red/nothing.png\n", encoding="utf-8")
    done = call("finetune", "train", "--dataset_path", split["root"], "--exclude", table, "--runs_dir", place / "none")
    assert done.returncode == 2 and "train/red/nothing.png is no picture of" in done.stderr


def test_confident_learning_by_hand():
    """Thresholds are 0.7 for both: only row 2 has another class above it."""
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.1, 0.9], [0.5, 0.5]])
    found = doubtful(p, np.array([0, 0, 0, 1, 1]))
    assert found.suspect.tolist() == [False, False, True, False, False]
    assert found.order.tolist() == [2, 4, 0, 1, 3] and found.probability[2] == pytest.approx(0.3)
    assert found.better.tolist() == [1, 1, 1, 0, 0]


def test_accuracy_without_the_copies():
    copies = [Copy("near", "train/a", "eval/b", "cat", "cat", "train", "eval")]
    right = {("eval/b", "cat"): True, ("eval/c", "cat"): False, ("eval/d", "dog"): True}
    found = accuracy_without(copies, right)
    assert found["pictures"] == 2 and found["accuracy"] == 0.5 and found["accuracy_of_all"] == pytest.approx(2 / 3)
    assert accuracy_without([], right) is None


def test_a_sheet_survives_what_cannot_be_read(tmp_path):
    text = sheet([(tmp_path / "gone.jpg", ("<b>", "猫"))])
    assert "&lt;b&gt;<br>猫" in text and 'src=""' in text
