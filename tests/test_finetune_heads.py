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
from finetune.heads.choice import KINDS, HeadChooser
from finetune.heads.closed_form import RidgeHead, ShrinkageHead, best_scale, softmax
from finetune.metrics import cross_entropy
from finetune.training.networks import Head


def rows(seed: int = 0, count: int = 90, width: int = 12, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds of unequal size."""
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, count, p=[0.5, 0.3, 0.2])
    centres = np.random.default_rng(7).normal(0, 1.2, (classes, width))
    return (centres[y] + rng.normal(0, 1.5, (count, width)) + 3).astype(np.float32), y


def test_lda_is_scikit_learns():
    """Its shrinkage mixes (1 - s) covariance + s mean variance; ours adds strength, which is s / (1 - s), and so has
    logits that are longer by 1 / (1 - s)."""
    x, y = rows()
    s = 0.2
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s).fit(x.astype(np.float64), y)
    ours = ShrinkageHead(x, y, 3, s / (1 - s))
    new = rows(1)[0]
    # scikit-learn standardises before it shrinks, so that only without shrinkage both are the same to the digit
    plain = LinearDiscriminantAnalysis(solver="lsqr").fit(x.astype(np.float64), y)
    assert np.abs(ShrinkageHead(x, y, 3, 1e-9)(new) - plain.predict_proba(new)).max() < 1e-3
    assert (ours(new).argmax(1) == theirs.predict(new)).mean() > 0.95


def test_ridge_is_scikit_learns_up_to_a_factor():
    x, y = rows()
    ours = RidgeHead(x, y, 3, 0.3)
    alpha = 0.3 * len(x) * x.var(0).mean()
    theirs = Ridge(alpha=alpha).fit(x.astype(np.float64), np.eye(3)[y])
    new = rows(1)[0]
    scores = theirs.predict(new.astype(np.float64))
    logits = (new - ours.mean) @ ours.weight + ours.bias
    factor = (logits * scores).sum() / (scores * scores).sum()
    assert factor > 0 and np.abs(logits - factor * scores).max() < 1e-2 * np.abs(logits).max()


def test_the_factor_of_ridge_has_the_lowest_cross_entropy():
    y = rows()[1]
    scores = np.eye(3)[y] * 0.4 + np.random.default_rng(0).normal(0, 0.3, (len(y), 3))
    best = best_scale(scores, y)
    losses = [cross_entropy(softmax(scores * best * factor), y) for factor in (0.8, 1.0, 1.25)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
def test_the_network_gives_what_the_head_gives(kind):
    x, y = rows()
    network = Head(12, 3)
    chooser = HeadChooser(network, (x, y), rows(1, 30), replace(TrainConfig(), head=kind), 3, seed=1)
    said = []
    fitted = chooser.fit(on_epoch=said.append)
    best = chooser.chosen
    assert kind in ("auto", best.kind) and len(said) == 1 + sum(len(KINDS[k][1]) for k in KINDS if kind in ("auto", k))
    new = rows(2)[0]
    wanted = KINDS[best.kind][0](x, y, 3, best.strength)(new)
    assert np.abs(chooser.predictor(new) - wanted).max() < 1e-4
    assert fitted.best_epoch == 1 and 0 <= fitted.history[0].valid_accuracy <= 1
    with chooser.weights_kept():
        chooser.fit(np.arange(40), on_epoch=said.append)
        assert np.abs(chooser.predictor(new) - wanted).max() > 1e-3
    assert np.abs(chooser.predictor(new) - wanted).max() < 1e-4


def test_the_choice_looks_at_rows_that_did_not_train():
    """Labels without any meaning: who looks at the rows that trained would be sure, out of fold it is chance."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 200)).astype(np.float32), rng.integers(0, 2, 60)
    chooser = HeadChooser(Head(200, 2), (x, y), (x[:0], y[:0]), replace(TrainConfig(), head="auto"), 2, seed=1)
    assert chooser.choose(lambda line: None).accuracy < 0.75
    fitted = chooser.fit(on_epoch=lambda line: None)
    assert fitted.history[0].train_accuracy > 0.9 and np.isnan(fitted.history[0].valid_loss)


def test_a_run_with_a_chosen_head_exports(toy_pictures, toy_backbone, tmp_path):
    done = call(
        *("finetune", "run", "--dataset_path", toy_pictures, "--pretrain_ckpt", toy_backbone, "--name", "chosen"),
        *("--runs_dir", tmp_path, "--cache_dir", tmp_path / "cache", "--set", "data.views=false"),
        *("--set", "train.head=auto", "--set", "data.size=48", "--set", "data.fit=whole"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 folds of 36 training pictures" in done.stdout and "  chosen" in done.stdout
    metrics = json.loads((tmp_path / "chosen" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["head"]["kind"] in KINDS
    manifest = json.loads((tmp_path / "chosen" / "export" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["image"]["size"] == [48, 48] and manifest["image"]["resize"] == [48, 48]
    assert manifest["models"]["mobilenetv2.mindir"]["input"]["shape"] == [-1, 3, 48, 48]


@pytest.mark.parametrize(
    "flags",
    [
        {"train.head": "lda", "model.hidden": 8},
        {"train.head": "auto", "train.members": 3},
        {"train.head": "ridge", "model.backbone": None},
        {"train.head": "ridge", "train.class_weights": "balanced"},
        {"model.backbone": None, "data.size": 288},
    ],
)
def test_what_makes_no_sense_together_is_refused(flags):
    with pytest.raises(InputError):
        load_config(None, flags)
