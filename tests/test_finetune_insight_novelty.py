"""Unlike the training pictures: distances by hand, the share that is refused, and what `predict` says."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import call
from PIL import Image

from datasets.base import InputError
from finetune.insight.novelty import (
    FILE,
    Moments,
    NoThreshold,
    Novelty,
    dealt,
    fit_novelty,
    gaussian,
    load_novelty,
    unit,
    upper_bound,
)
from finetune.run_folder import MOBILENETV2, ckpt_path


def test_distances_by_hand():
    """The mean points along the first axis; along the second one the training pictures differ."""
    novelty = Novelty(np.array([1, 0, 0], np.float32), np.array([[0], [3], [0]], np.float32), scale=10.0)
    found = novelty(np.array([[7, 0, 0], [0, 2, 0], [0, 0, 5], [0, 0, 0]], np.float32))
    assert found == pytest.approx([0, 10 * 2 - 9, 10 * 2, 10])
    assert novelty.within(2.0)(np.array([[0, 4, 0]], np.float32)) == pytest.approx([5.5])


def test_with_all_axes_it_is_mahalanobis_distance_and_with_few_the_rest_has_one_variance():
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(3000, 6)) * [4, 3, 2, 1, 1, 1] + 2).astype(np.float32)
    centred = x - x.mean(0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(x))
    new = unit(rng.normal(size=(50, 6))).astype(np.float32)
    along = ((new - x.mean(0)) @ axes) ** 2
    for kept in (5, 2):
        rest = np.concatenate([np.full(6 - kept, variances[: 6 - kept].mean()), variances[6 - kept :]])
        assert gaussian(Moments.of(x), x, kept)(new) == pytest.approx((along / rest).sum(1), rel=0.1)


def test_moments_without_a_part_are_those_of_the_others():
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    found, wanted = Moments.of(x).without(Moments.of(x[:7])), Moments.of(x[7:])
    assert found.count == 23 and np.allclose(found.products, wanted.products, atol=1e-5)
    assert np.allclose(found.total, wanted.total, atol=1e-5)


def test_the_threshold_is_passed_by_one_in_a_hundred_at_most():
    rng = np.random.default_rng(3)
    passed = [(rng.normal(size=100) > upper_bound(rng.normal(size=200))).mean() for _ in range(400)]
    assert 0.006 < np.mean(passed) <= 0.0105
    assert upper_bound(np.arange(10.0)) == 9 and upper_bound(np.arange(199.0)) == 197


@pytest.mark.parametrize("count", [60, 2500])
def test_rows_of_another_kind_are_told_from_fresh_ones_of_the_same(count):
    """In 200 dimensions, of which 60 rows fill few; each row is there twice, the copy in its group."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 200))

    def rows(count, where):
        return (where[rng.integers(len(where), size=count)] + 0.5 * rng.normal(size=(count, 200))).astype(np.float32)

    x = rows(count, centres)
    novelty = fit_novelty(np.concatenate([x, x + 1e-4]), np.tile(np.arange(count), 2))
    refused, caught = (novelty(rows(1000, where)) > 1 for where in (centres, rng.normal(size=(4, 200))))
    assert refused.mean() < 0.04 and caught.mean() > 0.9


def test_the_threshold_of_held_out_rows():
    x = np.random.default_rng(0).normal(size=(80, 10)).astype(np.float32)
    held_out = np.random.default_rng(1).normal(size=(20, 10)).astype(np.float32)
    assert fit_novelty(x, np.arange(80), held_out)(held_out).max() == pytest.approx(1, abs=1e-5)


