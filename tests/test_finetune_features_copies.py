"""Near copies: found when re-encoded, resized or cropped; two pictures of one kind are none."""

import numpy as np
import pytest
from PIL import Image

from finetune.features.copies import GRID, SMALL, alike, near_copies, small, small_on_grid


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


@pytest.mark.parametrize("size", [(128, 96), (40, 128)])
def test_all_boxes_at_once_are_each_box_alone(size):
    noise = np.random.default_rng(3).integers(0, 256, size[::-1], dtype=np.uint8)
    picture = Image.fromarray(noise)
    together = small_on_grid(picture)
    assert together.shape == (76, SMALL, SMALL)
    for box, found in zip(GRID, together, strict=True):
        assert (found * small(picture, box)).mean() > 0.999


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
