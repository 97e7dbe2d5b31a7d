"""Views of a picture for training: the plain one, and others that are cropped, mirrored, tinted and blurred at random.

View 0 is the picture as evaluation sees it. What another view looks like is drawn from a hash of the picture's bytes,
the seed, the settings and its number: it is the same in every run, on every machine, whatever pictures are beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from datasets.decoding.decode import Decoded
from datasets.image import RESAMPLING, ImageSpec, centre_crop, fitted, inside
from finetune.config import ViewConfig

ASPECT = 4 / 3  # a window is at most so much wider or higher than the plain view


@dataclass(frozen=True)
class Views:
    """How many of each picture, and which."""

    count: int = 1
    seed: int = 1
    config: ViewConfig = field(default_factory=ViewConfig)

    def key(self, content: bytes, view: int) -> bytes:
        """The key of a view in the cache, 32 bytes; that of view 0 is `content`, the sha256 of the picture's bytes."""
        if view == 0:
            return content
        facts = json.dumps({"view": view, "seed": self.seed, **asdict(self.config)}, sort_keys=True)
        return hashlib.sha256(content + facts.encode()).digest()

    def draw(self, decoded: Decoded, spec: ImageSpec, content: bytes, view: int) -> np.ndarray:
        """View `view` of a decoded picture: uint8 (H, W, 3) at the network's size."""
        if view == 0:
            return fitted(decoded, spec)
        rng = np.random.default_rng(int.from_bytes(self.key(content, view), "little"))
        return np.asarray(draw(decoded, spec, self.config, rng))


PLAIN = Views()


def draw(decoded: Decoded, spec: ImageSpec, config: ViewConfig, rng: np.random.Generator) -> Image.Image:
    """Random resized crop (Szegedy et al., 2015), mirror, colour, blur; of a picture in RGB."""
    height, width = spec.size
    window = random_window(decoded, spec, config.crop, rng)
    seen = inside((window[2] - window[0], window[3] - window[1]), spec) if spec.letterbox else (width, height)
    picture = decoded.picture.resize(seen, RESAMPLING[spec.interpolation], window)
    if rng.random() < 0.5 and config.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        factor = 1 + rng.uniform(-config.colour, config.colour)
        if factor != 1:
            picture = enhancer(picture).enhance(factor)
    radius = rng.uniform(0, config.blur)
    picture = picture.filter(ImageFilter.GaussianBlur(radius)) if radius else picture
    return centre_crop(picture, spec) if spec.letterbox else picture


def random_window(
    decoded: Decoded, spec: ImageSpec, smallest: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """(left, upper, right, lower) in pixels of `decoded.picture`.

    Its area is `smallest` to 1 of what the plain view is resized from: the whole picture where that is squashed or
    stands in a letterbox, else a square as high as the short side.
    """
    left, upper, right, lower = decoded.box
    full = (right - left, lower - upper)
    base = [min(full)] * 2 if isinstance(spec.resize, int) else full
    area, stretch = rng.uniform(smallest, 1), math.exp(rng.uniform(-math.log(ASPECT), math.log(ASPECT)))
    sides = base[0] * math.sqrt(area * stretch), base[1] * math.sqrt(area / stretch)
    w, h = (min(side, most) for side, most in zip(sides, full))
    x, y = left + rng.uniform(0, full[0] - w), upper + rng.uniform(0, full[1] - h)
    return x, y, min(x + w, right), min(y + h, lower)
