"""Unlike the training pictures: distances by hand, the share that is refused, and what `predict` says."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import call
from PIL import Image

from datasets.base import InputError
from finetune.insight.novelty import FILE, Novelty, fit_novelty, load_novelty, upper_bound


def test_distances_by_hand():
    """Two directions at 60 degrees, and a copy of the first, which is of its group."""
    x = np.array([[2, 0], [1, 0], [0.5, 3**0.5 / 2]], np.float32)
    novelty = fit_novelty(x, np.array([0, 0, 1]))
    assert novelty.threshold == pytest.approx(0.5)
    found = novelty(np.array([[3, 0], [0, 5], [-1, 0]], np.float32))
    assert found == pytest.approx([0, 1 - 3**0.5 / 2, 1.5], abs=1e-6)
    assert fit_novelty(x, np.arange(3)).threshold == pytest.approx(0.5)
    assert fit_novelty(x[:2], np.arange(2)).threshold == pytest.approx(0, abs=1e-6)
    held_out = np.array([[0, 1], [1, 0]], np.float32)
    assert fit_novelty(x, np.arange(3), held_out).threshold == pytest.approx(1 - 3**0.5 / 2, abs=1e-6)


def test_the_threshold_is_passed_by_one_in_a_hundred_at_most():
    rng = np.random.default_rng(3)
    passed = [(rng.normal(size=100) > upper_bound(rng.normal(size=200))).mean() for _ in range(400)]
    assert 0.006 < np.mean(passed) <= 0.0105
    assert upper_bound(np.arange(10.0)) == 9 and upper_bound(np.arange(199.0)) == 197


def test_rows_of_another_kind_are_told_from_fresh_ones_of_the_same():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 40))

    def rows(count, where):
        return (where[rng.integers(len(where), size=count)] + 0.5 * rng.normal(size=(count, 40))).astype(np.float32)

    novelty = fit_novelty(rows(2500, centres), np.arange(2500))
    refused = (novelty(rows(2000, centres)) > novelty.threshold).mean()
    caught = (novelty(rows(500, rng.normal(size=(4, 40)))) > novelty.threshold).mean()
    assert refused < 0.02 and caught > 0.9


def test_what_is_saved_is_read_back(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    novelty = fit_novelty(x, np.arange(50))
    assert load_novelty(tmp_path) is None
    novelty.save(tmp_path)
    read = load_novelty(tmp_path)
    assert read.threshold == novelty.threshold and np.abs(read(x[::-1]) - novelty(x[::-1])).max() < 1e-3
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        load_novelty(tmp_path)


def test_predict_says_what_is_unlike_the_training_pictures(finished, toy_pictures, tmp_path):
    facts = json.loads((finished.folder / "metrics.json").read_text(encoding="utf-8"))["novelty"]
    assert facts["threshold"] == load_novelty(finished.folder).threshold and facts["evaluation_unlike"] < 0.2
    assert "unlike the training pictures from a distance of" in finished.stdout
    run = shutil.copytree(finished.folder, tmp_path / "toys")
    Novelty(load_novelty(run).rows, 0.02).save(run)  # a backbone of random weights finds most pictures alike
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "blue.png")
    table = tmp_path / "out.csv"
    pictures = sorted((toy_pictures / "train" / "red").iterdir())
    done = call("finetune", "predict", run, tmp_path / "blue.png", *pictures, "--csv", table)
    assert done.returncode == 0, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        first, *rest = csv.DictReader(file)
    assert first["unlike"] == "yes" and float(first["novelty"]) > 0.02
    assert {row["unlike"] for row in rest} == {"no"} and max(float(row["novelty"]) for row in rest) < 0.001
    lines = [line for line in done.stdout.splitlines() if "unlike the training pictures" in line]
    assert len(lines) == 1 and "blue.png" in lines[0]
