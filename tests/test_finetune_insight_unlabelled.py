"""Pictures without labels: ranked by hand, and a folder of them beside a finished run."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import call, draw_toy

from datasets.listing import passed_over_lines
from finetune.insight.novelty import Novelty
from finetune.insight.unlabelled import ranked

NAMES = ["a.png", "b.png", "c.png"]
P = np.array([[0.9, 0.1], [0.45, 0.55], [0.3, 0.7]])


def test_ranks_by_hand():
    """b is the least sure; c points where no training row does."""
    novelty = Novelty(np.array([1, 0], np.float32), np.zeros((2, 1), np.float32), scale=0.9)
    lines = ranked(NAMES, ("cat", "dog"), P, novelty, np.array([[2, 0], [1, 1], [0, 3]], np.float32))
    assert [(line["path"], line["rank"], line["predicted"]) for line in lines] == [
        ("b.png", 1, "dog"),
        ("c.png", 2, "dog"),
        ("a.png", 3, "cat"),
    ]
    assert [(line["unlike"], line["novelty_rank"]) for line in lines] == [("no", 2), ("yes", 1), ("no", 3)]
    assert [float(line["novelty"]) for line in lines] == pytest.approx([0.9 * (2 - 2**0.5), 1.8, 0], abs=1e-5)


def test_a_run_without_novelty_ranks_by_confidence_alone():
    lines = ranked(NAMES, ("cat", "dog"), P, None, np.zeros((3, 2)))
    assert [line["rank"] for line in lines] == [1, 2, 3] and "unlike" not in lines[0]


def test_without_novelty_nothing_is_called_like_the_training_pictures(finished, tmp_path, toy_pictures):
    run = shutil.copytree(finished.folder, tmp_path / "run")
    (run / "novelty.npz").unlink()
    done = call("finetune", "insight", run, "--unlabelled", toy_pictures / "eval", "--cache_dir", finished.cache)
    assert done.returncode == 0 and "16 pictures, whether they are unlike" in done.stdout, done.stderr


def test_a_folder_of_new_pictures(finished, tmp_path):
    run, new = shutil.copytree(finished.folder, tmp_path / "toys"), tmp_path / "新"
    for number, colour in enumerate(((150, 60, 60), (60, 150, 60), (105, 105, 60))):
        draw_toy(new / "deeper" / f"{number}.png", colour, 900 + number)
    (new / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (new / "notes.txt").write_text("none", encoding="utf-8")
    done = call("finetune", "insight", run, "--unlabelled", new, "--cache_dir", tmp_path / "cache")
    assert done.returncode == 1 and not done.stderr  # for the one that is damaged
    assert f"passed over in {new}: 1 .txt" in done.stdout
    with (run / "insight" / "unlabelled.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {str(new / "deeper" / f"{number}.png") for number in range(3)}
    confidence = [float(row["confidence"]) for row in rows]
    assert confidence == sorted(confidence) and [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {row["unlike"] for row in rows} <= {"yes", "no"} and sorted(row["novelty_rank"] for row in rows) == list(
        "123"
    )
    page = (run / "insight" / "unlabelled.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= 3 and "deeper/2.png" in page and "broken.png" in done.stdout
    predicted = call("finetune", "predict", run, new / "deeper", "--csv", tmp_path / "out.csv")
    assert predicted.returncode == 0, predicted.stderr
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        said = {row["path"]: row for row in csv.DictReader(file)}
    for row in rows:  # the same answers as those of `predict`
        other = said[row["path"]]
        assert row["predicted"] == other["predicted"] and row["unlike"] == other["unlike"]
        assert abs(float(row["confidence"]) - float(other["confidence"])) < 1e-3
        assert abs(float(row["novelty"]) - float(other["novelty"])) < 1e-3


@pytest.mark.parametrize(("words", "says"), [((), "give one run folder"), (("RUN",), "no such folder")])
def test_what_cannot_be_ranked_is_an_error(finished, tmp_path, words, says):
    words = [finished.folder for _ in words]
    done = call("finetune", "insight", *words, "--unlabelled", tmp_path / "none", "--cache_dir", tmp_path / "cache")
    assert done.returncode == 2 and says in done.stderr and not (tmp_path / "cache").exists()


def test_the_current_folder_is_called_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    counted = {".": {".txt": 1}, "deeper": {".zip": 2}}
    assert passed_over_lines(counted, Path()) == [
        f"passed over in {Path.cwd()}: 1 .txt",
        "passed over in deeper: 2 .zip",
    ]
    assert passed_over_lines(counted, Path("new"))[0] == "passed over in new: 1 .txt"
