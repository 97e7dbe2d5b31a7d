"""Heads that are solved for, and the choice among them; the size and the part of a picture that a backbone sees."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import call
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from datasets.base import InputError
from finetune.config import TrainConfig, load_config
from finetune.heads.choice import FROM_SUMS, STRENGTHS, HeadChooser
from finetune.heads.logistic import LinearHead, softmax
from finetune.heads.sums import Sums, best_scale, lda, ridge
from finetune.metrics import cross_entropy
from finetune.trained import load_trained
from finetune.training.networks import Head


def rows(seed: int = 0, count: int = 90, width: int = 12, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds of unequal size."""
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, count, p=[0.5, 0.3, 0.2])
    centres = np.random.default_rng(7).normal(0, 1.2, (classes, width))
    return (centres[y] + rng.normal(0, 1.5, (count, width)) + 3).astype(np.float32), y


def sums_of(x, y, classes: int = 3) -> Sums:
    return Sums.of(x, y, np.arange(len(y)), classes)


def test_lda_is_scikit_learns():
    x, y = rows()
    weight, bias = lda(sums_of(x, y), 1e-9)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x.astype(np.float64), y)
    new = rows(1)[0]
    assert np.abs(softmax(new @ weight + bias) - theirs.predict_proba(new)).max() < 1e-6


def test_a_shrunk_covariance_is_that_of_rows_with_noise():
    """Adding strength times the mean variance to the diagonal is adding independent noise of that variance."""
    x, y = rows(count=4000)
    within = x - np.stack([x[y == c].mean(0) for c in range(3)])[y]
    noise = np.random.default_rng(3).normal(0, (0.5 * within.var(0).mean()) ** 0.5, x.shape)
    shrunk, noisy = (lda(sums_of(values, y), strength)[0] for values, strength in ((x, 0.5), (x + noise, 1e-9)))
    assert (
        np.corrcoef((shrunk - shrunk.mean(1, keepdims=True)).ravel(), (noisy - noisy.mean(1, keepdims=True)).ravel())[
            0, 1
        ]
        > 0.99
    )


def test_ridge_is_scikit_learns():
    x, y = rows()
    weight, bias = ridge(sums_of(x, y), 0.3)
    alpha = 0.3 * len(x) * x.astype(np.float64).var(0).mean()
    theirs = Ridge(alpha=alpha).fit(x.astype(np.float64), np.eye(3)[y])
    new = rows(1)[0]
    assert np.abs(new @ weight + bias - theirs.predict(new.astype(np.float64))).max() < 1e-6


def test_sums_add_up_over_parts_and_come_apart_again(monkeypatch):
    monkeypatch.setattr("finetune.heads.sums.ROWS_AT_ONCE", 7)
    x, y = rows()
    first, second = np.arange(0, 90, 2), np.arange(1, 90, 2)
    parts = [Sums.of(x, y, part, 3) for part in (first, second)]
    for found, wanted in ((parts[0] + parts[1], sums_of(x, y)), (sums_of(x, y) - parts[1], parts[0])):
        for name in ("counts", "totals", "squares"):
            assert np.allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12, atol=1e-9)


def test_the_factor_of_ridge_has_the_lowest_cross_entropy():
    y = rows()[1]
    scores = np.eye(3)[y] * 0.4 + np.random.default_rng(0).normal(0, 0.3, (len(y), 3))
    best = best_scale(scores, y)
    losses = [cross_entropy(softmax(scores * best * factor), y) for factor in (0.8, 1.0, 1.25)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("kind", [*STRENGTHS, "auto"])
def test_the_network_gives_what_the_head_gives(kind):
    x, y = rows()
    network = Head(12, 3)
    chooser = HeadChooser(network, (x, y), rows(1, 30), replace(TrainConfig(), head=kind), 3, seed=1)
    said = []
    fitted = chooser.fit(on_epoch=said.append)
    best = chooser.chosen
    assert kind in ("auto", best.kind) and len(said) == 1 + sum(
        len(STRENGTHS[k]) for k in STRENGTHS if kind in ("auto", k)
    )
    new = rows(2)[0]
    if best.kind in FROM_SUMS:
        weight, bias = FROM_SUMS[best.kind](sums_of(x, y), best.strength)
        wanted = softmax(best.scale * (new @ weight + bias))
    else:
        wanted = LinearHead(x, y, 3, best.strength)(new)
    assert np.abs(chooser.predictor(new) - wanted).max() < 1e-4
    assert fitted.best_epoch == 1 and 0 <= fitted.history[0].valid_accuracy <= 1
    with chooser.weights.kept():
        chooser.fit(np.arange(40), on_epoch=said.append)
        assert np.abs(chooser.predictor(new) - wanted).max() > 1e-3
    assert np.abs(chooser.predictor(new) - wanted).max() < 1e-4


def test_rows_on_the_disk_give_the_same_head_and_leave_logistic_out():
    class Stored:
        """What stays on the disk: it is read by row numbers, and is no array."""

        def __init__(self, rows):
            self.rows, self.shape = rows, rows.shape

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, wanted):
            return self.rows[wanted]

    x, y = rows()
    config = replace(TrainConfig(), head="auto")
    found = []
    for train in (x, Stored(x)):
        chooser = HeadChooser(Head(12, 3), (train, y), (x[:0], y[:0]), config, 3, seed=1)
        said = []
        best = chooser.choose(said.append)
        found.append([line for line in said if "logistic" not in line and "chosen" not in line])
        assert any("logistic" in line for line in said) == (train is x) and best.kind in STRENGTHS
    assert len(set(found[0]) & set(found[1])) >= 7
    with pytest.raises(InputError, match="ridge, lda or auto"):
        config = replace(config, head="logistic")
        HeadChooser(Head(12, 3), (Stored(x), y), (x[:0], y[:0]), config, 3, seed=1).choose(print)