def test_few_rows_give_numbers_and_two_or_equal_ones_an_error():
    rng = np.random.default_rng(0)
    for count in (3, 4, 7):
        x = rng.normal(size=(count, 50)).astype(np.float32)
        assert np.isfinite(fit_novelty(x, np.arange(count))(rng.normal(size=(3, 50)).astype(np.float32))).all()
    for x in (np.eye(2, 5), np.ones((2, 5)), np.ones((9, 5)), np.zeros((4, 5))):
        with pytest.raises(NoThreshold, match="the same features"):
            fit_novelty(x.astype(np.float32), np.arange(len(x)))
    with pytest.raises(NoThreshold, match="one group"):
        fit_novelty(np.eye(4, 5, dtype=np.float32), np.zeros(4, int))
    x = rng.normal(size=(7, 50)).astype(np.float32)
    with pytest.raises(NoThreshold, match="19 validation pictures, of 20"):
        fit_novelty(x, np.arange(7), rng.normal(size=(19, 50)).astype(np.float32))


def test_uneven_groups_are_dealt_evenly_or_refused():
    """A Gaussian of the few rows beside a large group would find the others far off, and nothing else ever again."""
    rng = np.random.default_rng(0)
    x, others = (rng.normal(size=(200, 40)).astype(np.float32) + 2 * direction for direction in np.eye(40)[:2] * 5)
    for of_first in (199, 197, 150):
        groups = np.where(np.arange(200) < of_first, 0, np.arange(200))
        with pytest.raises(NoThreshold, match="more than half of the training pictures"):
            fit_novelty(x, groups)
    sizes = [90, 60, 20, 10, 10, 5, 5]
    fold = dealt(np.repeat(np.arange(7), sizes), seed=0)
    assert sorted(np.bincount(fold)) == [15, 15, 20, 60, 90]
    assert all(len(set(part)) == 1 for part in np.split(fold, np.cumsum(sizes)[:-1]))
    novelty = fit_novelty(x, np.repeat(np.arange(7), sizes))
    assert (novelty(others) > 1).mean() > 0.9


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run, to be spoilt."""
    return shutil.copytree(finished.folder, tmp_path / "toys")


def test_what_is_saved_is_read_back_and_only_beside_its_own_weights(copied, caplog):
    (copied / FILE).unlink()
    assert load_novelty(copied) is None
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    novelty = fit_novelty(x, np.arange(50))
    novelty.save(copied)
    assert (load_novelty(copied)(x[::-1]) == novelty(x[::-1])).all() and not caplog.records
    ckpt = ckpt_path(copied, MOBILENETV2)
    content = ckpt.read_bytes()
    ckpt.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load_novelty(copied) is None and "not of this CKPT" in caplog.text
    ckpt.write_bytes(content)
    assert load_novelty(copied) is not None
    (copied / FILE).write_bytes((copied / FILE).read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        load_novelty(copied)


def test_a_file_of_an_earlier_version_is_left_out_with_a_word(copied, caplog):
    np.savez(copied / FILE, rows=np.eye(3, dtype=np.float16), threshold=np.float64(0.3))
    assert load_novelty(copied) is None and "of an earlier version" in caplog.text


def test_predict_says_what_is_unlike_the_training_pictures(finished, copied, toy_pictures, tmp_path):
    facts = json.loads((finished.folder / "metrics.json").read_text(encoding="utf-8"))["novelty"]
    assert facts["evaluation_unlike"] < 0.2
    assert "of the evaluation pictures are unlike the training pictures" in finished.stdout
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "blue.png")
    table = tmp_path / "out.csv"
    pictures = sorted((toy_pictures / "train" / "red").iterdir())
    done = call("finetune", "predict", copied, tmp_path / "blue.png", *pictures, "--csv", table)
    assert done.returncode == 0, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        first, *rest = csv.DictReader(file)
    assert first["unlike"] == "yes" and float(first["novelty"]) > 1
    assert {row["unlike"] for row in rest} == {"no"} and max(float(row["novelty"]) for row in rest) < 1
    lines = [line for line in done.stdout.splitlines() if "unlike the training pictures" in line]
    assert len(lines) == 1 and "blue.png" in lines[0]
    novelty = load_novelty(copied)
    replace(novelty, mean=-novelty.mean).save(copied)
    done = call("finetune", "predict", copied, *pictures)
    assert done.stdout.count("unlike the training pictures") == len(pictures)
