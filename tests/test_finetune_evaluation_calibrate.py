import numpy as np
import pytest

from finetune.evaluation.calibrate import (
    calibrate,
    fit_confidence,
    fit_on_validation,
    fit_temperature,
    fit_threshold,
    temper,
)
from finetune.heads.folds import deal
from finetune.metrics import calibration_error, cross_entropy


def overconfident(count=2000, factor=3.0):
    """Labels drawn from known probabilities, and those probabilities made `factor` times too sure."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (count, 4))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (true.cumsum(1) > rng.random((count, 1))).argmax(1)
    return temper(true, 1 / factor), y


def test_the_temperature_undoes_overconfidence():
    probabilities, y = overconfident()
    temperature = fit_temperature(probabilities, y)
    assert temperature == pytest.approx(3, rel=0.1)
    calibrated = temper(probabilities, temperature)
    assert calibration_error(calibrated, y) < 0.3 * calibration_error(probabilities, y)
    for other in (0.9 * temperature, 1.1 * temperature):
        assert cross_entropy(calibrated, y) < cross_entropy(temper(probabilities, other), y)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1, 20])
def test_no_temperature_changes_a_class_and_rows_stay_probabilities(temperature):
    probabilities = overconfident()[0].astype(np.float32)
    tempered = temper(probabilities, temperature)
    assert np.array_equal(tempered.argmax(1), probabilities.argmax(1))
    assert np.allclose(tempered.sum(1), 1) and np.isfinite(temper(np.array([[1.0, 0.0]]), temperature)).all()


def test_the_threshold_halves_the_share_of_wrong_answers():
    confidence = np.array([0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    right = np.array([True, True, True, True, True, False, False, True])  # 2 of 8 are wrong
    assert fit_threshold(confidence, right) == 0.7
    assert fit_threshold(confidence, np.ones(8, bool)) == 0.4


def test_folds_are_disjoint_and_stratified():
    y = np.repeat([0, 1, 2], [30, 12, 3])
    fold = deal(y, 3, seed=1)
    for label, count in ((0, 10), (1, 4), (2, 1)):
        assert np.bincount(fold[y == label], minlength=3).tolist() == [count] * 3
    assert not np.array_equal(fold, deal(y, 3, seed=2))


def test_every_row_is_predicted_by_a_head_that_has_not_seen_it():
    y = np.repeat([0, 1], 20).astype(np.int32)
    x = np.arange(40, dtype=np.float32)[:, None]
    seen = []

    def train(rows):
        mine = set(x[rows, 0])
        seen.append(len(mine))

        def predict(held_out):
            assert not mine & set(held_out[:, 0])
            one = np.where(held_out >= 20, 0.9, 0.1)
            return np.hstack([1 - one, one])

        return predict

    found = fit_confidence(train, (x, y), folds=5, seed=1)
    assert seen == [32] * 5
    assert found.accuracy == found.accuracy_answered == found.answered == 1 and found.pictures == 40


@pytest.mark.parametrize("labels, folds", [([0, 0, 1], 5), ([0, 0, 1, 1], 0)])
def test_nothing_is_fitted_where_it_cannot_be(labels, folds):
    y = np.array(labels)
    assert fit_confidence(lambda rows: pytest.fail("trained"), (np.zeros((len(y), 2)), y), folds, seed=1) is None


def test_a_few_validation_rows_that_are_all_right_are_no_reason_to_be_sure():
    y = np.arange(12) % 2
    probabilities = np.where(np.eye(2)[y] == 1, 0.9, 0.1)
    assert fit_temperature(probabilities, y) < 0.06  # as far as it goes
    found = fit_on_validation(probabilities, y)
    wanted = 1 - 1 / 14  # what Platt asks of 12 right answers
    assert temper(probabilities, found.temperature).max() == pytest.approx(wanted, abs=0.001)
    assert found.folds == 1 and found.pictures == 12 and found.answered == 1
    many, labels = overconfident()
    assert fit_on_validation(many, labels).temperature == pytest.approx(fit_temperature(many, labels), rel=0.05)
    assert fit_on_validation(many[:0], labels[:0]) is None


def test_resampled_rows_without_validation_rows_have_no_confidence():
    class Trained:
        valid = np.empty((0, 4), np.float32), np.empty(0, np.int32)

        @staticmethod
        def predictor(x):
            raise AssertionError("nothing to predict")

    assert calibrate(Trained, 3, resampled=True) is None
