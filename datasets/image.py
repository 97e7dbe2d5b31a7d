"""The one way from the bytes of a picture to the array a network sees.

    decode -> resize -> crop      bytes to uint8 (H, W, 3), by Pillow; `datasets.decoding` says what is a picture. With
                                  a letterbox a picture keeps its shape and its edges, and a margin takes the rest
    normalise                     uint8 (B, H, W, 3) to float32 (B, 3, H, W), by NumPy

Where the spec has one channel, a picture is grey and 3 becomes 1; handwriting is inverted and centred in between.

Training, evaluation, prediction and export all come through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.decoding.decode import Decoded, decode, read_file
from datasets.decoding.formats import DamagedPicture

# Part of the key of cached features: count it up when the same bytes would give other pixels.
PIPELINE_VERSION = 2

# A longer strip is cut to this before it is enlarged: 1 x 5000 pixels must not become 256 x 1,280,000.
LONGEST_ASPECT = 8

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

LARGEST_SIDE = 4096  # of what a network sees

WHITE_PAPER = 127  # a border brighter than this is paper to write on
HANDWRITING = 1024  # pixels of a page's short side: the strokes may be a small part of it
FAINT = 51  # a fifth of the darkest stroke: less is no part of the drawing's box
FLAT, FAINT_RANGE, FAINT_LEVELS = "one flat tone", "less than a sixteenth of the range of brightness", 16


@dataclass(frozen=True)
class ImageSpec:
    """How the network behind some weights wants its pictures."""

    size: tuple[int, int]  # H, W of the network's input, cropped from the centre
    resize: int | tuple[int, int]  # first to this short side, or to exactly this H, W (squashed)
    mean_unit: tuple[float, ...]  # of R, G, B in 0..1; one number for grey pictures
    std_unit: tuple[float, ...]
    strokes: int = 0  # grey handwriting, white on black, fitted into a box of this many pixels; 0: a picture as it is
    interpolation: str = "bilinear"  # or "bicubic", a key of RESAMPLING; both with antialiasing
    letterbox: bool = False  # all of a picture in its own shape, as large as `size` allows; the rest is of the mean

    @property
    def channels(self) -> int:
        return len(self.mean_unit)

    def to_dict(self) -> dict:
        """The facts as plain JSON and YAML types; `from_dict` reads them back."""
        facts = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        for later, plain in (("strokes", 0), ("interpolation", "bilinear"), ("letterbox", False)):
            if facts[later] == plain:
                del facts[later]  # the key of features that were cached before there was such a fact
        return facts

    @classmethod
    def from_dict(cls, facts: dict) -> ImageSpec:
        """Raises TypeError or ValueError where a fact is missing, unknown, or no such fact."""
        spec = cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in facts.items()})
        if spec.interpolation not in RESAMPLING:
            raise ValueError(f"interpolation {spec.interpolation!r} is none of {', '.join(RESAMPLING)}")
        sides = (*spec.size, *(spec.resize if isinstance(spec.resize, tuple) else (spec.resize,)), spec.strokes + 1)
        if len(spec.size) != 2 or not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in sides):
            raise ValueError(f"size and resize must be numbers of pixels, found {spec.size} and {spec.resize}")
        if spec.letterbox not in (False, True) or (spec.letterbox and spec.resize != spec.size):
            raise ValueError(f"letterbox must be true or false, and its resize be its size, found {spec.resize}")
        for unit in (spec.mean_unit, spec.std_unit):
            if len(unit) not in (1, 3) or not all(isinstance(one, int | float) and abs(one) < 1e6 for one in unit):
                raise ValueError(f"mean_unit and std_unit must be one or three numbers, found {unit}")
        return spec


def resize(decoded: Decoded, spec: ImageSpec) -> Image.Image:
    """With antialiasing, to the short side or the exact size that the spec states, or to what fits into that."""
    picture, size, box, _ = decoded
    if spec.letterbox:
        width, height = inside(size, spec)
    elif isinstance(spec.resize, int):
        longest = LONGEST_ASPECT * min(picture.size)
        if max(picture.size) > longest:
            picture = ImageOps.fit(picture, [min(side, longest) for side in picture.size])
            size, box = picture.size, None
        scale = spec.resize / min(size)
        width, height = (max(spec.resize, round(side * scale)) for side in size)
    else:
        height, width = spec.resize
    return picture.resize((width, height), RESAMPLING[spec.interpolation], box)


def inside(size: tuple[float, float], spec: ImageSpec) -> tuple[int, int]:
    """Width and height of a picture of `size`, made as large as the network's input allows."""
    height, width = spec.size
    scale = min(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def centre_crop(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    height, width = spec.size
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    if spec.letterbox:
        return on_a_page(picture, spec, -left, -top)
    return picture.crop((left, top, left + width, top + height))


def on_a_page(picture: Image.Image, spec: ImageSpec, left: int, top: int) -> Image.Image:
    """With a margin of the mean colour: behind `normalise` that is 0, as near as a level can be."""
    height, width = spec.size
    page = Image.new(picture.mode, (width, height), tuple(round(255 * mean) for mean in spec.mean_unit))
    page.paste(picture, (left, top))
    return page


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
    return fitted(decode(content, enough_for(spec)), spec)


def enough_for(spec: ImageSpec) -> int:
    """The short side that `decode` is told: what a photograph has beyond twice of it, nobody sees."""
    if spec.strokes:
        return HANDWRITING
    return spec.resize if isinstance(spec.resize, int) else max(spec.resize)


def fitted(decoded: Decoded, spec: ImageSpec) -> np.ndarray:
    """The same of a picture that has been decoded."""
    if spec.channels == 1:
        decoded = decoded._replace(picture=decoded.picture.convert("L"))
    picture = centre_strokes(decoded.picture, spec) if spec.strokes else centre_crop(resize(decoded, spec), spec)
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

    Raises:
        OSError: a fault of the disk, the network or of rights, which says nothing about a picture.
    """
    if isinstance(pictures, np.ndarray):
        return pictures, {}
    images = np.zeros((len(pictures), *spec.size, spec.channels), dtype=np.uint8)
    damaged = {}
    for row, path in enumerate(pictures):
        try:
            images[row] = to_array(read_file(Path(path)), spec)
        except DamagedPicture as error:
            damaged[row] = str(error)
    return images, damaged


def without_margin(image: np.ndarray, size: tuple[int, int], spec: ImageSpec) -> np.ndarray:
    """What a prepared picture (H, W, C) shows of one of `size` (width, height): all of it but a letterbox's margin."""
    if not spec.letterbox:
        return image
    width, height = inside(size, spec)
    top, left = (image.shape[0] - height + 1) // 2, (image.shape[1] - width + 1) // 2
    return image[top : top + height, left : left + width]


def odd_tone(image: np.ndarray) -> str | None:
    """What is suspicious about a prepared picture, uint8 (H, W, C): FLAT, FAINT or nothing."""
    height, width, channels = image.shape
    few = image[:: height // 8 + 1, :: width // 8 + 1].reshape(-1, channels)  # most pictures are told by a few pixels
    if int(np.ptp(few, axis=0).max()) >= FAINT_LEVELS:
        return None
    spread = int(np.ptp(image.reshape(-1, channels), axis=0).max())
    return FLAT if spread <= 1 else FAINT_RANGE if spread < FAINT_LEVELS else None


def batches(images: np.ndarray, spec: ImageSpec, size: int) -> Iterator[np.ndarray]:
    """Normalised float32 (B, 3, H, W) pieces of uint8 (N, H, W, 3), in order; the last may be smaller."""
    for start in range(0, len(images), size):
        yield normalise(images[start : start + size], spec)
