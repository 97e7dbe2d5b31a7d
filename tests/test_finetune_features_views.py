"""Views of pictures: the same in every run, of the right part of the picture, and each under a key of its own."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from conftest import RED_GREEN, TOY_SPEC, draw_toys
from PIL import Image
from test_finetune_features_cache import CountingEngine, backbone, fake_features, truth

from datasets.decoding.decode import decode, whole
from datasets.image import enough_for, fitted, normalise
from datasets.listing import find_pictures
from finetune.config import ViewConfig
from finetune.features.cache import extract
from finetune.features.views import Views, random_window

VIEWS = Views(4, seed=1)
NOTHING = ViewConfig(crop=1, flip=False, colour=0, blur=0)


def gradient(width: int, height: int):
    """Red tells the column, green the row, blue is flat."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.linspace(0, 250, width), np.linspace(0, 250, height)[:, None]
    return whole(Image.fromarray(picture))


@pytest.fixture
def pictures(tmp_path):
    return find_pictures(draw_toys(tmp_path / "pictures", {"": 5}, RED_GREEN))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def run(paths, cache, views, engine=None):
    return extract(paths, backbone(), engine or CountingEngine(), cache, 2, views)


def test_view_0_is_the_plain_picture_under_its_plain_key():
    content = hashlib.sha256(b"a picture").digest()
    assert VIEWS.key(content, 0) == content
    decoded = gradient(60, 40)
    assert np.array_equal(VIEWS.draw(decoded, TOY_SPEC, content, 0), fitted(decoded, TOY_SPEC))


def test_a_view_depends_on_content_number_seed_and_settings_only():
    decoded = gradient(60, 40)

    def drawn(content=b"a", view=1, seed=1, config=VIEWS.config):
        views = Views(4, seed, config)
        key = hashlib.sha256(content).digest()
        return views.key(key, view), views.draw(decoded, TOY_SPEC, key, view).tobytes()

    other = replace(VIEWS.config, crop=0.5)
    several = [drawn(), drawn(content=b"b"), drawn(view=2), drawn(seed=2), drawn(config=other)]
    assert drawn() == several[0]
    assert len({key for key, _ in several}) == len({pixels for _, pixels in several}) == len(several)


@pytest.mark.parametrize("resize", [36, (36, 36)], ids=["short side", "squashed"])
def test_windows_lie_in_the_picture_and_have_the_area_that_is_asked_for(resize):
    decoded, spec = gradient(300, 200), replace(TOY_SPEC, resize=resize)
    full = 200 * 200 if resize == 36 else 300 * 200
    shares = []
    for seed in range(300):
        left, upper, right, lower = random_window(decoded, spec, 0.25, np.random.default_rng(seed))
        assert 0 <= left < right <= 300 and 0 <= upper < lower <= 200
        shares.append((right - left) * (lower - upper) / full)
    assert 0.2 <= min(shares) <= 0.3 and 0.9 <= max(shares) <= 1.001
    assert np.mean(shares) == pytest.approx(0.62, abs=0.05)  # the middle of 0.25 to 1; long ones are cut off


def test_without_any_change_a_view_is_the_whole_picture():
    spec = replace(TOY_SPEC, resize=(32, 32))  # so that the plain view is not cropped
    stretched = []
    for view in range(1, 20):
        found = Views(20, 1, NOTHING).draw(gradient(64, 64), spec, bytes(32), view).astype(int)
        assert (np.diff(found[16, :, 0]) >= 0).all() and (np.diff(found[:, 16, 1]) >= 0).all()
        stretched.append((np.ptp(found[..., 0]), np.ptp(found[..., 1])))
    assert max(max(pair) for pair in stretched) >= 240 and min(max(pair) for pair in stretched) >= 240
    mirrored = [Views(20, 1, replace(NOTHING, flip=True)).draw(gradient(64, 64), spec, bytes(32), v) for v in range(20)]
    backwards = [picture[16, 0, 0] > picture[16, -1, 0] for picture in mirrored[1:]]
    assert 3 <= sum(backwards) <= 16


def test_in_a_letterbox_a_view_keeps_the_shape_of_its_window():
    spec = replace(TOY_SPEC, size=(32, 32), resize=(32, 32), letterbox=True, mean_unit=(0, 0, 1.0))
    config, decoded, key = replace(NOTHING, crop=0.3), gradient(300, 100), bytes(32)
    for view in range(1, 20):
        found = Views(20, 1, config).draw(decoded, spec, key, view)
        rng = np.random.default_rng(int.from_bytes(Views(20, 1, config).key(key, view), "little"))
        left, upper, right, lower = random_window(decoded, spec, 0.3, rng)
        rows, columns = np.nonzero(found[..., 2] != 255)
        sides = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1])
        assert found.shape == (32, 32, 3) and max(sides) == 32
        assert np.abs(sides - 32 * np.array([right - left, lower - upper]) / max(right - left, lower - upper)).max() < 1


def test_colour_and_blur_stay_mild():
    grey = whole(Image.new("RGB", (64, 64), (120, 120, 120)))
    levels = [Views(30, 1, ViewConfig(colour=0.2)).draw(grey, TOY_SPEC, bytes(32), v).mean() for v in range(1, 30)]
    assert 120 * 0.79 <= min(levels) < 105 and 135 < max(levels) <= 120 * 1.21
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    sharp, soft = (
        Views(2, 1, replace(NOTHING, blur=blur)).draw(whole(Image.fromarray(noise)), TOY_SPEC, bytes(32), 1).std()
        for blur in (0, 3)
    )
    assert soft < sharp


def test_rows_of_views_stand_view_by_view_and_the_plain_ones_are_those_of_before(pictures, cache):
    plain = extract(pictures, backbone(), CountingEngine(), cache, 2)
    found = run(pictures, cache, VIEWS)
    assert plain.computed == 10 and found.computed == 30
    assert found.rows.shape == (40, 6) and np.array_equal(found.rows[:10], plain.rows)
    for row in (0, 7):
        content = pictures[row].read_bytes()
        picture = decode(content, enough_for(TOY_SPEC))
        key = hashlib.sha256(content).digest()
        images = np.stack([VIEWS.draw(picture, TOY_SPEC, key, view) for view in range(4)])
        assert np.allclose(found.rows[row::10], fake_features(normalise(images, TOY_SPEC)), atol=1e-6)


def test_cached_views_are_found_again_and_more_are_added_to_them(pictures, cache):
    first = run(pictures, cache, VIEWS)
    assert run(pictures[::-1], cache, VIEWS).computed == 0
    more = run(pictures, cache, replace(VIEWS, count=6))
    assert more.computed == 20 and np.array_equal(more.rows[:40], first.rows[:])
    assert run(pictures, cache, replace(VIEWS, seed=2)).computed == 30
    assert np.allclose(extract(pictures, backbone(), CountingEngine(), cache, 2).rows, truth(pictures), atol=1e-6)


def test_a_damaged_picture_has_no_view(pictures, cache, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n")
    found = run([*pictures, damaged], cache, VIEWS)
    assert found.readable.tolist() == [True] * 10 + [False]
    assert np.isnan(found.rows[10::11]).all() and np.isfinite(found.rows[0::11]).all()
