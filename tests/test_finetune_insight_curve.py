"""The learning curve and its forecast."""

import numpy as np
import pytest

from finetune.insight.curve import forecast, in_turns, learning_curve, power_law

SIZES = np.array([100.0, 200, 400, 600, 800])


@pytest.mark.parametrize(("floor", "factor", "power"), [(0.05, 1.0, 0.5), (0.0, 2.0, 0.5), (0.1, 0.0, 1.0)])
def test_a_power_law_is_found_again(floor, factor, power):
    errors = floor + factor * SIZES**-power
    wanted = floor + factor * 1600**-power
    assert power_law(SIZES, errors[None], np.full(5, 0.001), 1600)[0] == pytest.approx(wanted, abs=1e-3)


def test_the_forecast_holds_the_truth():
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        errors = 0.05 + SIZES**-0.5 + rng.normal(0, 0.004, 5)
        curve = forecast(SIZES, 1 - errors, np.full(5, 0.004), 1600, 500, seed)
        held += curve.interval[0] <= 1 - 0.05 - 1600**-0.5 <= curve.interval[1]
    assert held >= 38


def test_beginnings_are_nested_and_stratified():
    y = np.repeat([0, 1, 2], [60, 30, 10])
    order = in_turns(y, seed=1)
    assert sorted(order) == list(range(100))
    assert np.bincount(y[order[:50]]) == pytest.approx([30, 15, 5], abs=1)


def test_that_more_does_not_help_is_not_said_of_a_wide_interval():
    wide, narrow = (
        forecast(SIZES, np.full(5, 0.75), np.full(5, 0.001), 1600, judged, 0).in_words() for judged in (50, 5000)
    )
    assert "hardly help" in narrow and wide.startswith("with 1600 training pictures")


def test_where_all_is_right_more_does_not_help():
    y = (np.arange(200) % 2).astype(np.int32)
    x = (np.random.default_rng(0).normal(size=(200, 5)) + 30 * y[:, None]).astype(np.float32)
    curve = learning_curve(x, y, 2, 0.01)
    assert curve.forecast == pytest.approx(1, abs=0.01) and "hardly help" in curve.in_words()
    assert curve.sizes[-1] == 160 and curve.twice == 320 and curve.interval[0] < 1
    assert learning_curve(x[:10], y[:10], 2, 0.01) is None
