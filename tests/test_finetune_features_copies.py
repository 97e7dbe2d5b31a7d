"""Near copies: found when re-encoded, resized or cropped; two pictures of one kind are none."""

import numpy as np
import pytest
from PIL import Image

from finetune.features.copies import (
    GRID,
    SMALL,
    alike,
    correlation,
    fitted_part,
    line,
    near_copies,
    small,
    small_on_grid,
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two smooth pictures of the same colours, and copies of the first."""
    folder = tmp_path_factory.mktemp("copies")
    one, other = (
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 9, 3), dtype=np.uint8)).resize(
            (180, 240), Image.Resampling.BICUBIC
        )
        for seed in (1, 2)
    )
    copies = {
        "one.png": one,
        "other.png": other,
        "encoded.jpg": one,
        "resized.png": one.resize((60, 80)),
        "cropped.png": one.crop((20, 10, 170, 215)),
        "all.jpg": one.crop((5, 30, 160, 230)).resize((110, 140)),
    }
    for name, picture in copies.items():
        picture.save(folder / name, quality=40)
    (folder / "damaged.jpg").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize("name", ["encoded.jpg", "resized.png", "cropped.png", "all.jpg"])
def test_a_copy_is_found(photographs, name):
    assert near_copies(np.ones((2, 8), np.float32), [photographs / "one.png", photographs / name]) == [(0, 1)]


@pytest.mark.parametrize("name", ["other.png", "damaged.jpg"])
def test_pixels_decide(photographs, name):
    assert near_copies(np.ones((2, 8), np.float32), [photographs / "one.png", photographs / name]) == []


def test_features_propose():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2500, 256)).astype(np.float32)
    features[2400] = 3 * features[7] + 0.1 * features[8]
    assert alike(features) == [(7, 2400)]
    assert alike(features[:1]) == []


def test_the_nearest_three_of_each_row_are_proposed(monkeypatch):
    """In pieces or at once."""
    features = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(40)
    nearest = [(row, int(other)) for row in range(40) for other in np.argsort(-cosine[row])[:3]]
    wanted = sorted({(min(pair), max(pair)) for pair in nearest if cosine[pair] >= 0.6})
    assert len(wanted) > 40
    for at_once in (7, 256):
        monkeypatch.setattr("finetune.features.copies.ROWS_AT_ONCE", at_once)
        assert alike(features) == wanted


@pytest.mark.parametrize("size", [(128, 96), (40, 128)])
def test_all_boxes_at_once_are_each_box_alone(size):
    noise = np.random.default_rng(3).integers(0, 256, size[::-1], dtype=np.uint8)
    picture = Image.fromarray(noise)
    together = small_on_grid(noise.astype(np.float32))
    assert together.shape == (76, SMALL, SMALL)
    for box, found in zip(GRID, together, strict=True):
        assert (found * small(picture, box)).mean() > 0.999


@pytest.mark.parametrize(("side", "first", "last"), [(128, 0.0, 1.0), (96, 0.13, 0.8), (40, 0.3, 0.85), (30, 0.0, 0.6)])
def test_a_line_is_shrunk_as_pillow_does(side, first, last):
    identity = Image.fromarray(np.eye(side, dtype=np.float32))
    box = (0, first * side, side, last * side)
    theirs = np.asarray(identity.resize((side, SMALL), Image.Resampling.BILINEAR, box))
    assert np.abs(line(side, first, last) - theirs).max() < 1e-5


def test_a_part_is_found_edge_by_edge(photographs):
    picture = Image.open(photographs / "one.png").convert("L").resize((90, 120))
    box = (0.07, 0.11, 0.83, 0.92)
    pixels, wanted = np.asarray(picture, np.float32), small(picture, box)
    value, found = fitted_part(pixels, wanted, (0.0, 0.0, 1.0, 1.0), 0.0)
    assert value > 0.99 and np.abs(np.subtract(found, box)).max() < 0.025
    assert value == pytest.approx((small(picture, found) * wanted).mean(), abs=2e-3)
    assert correlation(pixels[:SMALL, :SMALL], wanted) < 0.9


def test_two_colours_of_one_shape_are_no_copies(tmp_path):
    """As two shirts on one sheet: in grey they are the same."""
    shape = np.random.default_rng(5).integers(0, 120, (12, 12, 1), dtype=np.uint8)
    shirts = {"red": shape * [2, 1, 1], "blue": shape * [1, 1, 2]}
    paths = []
    for name, pixels in shirts.items():
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels.astype(np.uint8)).resize((128, 128), Image.Resampling.BICUBIC).save(paths[-1])
    paths.append(tmp_path / "red again.jpg")
    Image.open(paths[0]).save(paths[-1], quality=60)
    assert near_copies(np.ones((3, 8), np.float32), paths) == [(0, 2)]
