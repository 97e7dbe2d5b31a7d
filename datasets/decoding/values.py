"""What the values of a picture mean: any mode of Pillow's as RGB.

8 bits a channel    as they are; colour profiles are ignored
16 bits             the file's depth, or the depth or largest value that it states (TIFF, PGM)
32 bits, grey       0 is black, and 255 of integers or 1 of real numbers is white; where values go beyond, the
                    picture's own smallest or largest is. NaN is black and decides nothing, nor does infinity
transparency        over white; one that hides the whole picture is none
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

STRIP_PIXELS = 2**22  # converted at once
KEPT = 2  # times `enough`, on the short side, is left when a large picture is reduced
BITS, PHOTOMETRIC, LARGEST_INTEGER, SMALLEST_REAL, LARGEST_REAL = 258, 262, 281, 340, 341  # tags of TIFF


def to_rgb(picture: Image.Image, enough: int | None = None, show_hidden: bool = False) -> Image.Image:
    """A loaded picture of any mode as RGB. A large one is converted and reduced strip by strip, to at least KEPT times
    `enough` on the short side."""
    convert = converter(picture, show_hidden)
    factor = max(1, min(picture.size) // (KEPT * enough)) if enough else 1
    if factor == 1:
        return convert(picture)
    small = Image.new("RGB", [-(-side // factor) for side in picture.size])
    for top, strip in strips(picture, factor):
        small.paste(convert(strip).reduce(factor), (0, top // factor))
    return small


def strips(picture: Image.Image, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """(first row, strip) of a few million pixels each, so many rows high that `multiple` divides them."""
    rows = max(1, STRIP_PIXELS // picture.width // multiple) * multiple
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def converter(picture: Image.Image, show_hidden: bool) -> Callable[[Image.Image], Image.Image]:
    """What turns the picture, or a strip of it, into RGB."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        black, white = value_range(picture)
        return lambda strip: to_8_bits(strip, black, white)
    if picture.mode == "LAB":
        return lab_to_rgb
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        if show_hidden and all(strip.convert("RGBA").getextrema()[3][1] == 0 for _, strip in strips(picture)):
            return lambda strip: strip.convert("RGBA").convert("RGB")
        return over_white
    return lambda strip: strip if strip.mode == "RGB" else strip.convert("RGB")


def over_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def lab_to_rgb(picture: Image.Image) -> Image.Image:
    from PIL import ImageCms  # not in every build of Pillow

    return ImageCms.profileToProfile(picture, ImageCms.createProfile("LAB"), _srgb(), outputMode="RGB")


def _srgb():
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


def value_range(picture: Image.Image) -> tuple[float, float]:
    """(black, white) of a grey picture of more than 8 bits, see the top."""
    tags = getattr(picture, "tag_v2", {})
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        black, white = 0.0, float(2 ** min(tags.get(BITS, (16,))[0], 16) - 1)
        stated = _stated(tags, LARGEST_INTEGER)
        white = stated if stated and 0 < stated < white else white
    else:
        black, white = 0.0, 1.0 if picture.mode == "F" else 255.0
        stated = _stated(tags, SMALLEST_REAL), _stated(tags, LARGEST_REAL)
        if None not in stated and stated[0] < stated[1]:
            black, white = stated
        else:
            for _, strip in strips(picture):
                values = np.asarray(strip)
                values = values[np.isfinite(values)]
                black = min(black, float(values.min(initial=black)))
                white = max(white, float(values.max(initial=white)))
    return (white, black) if tags.get(PHOTOMETRIC) == 0 else (black, white)  # 0: white is zero


def _stated(tags, tag: int) -> float | None:
    values = tags.get(tag)
    value = max(values) if isinstance(values, tuple) and values else values
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else None


def to_8_bits(picture: Image.Image, black: float, white: float) -> Image.Image:
    """Values of a grey picture -> RGB, `black` as 0 and `white` as 255, by strips."""
    levels = np.empty((picture.height, picture.width), np.uint8)
    for top, strip in strips(picture):
        values = np.asarray(strip, np.float64)
        with np.errstate(all="ignore"):
            values = (values - black) * (255 / (white - black))
            levels[top : top + strip.height] = np.nan_to_num(values).round().clip(0, 255)
    return Image.fromarray(levels).convert("RGB")
