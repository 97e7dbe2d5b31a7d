import numpy as np
import pytest

from finetune.config import AugmentConfig
from finetune.features.augment import augment, is_on

ALL = AugmentConfig(shift=2, rotate=15, zoom=0.2, elastic=1)


def pictures(count=6, height=20, width=16, channels=1):
    return np.random.default_rng(0).normal(0, 1, (count, channels, height, width)).astype(np.float32)


def blob(row, column, height=21, width=21):
    y, x = np.mgrid[:height, :width]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8).astype(np.float32)[None, None]


def mass(x):
    x = x[0, 0]
    return x.sum(1) @ np.arange(x.shape[0]) / x.sum(), x.sum(0) @ np.arange(x.shape[1]) / x.sum()


def test_one_seed_one_result_and_no_two_pictures_alike():
    x = np.repeat(pictures(1), 4, axis=0)
    first, second, other = (augment(x, ALL, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert len({one.tobytes() for one in first}) == 4
    assert x.tobytes() == np.repeat(pictures(1), 4, axis=0).tobytes()  # what was given is left alone


def test_nothing_moves_when_nothing_is_asked():
    x = pictures(channels=3)
    assert not is_on(AugmentConfig()) and is_on(AugmentConfig(elastic=1))
    assert augment(x, AugmentConfig(), np.random.default_rng(0)) == pytest.approx(x, abs=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_shifts_reach_as_far_as_asked_and_no_farther(axis):
    x = np.repeat(blob(10, 10), 300, axis=0)
    moved = augment(x, AugmentConfig(shift=3), np.random.default_rng(0))
    places = np.array([mass(one[None])[axis] - 10 for one in moved])
    assert -3.01 < places.min() < -2.5 and 2.5 < places.max() < 3.01 and abs(places.mean()) < 0.3


def test_rotation_keeps_the_distance_to_the_middle():
    x = np.repeat(blob(10, 14), 200, axis=0)
    moved = augment(x, AugmentConfig(rotate=30), np.random.default_rng(0))
    places = np.array([mass(one[None]) for one in moved]) - 10
    assert np.hypot(*places.T) == pytest.approx(np.full(200, 4), abs=0.05)
    angles = np.degrees(np.arctan2(*places.T))
    assert -30.5 < angles.min() < -25 and 25 < angles.max() < 30.5


def test_zoom_changes_the_distance_to_the_middle():
    moved = augment(np.repeat(blob(10, 14), 200, axis=0), AugmentConfig(zoom=0.2), np.random.default_rng(0))
    columns = np.array([mass(one[None])[1] for one in moved]) - 10
    assert 4 * 0.79 < columns.min() < 4 * 0.85 and 4 * 1.15 < columns.max() < 4 * 1.21


def test_elastic_moves_neighbours_alike_and_far_points_apart():
    """On ramps, whose value is the place: displacements are what is added to them."""
    y, x = np.mgrid[:28, :28].astype(np.float32)
    ramps = np.repeat(np.stack([y, x])[None], 50, axis=0)
    moved = augment(ramps, AugmentConfig(elastic=1.0), np.random.default_rng(0)) - ramps
    inner = moved[:, :, 6:-6, 6:-6]
    assert 0.5 < np.abs(inner).mean() < 1.3
    assert np.abs(np.diff(inner, axis=3)).mean() < 0.25 * np.abs(inner).mean()
    assert inner.std(axis=(2, 3)).mean() > 0.2  # not a mere shift


def test_what_comes_in_is_the_edge():
    x = np.full((5, 1, 9, 9), 7, np.float32)
    assert augment(x, AugmentConfig(shift=4, rotate=40, zoom=0.3), np.random.default_rng(0)) == pytest.approx(x)
