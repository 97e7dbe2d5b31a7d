"""The one way from the bytes of a picture to the array a network sees.

    read -> resize -> crop        bytes to uint8 (H, W, 3), by Pillow
    normalise                     uint8 (B, H, W, 3) to float32 (B, 3, H, W), by NumPy

Where the spec has one channel, a picture is grey and 3 becomes 1; handwriting is inverted and centred in between.

Training, evaluation, prediction and export all come through here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Part of the key of cached features: count it up when the same bytes would give other pixels.
PIPELINE_VERSION = 1

# A longer strip is cut to this before it is enlarged: 1 x 5000 pixels must not become 256 x 1,280,000.
LONGEST_ASPECT = 8

WHITE_PAPER = 127  # a border brighter than this is paper to write on
FAINT = 51  # a fifth of the darkest stroke: less is no part of the drawing's box


@dataclass(frozen=True)
class ImageSpec:
    """How the network behind some weights wants its pictures."""

    size: tuple[int, int]  # H, W of the network's input, cropped from the centre
    resize: int | tuple[int, int]  # first to this short side, or to exactly this H, W (squashed)
    mean_unit: tuple[float, ...]  # of R, G, B in 0..1; one number for grey pictures
    std_unit: tuple[float, ...]
    strokes: int = 0  # grey handwriting, white on black, fitted into a box of this many pixels; 0: a picture as it is

    @property
    def channels(self) -> int:
        return len(self.mean_unit)

    def to_dict(self) -> dict:
        """The facts as plain JSON and YAML types; `from_dict` reads them back."""
        facts = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if not self.strokes:
            del facts["strokes"]  # the key of features that were cached before there was such a fact
        return facts

    @classmethod
    def from_dict(cls, facts: dict) -> ImageSpec:
        return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in facts.items()})


# Pillow warns of odd EXIF blocks, but the pixels are what counts. Set once, because decoding is threaded and
# warnings.catch_warnings is not safe there.
warnings.filterwarnings("ignore", module=r"PIL\.")


class DamagedPicture(Exception):
    """The bytes are not a picture that can be decoded whole."""


def read(content: bytes) -> Image.Image:
    """Decode to upright RGB: EXIF orientation applied, alpha laid over white, 16 bits scaled to 8.

    Raises:
        DamagedPicture: empty, truncated, of an unknown format, or too large to be a photograph.
    """
    try:
        picture = Image.open(io.BytesIO(content))
        if picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels: a decompression bomb, not a photograph")
        picture.load()
        return to_rgb(_upright(picture))
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged bytes
        raise DamagedPicture(str(error).replace("<_io.BytesIO object", "<file")[:200]) from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(picture, in_place=True)  # most are upright: no copy
        return picture
    except Exception:  # an unreadable EXIF block says nothing about the orientation
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB without clipping or a black background."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        if values.max(initial=0) > 255:  # 16 bits a pixel
            values = values / 257
        elif picture.mode == "F" and values.max(initial=0) <= 1:
            values = values * 255
        picture = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def resize(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    """Bilinear with antialiasing, to the short side or the exact size that the spec states."""
    if isinstance(spec.resize, int):
        longest = LONGEST_ASPECT * min(picture.size)
        if max(picture.size) > longest:
            picture = ImageOps.fit(picture, [min(side, longest) for side in picture.size])
        scale = spec.resize / min(picture.size)
        width, height = (max(spec.resize, round(side * scale)) for side in picture.size)
    else:
        height, width = spec.resize
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def centre_crop(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    height, width = spec.size
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def normalise(images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W): (x / 255 - mean) / std in RGB."""
    mean, std = mean_and_std(spec)
    scaled = (images - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def mean_and_std(spec: ImageSpec) -> tuple[np.ndarray, np.ndarray]:
    """float32 (3,) and (3,) of R, G, B in levels 0..255."""
    return (
        np.float32(255) * np.array(spec.mean_unit, np.float32),
        np.float32(255) * np.array(spec.std_unit, np.float32),
    )


def to_array(content: bytes, spec: ImageSpec) -> np.ndarray:
    """The bytes of a file -> uint8 (H, W, 3), or (H, W, 1) for grey, at the network's size. Raises DamagedPicture."""
    return fitted(read(content), spec)


def fitted(picture: Image.Image, spec: ImageSpec) -> np.ndarray:
    """The same of a picture in RGB that has been read."""
    if spec.channels == 1:
        picture = picture.convert("L")
    picture = centre_strokes(picture, spec) if spec.strokes else centre_crop(resize(picture, spec), spec)
    return np.asarray(picture).reshape(*spec.size, spec.channels)


def centre_strokes(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    """Handwriting as MNIST has it: white on black, fitted into a box, its centre of mass in the middle.

    White paper is told by its border and inverted; what is darker than the paper's own grey becomes 0. A picture that
    has the network's size already is taken to be prepared: it is inverted at most.
    """
    height, width = spec.size
    ink = np.asarray(picture, dtype=np.float32)
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    paper = float(np.median(border))
    if paper > WHITE_PAPER:
        ink, paper = 255 - ink, 255 - paper
    if ink.shape == (height, width):
        return Image.fromarray(ink.astype(np.uint8))
    ink = (ink - paper).clip(0)
    ink *= 255 / max(float(ink.max()), 1)
    drawn = ink > FAINT
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not len(rows):  # an empty page
        return Image.new("L", (width, height))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    sides = (box[2] - box[0], box[3] - box[1])
    fitted = tuple(max(1, round(side * spec.strokes / max(sides))) for side in sides)
    strokes = Image.fromarray(ink.astype(np.uint8)).resize(fitted, Image.Resampling.BILINEAR, box=box)
    mass = np.asarray(strokes, dtype=np.float64) + 1e-9
    left = round((width - 1) / 2 - float(mass.sum(0) @ np.arange(fitted[0]) / mass.sum()))
    top = round((height - 1) / 2 - float(mass.sum(1) @ np.arange(fitted[1]) / mass.sum()))
    page = Image.new("L", (width, height))
    page.paste(strokes, (min(max(left, 0), width - fitted[0]), min(max(top, 0), height - fitted[1])))
    return page


def from_pixels(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """uint8 (N, h, w) or (N, h, w, 3), as a Dataset holds them -> uint8 (N, H, W, channels) at the network's size."""
    if pixels.shape[1:3] != tuple(spec.size):
        height, width = spec.size
        resized = (Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR) for one in pixels)
        pixels = np.stack([np.asarray(one) for one in resized])
    return pixels.reshape(len(pixels), *spec.size, spec.channels)


def load_images(pictures: Sequence[Path] | np.ndarray, spec: ImageSpec) -> tuple[np.ndarray, dict[int, str]]:
    """A few pictures at once: uint8 (N, H, W, 3) and {row: reason} of those that cannot be read.

    Pictures that are such an array already come back as they are.
    """
    if isinstance(pictures, np.ndarray):
        return pictures, {}
    images = np.zeros((len(pictures), *spec.size, spec.channels), dtype=np.uint8)
    damaged = {}
    for row, path in enumerate(pictures):
        try:
            images[row] = to_array(Path(path).read_bytes(), spec)
        except (DamagedPicture, OSError) as error:
            damaged[row] = str(error)
    return images, damaged


def batches(images: np.ndarray, spec: ImageSpec, size: int) -> Iterator[np.ndarray]:
    """Normalised float32 (B, 3, H, W) pieces of uint8 (N, H, W, 3), in order; the last may be smaller."""
    for start in range(0, len(images), size):
        yield normalise(images[start : start + size], spec)
