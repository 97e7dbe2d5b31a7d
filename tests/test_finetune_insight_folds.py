"""The number, its interval and its folds; two runs compared."""

import json
import shutil

import numpy as np
import pytest
from conftest import call
from scipy.stats import binomtest

from datasets.base import InputError
from finetune.__main__ import main
from finetune.config import TrainConfig
from finetune.evaluation.significance import difference
from finetune.heads.folds import deal
from finetune.heads.logistic import LinearHead
from finetune.insight.curve import learning_curve
from finetune.insight.folds import cross_validate, deal_groups, design_effect
from finetune.insight.two_runs import in_words
from finetune.metrics import mcnemar_exact


def clouds(count: int, classes: int = 3, width: int = 20, spread: float = 1.5, seed: int = 0):
    """Rows (N, D) around a centre a class, and their labels."""
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % classes).astype(np.int32)
    x = rng.normal(0, 1, (classes, width))[y] + rng.normal(0, spread, (count, width))
    return x.astype(np.float32), y


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 3), (0, 6), (11, 2), (40, 65), (700, 640)])
def test_mcnemars_p_is_scipys(one, other):
    wanted = binomtest(one, one + other, 0.5).pvalue if one + other else 1
    assert mcnemar_exact(one, other) == pytest.approx(wanted, rel=1e-9)


def test_a_linear_head_is_the_minimum_of_the_loss():
    x, y = clouds(90)
    head = LinearHead(x, y, 3, l2=0.01)
    p = head(x)
    error = (p - np.eye(3)[y]) / len(x)
    assert np.abs((x - x.mean(0)).T @ error + 0.02 * head.weight).max() < 2e-3
    assert np.abs(error.sum(0)).max() < 2e-3


def test_a_run_trains_the_same_head():
    from finetune.training.networks import Head
    from finetune.training.trainer import Trainer

    x, y = clouds(180)
    new, truth = clouds(600, seed=0)[0][300:], clouds(600, seed=0)[1][300:]
    trainer = Trainer(Head(20, 3, 0, 0.0, 1), (x, y), (x[:0], y[:0]), TrainConfig(epochs=60, learning_rate=0.01), 3, 1)
    trainer.fit(on_epoch=lambda line: None)
    ours, theirs = LinearHead(x, y, 3, TrainConfig().l2)(new), trainer.predictor(new)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.97
    assert abs((ours.argmax(1) == truth).mean() - (theirs.argmax(1) == truth).mean()) < 0.02


