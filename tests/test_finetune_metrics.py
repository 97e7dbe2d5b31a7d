import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from finetune.evaluation.summary import no_better_than
from finetune.metrics import (
    calibration_error,
    cross_entropy,
    majority_class,
    mcnemar,
    nearest_class_mean,
    summarise,
    wilson_interval,
)


@pytest.mark.parametrize(
    "correct, count, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_as_published(correct, count, low, high):
    """Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3."""
    assert wilson_interval(correct, count) == pytest.approx([low, high], abs=5e-5)


def test_summarise_counts_by_hand():
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.4, 0], [0.3, 0.7, 0]], np.float32)
    found = summarise(probabilities, np.array([0, 1, 1, 2]), ("a", "b", "c"))
    assert found["accuracy"] == 0.5 and found["pictures"] == 4
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert found["per_class"]["a"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "pictures": 1}
    assert found["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "pictures": 1}


def test_the_numbers_are_scikit_learns():
    rng = np.random.default_rng(0)
    classes = tuple("abcdef")
    y = rng.integers(0, 5, 200).astype(np.int32)  # "f" never occurs
    probabilities = rng.dirichlet(np.ones(6), 200)
    probabilities[:, 3] = 0  # "d" is never said
    found, predicted = summarise(probabilities, y, classes), probabilities.argmax(1)
    labels = np.arange(6)
    assert found["confusion"] == confusion_matrix(y, predicted, labels=labels).tolist()
    wanted = precision_recall_fscore_support(y, predicted, labels=labels, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "pictures"), wanted):
        assert [found["per_class"][name][key] for name in classes] == pytest.approx(values.tolist())


def test_cross_entropy_is_finite_at_zero():
    assert cross_entropy(np.array([[0.5, 0.5]]), np.array([0])) == pytest.approx(np.log(2))
    assert np.isfinite(cross_entropy(np.array([[1.0, 0.0]]), np.array([1])))


def test_calibration_error():
    sure_and_right = np.array([[1.0, 0.0]] * 4)
    assert calibration_error(sure_and_right, np.zeros(4, int)) == 0
    assert calibration_error(sure_and_right, np.array([0, 0, 1, 1])) == 0.5


def test_baselines():
    train_y = np.array([0, 1, 1, 1])
    assert majority_class(train_y, np.array([1, 0, 0, 0]))["accuracy"] == 0.25
    train_x = np.array([[0.0, 0], [4, 4], [5, 5], [6, 6]])
    assert nearest_class_mean(train_x, train_y, np.array([[1.0, 1], [4, 4]]), np.array([0, 1]))["accuracy"] == 1


@pytest.mark.parametrize("first, second", [(0, 0), (1, 0), (8, 2), (30, 30), (200, 140)])
def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(first, second):
    a = np.array([True] * first + [False] * second + [True, False] * 50)
    b = np.array([False] * first + [True] * second + [True, False] * 50)
    wanted = binomtest(first, first + second).pvalue if first + second else 1
    assert mcnemar(a, b) == pytest.approx(wanted) == mcnemar(b, a)


def test_a_warning_where_training_bought_nothing_and_none_where_means_are_as_good():
    def found(after: float, interval: list[float], majority: float, nearest: float, **others) -> str | None:
        accuracies = {"majority_class": {"accuracy": majority}, "nearest_class_mean": {"accuracy": nearest}}
        return no_better_than({"after": {"accuracy": after, "interval": interval}, **accuracies, **others})

    assert found(0.975, [0.943, 0.989], 0.5, 0.98) is None
    assert found(0.99, [0.946, 0.998], 0.5, 0.99) is None
    assert found(1.0, wilson_interval(14, 14), 0.5, 1.0) is None
    assert "nearest class mean (90.9 %)" in found(0.136, [0.11, 0.17], 0.1, 0.909)
    assert "the most frequent class (60.0 %)" in found(0.6, [0.5, 0.7], 0.6, 0.4)
    assert "learning_rate" in found(0.6, [0.5, 0.7], 0.6, 0.4, head=None)
    assert "learning_rate" not in found(0.6, [0.5, 0.7], 0.6, 0.4, head={"kind": "lda"})
