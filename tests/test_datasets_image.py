import io
from dataclasses import replace

import numpy as np
import pytest
from conftest import draw_toy
from PIL import Image

from datasets.decoding.decode import whole
from datasets.image import (
    ImageSpec,
    centre_crop,
    from_pixels,
    load_images,
    normalise,
    odd_tone,
    resize,
    to_array,
    without_margin,
)

SPEC = ImageSpec(size=(8, 8), resize=10, mean_unit=(0.5, 0.4, 0.3), std_unit=(0.1, 0.2, 0.4))


def as_bytes(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def flat(mode: str, colour, size=(20, 12)) -> Image.Image:
    return Image.new(mode, size, colour)


def test_resize_to_the_short_side_keeps_the_aspect():
    assert resize(whole(flat("RGB", 0, (40, 20))), SPEC).size == (20, 10)
    assert resize(whole(flat("RGB", 0, (20, 40))), SPEC).size == (10, 20)


def test_resize_to_an_exact_size():
    spec = ImageSpec((8, 8), (10, 12), SPEC.mean_unit, SPEC.std_unit)
    assert resize(whole(flat("RGB", 0, (40, 20))), spec).size == (12, 10)


def test_a_thin_strip_does_not_become_a_giant():
    assert max(resize(whole(flat("RGB", 0, (5000, 1))), SPEC).size) <= 100


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (5000, 3), (7, 9)])
def test_any_size_gives_the_networks_size(size):
    assert to_array(as_bytes(flat("RGB", (1, 2, 3), size)), SPEC).tolist() == [[[1, 2, 3]] * 8] * 8


def test_the_crop_is_from_the_centre():
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    cropped = np.asarray(centre_crop(Image.fromarray(pixels), SPEC))
    assert np.array_equal(cropped, pixels[1:9, 1:9])


LETTERBOX = replace(SPEC, size=(8, 12), resize=(8, 12), letterbox=True)


@pytest.mark.parametrize(
    ("size", "box"),  # left, upper, right, lower of the picture on the page
    [
        ((24, 16), (0, 0, 12, 8)),
        ((12, 6), (0, 1, 12, 7)),
        ((12, 5), (0, 2, 12, 7)),  # an odd margin: more before than behind
        ((6, 6), (2, 0, 10, 8)),
        ((3, 8), (5, 0, 8, 8)),
        ((5000, 1), (0, 4, 12, 5)),
        ((1, 5000), (6, 0, 7, 8)),
    ],
)
def test_a_letterbox_shows_all_of_a_picture_in_its_shape_on_the_mean(size, box):
    found = to_array(as_bytes(flat("RGB", (1, 2, 3), size)), LETTERBOX)
    wanted = np.tile(np.uint8([round(127.5), 102, round(76.5)]), (8, 12, 1))
    left, upper, right, lower = box
    wanted[upper:lower, left:right] = (1, 2, 3)
    assert np.array_equal(found, wanted)
    margin = normalise(found[None], LETTERBOX)[0][:, (found != (1, 2, 3)).any(2)]
    assert (np.abs(margin) <= 0.5 / 255 / np.array(LETTERBOX.std_unit).reshape(3, 1) + 1e-6).all()


def test_a_letterbox_is_another_key_and_nothing_else_is():
    assert "letterbox" not in SPEC.to_dict()
    assert ImageSpec.from_dict(LETTERBOX.to_dict()) == LETTERBOX != replace(LETTERBOX, letterbox=False)
    for wrong in ({"letterbox": 3}, {"resize": [8, 8]}, {"resize": 8}):
        with pytest.raises(ValueError, match="letterbox"):
            ImageSpec.from_dict({**LETTERBOX.to_dict(), **wrong})


def test_normalise_is_the_formula_in_rgb_order():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    found = normalise(images, SPEC)
    assert found.shape == (2, 3, 4, 5) and found.dtype == np.float32
    for channel in range(3):
        wanted = (images[..., channel] / 255 - SPEC.mean_unit[channel]) / SPEC.std_unit[channel]
        assert np.allclose(found[:, channel], wanted, atol=1e-5)


def test_load_images_reports_the_damaged_one(tmp_path):
    good = draw_toy(tmp_path / "good.png", (100, 100, 100), 0)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    images, damaged = load_images([good, bad, tmp_path / "absent.png"], SPEC)
    assert set(damaged) == {1, 2} and damaged[2] == "not there any more"
    assert images[0].mean() > 50