def test_the_choice_looks_at_rows_that_did_not_train():
    """Labels without any meaning: who looks at the rows that trained would be sure, out of fold it is chance."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 200)).astype(np.float32), rng.integers(0, 2, 60)
    chooser = HeadChooser(Head(200, 2), (x, y), (x[:0], y[:0]), replace(TrainConfig(), head="auto"), 2, seed=1)
    assert chooser.choose(lambda line: None).accuracy < 0.75
    fitted = chooser.fit(on_epoch=lambda line: None)
    assert fitted.history[0].train_accuracy > 0.9 and np.isnan(fitted.history[0].valid_loss)


def test_a_run_with_a_chosen_head(toy_pictures, toy_backbone, tmp_path):
    done = call(
        *("finetune", "train", "--dataset_path", toy_pictures, "--pretrain_ckpt", toy_backbone, "--name", "chosen"),
        *("--runs_dir", tmp_path, "--cache_dir", tmp_path / "cache", "--set", "data.views=false"),
        *("--set", "train.head=auto", "--set", "data.size=48", "--set", "data.fit=whole"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 folds of 36 training pictures" in done.stdout and "  chosen" in done.stdout
    metrics = json.loads((tmp_path / "chosen" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["head"]["kind"] in STRENGTHS
    report = (tmp_path / "chosen" / "report.html").read_text(encoding="utf-8")
    assert f"Head: {metrics['head']['kind']}, strength {metrics['head']['strength']:g}; chosen by" in report
    assert "The network sees 48 x 48 pixels: all of each picture" in report
    assert "Training</h2>" not in report and not (tmp_path / "chosen" / "figures" / "curves.png").exists()
    trained = load_trained(tmp_path / "chosen")
    assert trained.image.size == trained.image.resize == (48, 48)


@pytest.mark.parametrize(
    "flags",
    [
        {"train.head": "lda", "model.hidden": 8},
        {"train.head": "auto", "train.members": 3},
        {"train.head": "ridge", "model.backbone": None},
        {"train.head": "ridge", "train.class_weights": "balanced"},
        {"model.backbone": None, "data.size": 288},
        {"train.head": "lda", "train.label_smoothing": 0.1},
        {"export.precision": ["int8"]},
        {"model.backbone": None, "model.convolution": "binary", "workers": 2},
        {"model.train_from": "block_15", "train.tail.batch_size": 8, "workers": 9},
    ],
)
def test_what_makes_no_sense_together_is_refused(flags):
    with pytest.raises(InputError):
        load_config(None, flags)


@pytest.mark.parametrize("kind", ["auto", "ridge", "lda"])
def test_with_one_picture_of_each_class_nothing_is_chosen(kind):
    x, y = rows()
    few = np.concatenate([np.flatnonzero(y == c)[:1] for c in range(3)])
    chooser = HeadChooser(Head(12, 3), (x[few], y[few]), (x[:0], y[:0]), replace(TrainConfig(), head=kind), 3, seed=1)
    said = []
    fitted = chooser.fit(on_epoch=said.append)
    assert len(said) == 1 and "nothing to choose by" in said[0] and chooser.chosen.accuracy is None
    assert fitted.history[0].train_accuracy == 1


@pytest.mark.parametrize(("counts", "dealt"), [((9, 9, 2), "5 folds of 20"), ((4, 3, 1), "4 folds of 7")])
def test_a_small_class_does_not_take_the_choice_from_the_others(counts, dealt):
    """One picture of a class trains in each fold, and two in all but the two that they judge."""
    x, y = rows()
    few = np.concatenate([np.flatnonzero(y == c)[:count] for c, count in enumerate(counts)])
    chooser = HeadChooser(Head(12, 3), (x[few], y[few]), (x[:0], y[:0]), replace(TrainConfig(), head="lda"), 3, seed=1)
    said = []
    fitted = chooser.fit(on_epoch=said.append)
    assert said[0] == f"heads, {dealt} training pictures:" and fitted.history[0].train_accuracy == 1