def test_every_row_is_judged_by_heads_that_have_not_seen_it():
    """Labels of pure chance: who has seen a row would know it, for there are more features than rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 400)).astype(np.float32), rng.integers(0, 2, 200).astype(np.int32)
    number, probabilities = cross_validate(x, y, 2, 0.001, folds=5, seeds=3)
    assert number.interval[0] < 0.5 < number.interval[1] and 0.35 < number.accuracy < 0.65
    assert probabilities.sum(1) == pytest.approx(np.ones(200), abs=1e-5)
    assert len(number.fold_accuracies) == 15 and (number.folds, number.seeds, number.pictures) == (5, 3, 200)


def test_the_interval_is_honest_where_all_folds_are_right():
    x, y = clouds(60, spread=0.01)
    number, _ = cross_validate(x, y, 3, 0.01, folds=5, seeds=2)
    assert number.accuracy == 1 and number.interval[0] < 0.95


def test_a_class_of_one_row_has_no_folds():
    x, y = clouds(30)
    y[:] = 0
    y[3] = 1
    assert cross_validate(x, y, 2, 0.01, 5, 3) is None


def test_groups_stay_together_and_folds_stay_balanced():
    y = np.arange(120) % 2
    groups = np.arange(120) // 6
    fold = deal_groups(y, groups, 5, seed=3)
    assert all(len(set(fold[groups == group])) == 1 for group in range(20))
    assert np.bincount(fold).tolist() == [24] * 5
    assert (fold != deal_groups(y, groups, 5, seed=4)).any()


def test_copies_in_groups_widen_the_interval():
    """Each picture six times: without groups the copies are known, and count as pictures of their own."""
    x, y = clouds(60, spread=4)
    x, y, groups = np.repeat(x, 6, 0), np.repeat(y, 6), np.repeat(np.arange(60), 6)
    loose, _ = cross_validate(x, y, 3, 0.0, 5, 1)
    grouped, _ = cross_validate(x, y, 3, 0.0, 5, 1, groups)
    once, _ = cross_validate(x[::6], y[::6], 3, 0.0, 5, 1)
    assert loose.accuracy > grouped.accuracy + 0.1
    widths = [np.ptp(number.interval) for number in (loose, grouped, once)]
    assert widths[0] < 0.5 * widths[1] and widths[1] == pytest.approx(widths[2], rel=0.15)
    assert design_effect(np.repeat([1.0, 0, 1, 1], 6), np.repeat(np.arange(4), 6)) == pytest.approx(6)
    assert deal(y, 5, 0).max() == 4


def test_each_picture_has_one_vote():
    a = {(f"{i}.jpg", "cat"): i < 9 for i in range(10)}
    b = {(f"{i}.jpg", "cat"): i < 2 for i in range(12)}
    once = difference([a], [b])
    assert (once.pictures, once.only_first, once.only_second) == (10, 7, 0)
    assert once.p == mcnemar_exact(7, 0) and once.more_than_chance
    assert difference([a] * 5, [b] * 5) == once
    assert not difference([a, b], [b, a]).more_than_chance


def test_two_runs_are_compared(finished):
    said = in_words(finished.folder, finished.folder)
    assert "0 are right by toys only" in said and "p = 1" in said and "no more than chance" in said
    with pytest.raises(InputError, match="no such run folder"):
        in_words(finished.folder, finished.folder / "nothing")


def test_insight_of_a_run_goes_into_its_report(finished, tmp_path):
    run = shutil.copytree(finished.folder, tmp_path / "toys")
    assert "python -m finetune insight" in finished.stdout and not (run / "insight").exists()
    done = call("finetune", "insight", run)
    assert done.returncode == 0, done.stderr
    found = json.loads((run / "insight" / "insight.json").read_text(encoding="utf-8"))
    assert found["pictures"] == 56 and found["number"]["accuracy"] > 0.9
    assert "5 folds x 3 seeds" in (run / "report.html").read_text(encoding="utf-8")
    assert "5 folds x 3 seeds of 56 pictures" in done.stdout


@pytest.mark.parametrize("words", [["insight", "a", "b", "c"], ["insight", "nothing.yaml"], ["insight", "tests"]])
def test_what_cannot_be_looked_at_is_said(words, capsys):
    assert main(words) == 2 and "error: " in capsys.readouterr().err


def test_insight_alone(toy_pictures, toy_backbone, finished, tmp_path):
    done = call(
        *("finetune", "insight", "--dataset_path", toy_pictures, "--pretrain_ckpt", toy_backbone),
        *("--runs_dir", tmp_path, "--cache_dir", finished.cache, "--set", "insight.seeds=2"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "toys_insight" / "insight" / "insight.json").is_file() and "5 folds x 2 seeds" in done.stdout


def test_from_the_head_of_some_rows_the_same_minimum_is_found():
    x, y = clouds(90)
    some = LinearHead(x[:40], y[:40], 3, l2=0.01)
    heads = (LinearHead(x, y, 3, l2=0.01), LinearHead(x, y, 3, l2=0.01, start=some))
    assert np.abs(heads[0](x) - heads[1](x)).max() < 5e-3 < np.abs(heads[0](x) - some(x)).max()


def test_the_minimum_is_scikit_learns():
    """Of rows far from 0, which are centred without a copy."""
    from sklearn.linear_model import LogisticRegression

    x, y = clouds(90)
    x += 30
    theirs = LogisticRegression(C=1 / (2 * 0.01 * len(x)), tol=1e-8, max_iter=5000).fit(x.astype(np.float64), y)
    assert np.abs(LinearHead(x, y, 3, l2=0.01)(x) - theirs.predict_proba(x.astype(np.float64))).max() < 5e-3


def test_a_seed_gives_the_same_bits_again():
    x, y = clouds(90, width=200)
    (one, first), (other, second) = (cross_validate(x, y, 3, 0.01, folds=5, seeds=2) for _ in range(2))
    assert one == other and np.array_equal(first, second)
    assert learning_curve(x, y, 3, 0.01) == learning_curve(x, y, 3, 0.01)