@pytest.mark.parametrize(
    ("levels", "tone"),
    [((90, 90), "one flat tone"), ((90, 91), "one flat tone"), ((0, 15), "less than a sixteenth"), ((0, 16), None)],
)
def test_a_picture_that_shows_next_to_nothing_is_noticed(levels, tone):
    image = np.full((64, 64, 3), levels[0], np.uint8)
    image[20:40, 20:40, 1] = levels[1]
    found = odd_tone(image)
    assert found is None if tone is None else found.startswith(tone)
    assert odd_tone(np.full((64, 64, 3), (200, 10, 90), np.uint8)) == "one flat tone"


@pytest.mark.parametrize("size", [(40, 13), (13, 40), (7, 7), (4000, 3)])
def test_the_margin_of_a_letterbox_is_no_part_of_the_picture(size):
    spec = replace(SPEC, size=(33, 20), resize=(33, 20), letterbox=True)
    content = as_bytes(flat("RGB", (250, 10, 20), size))
    image = to_array(content, spec)
    shown = without_margin(image, size, spec)
    assert (shown == (250, 10, 20)).all() and (image != (250, 10, 20)).any(2).sum() == 33 * 20 - shown[..., 0].size
    assert odd_tone(shown) == "one flat tone" and without_margin(image, size, SPEC) is image


def test_a_spec_survives_json_types():
    assert ImageSpec.from_dict(SPEC.to_dict()) == SPEC
    assert all(isinstance(value, (int, list)) for value in SPEC.to_dict().values())


GREY = ImageSpec(size=(28, 28), resize=(28, 28), mean_unit=(0.1,), std_unit=(0.3,))
DIGIT = ImageSpec(size=(28, 28), resize=(28, 28), mean_unit=(0.1,), std_unit=(0.3,), strokes=20)


def test_one_mean_makes_grey_pictures():
    images = to_array(as_bytes(flat("RGB", (10, 20, 30), (40, 40))), GREY)
    assert images.shape == (28, 28, 1) and set(images.ravel()) == {round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)}
    assert normalise(images[None], GREY).shape == (1, 1, 28, 28)


def written(paper: int, ink: int, left: int, size=(300, 200)) -> bytes:
    """A bar of 20 x 80 pixels somewhere on a page."""
    page = np.full(size[::-1], paper, np.uint8)
    page[30:110, left : left + 20] = ink
    return as_bytes(Image.fromarray(page))


@pytest.mark.parametrize("paper, ink", [(255, 0), (230, 40), (0, 255), (30, 220)])
def test_handwriting_comes_out_as_mnist_has_it(paper, ink):
    """White on black, 20 pixels high, the centre of mass in the middle, wherever and however it was written."""
    for left in (15, 250):
        image = to_array(written(paper, ink, left), DIGIT)[..., 0].astype(float)
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert image.max() == 255 and len(rows) == 20 and len(columns) == 5
        middle = [image.sum(axis) @ np.arange(28) / image.sum() for axis in (0, 1)]
        assert middle == pytest.approx([13.5, 13.5], abs=0.51)


def test_a_prepared_digit_is_taken_as_it_is():
    digit = np.zeros((28, 28), np.uint8)
    digit[2:9, 3:6] = 200  # neither centred nor 20 high
    assert np.array_equal(to_array(as_bytes(Image.fromarray(digit)), DIGIT)[..., 0], digit)
    assert np.array_equal(to_array(as_bytes(Image.fromarray(255 - digit)), DIGIT)[..., 0], digit)


def test_an_empty_page_is_black():
    assert not to_array(as_bytes(flat("L", 250, (100, 80))), DIGIT).any()


def test_arrays_are_pictures_already():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    images = from_pixels(pixels, GREY)
    assert images.shape == (3, 28, 28, 1) and np.array_equal(images[..., 0], pixels)
    assert load_images(images, GREY)[0] is images
    smaller = from_pixels(pixels, ImageSpec(size=(14, 7), resize=(14, 7), mean_unit=(0.1,), std_unit=(0.3,)))
    assert smaller.shape == (3, 14, 7, 1) and smaller.mean() == pytest.approx(pixels.mean(), abs=5)


def test_the_facts_of_colour_pictures_are_the_old_ones():
    assert set(SPEC.to_dict()) == {"size", "resize", "mean_unit", "std_unit"}
    assert ImageSpec.from_dict(DIGIT.to_dict()) == DIGIT
