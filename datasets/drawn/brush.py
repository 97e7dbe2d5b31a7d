"""What `drawn_animal.py` paints with: outlines, a canvas with light, scenes out of focus, a camera.

Nothing here knows an animal. An outline is float (N, 2) in units of the subject, y pointing down; the
canvas knows where the subject is and turns units into pixels. A picture under work is float32 (3, H, W),
0..1, a colour float32 (3, 1, 1). Every random choice comes from the generator that is passed in.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLING = 3
Pen = ImageDraw.ImageDraw


def colour(rgb) -> np.ndarray:
    """From 0..255 to what meets a picture: (..., 3) -> float32 (..., 3, 1, 1), 0..1."""
    return np.asarray(rgb, np.float32)[..., None, None] / 255


# Outlines


def smooth(points) -> np.ndarray:
    """A closed round curve through the points (Catmull-Rom): (N, 2) -> (8 N, 2)."""
    points = np.asarray(points, float)
    rows = np.arange(len(points))
    a, b, c, d = (points[(rows + k) % len(points), None] for k in (-1, 0, 1, 2))
    t = np.arange(8)[:, None] / 8
    return (b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))).reshape(-1, 2)


def symmetric(half) -> np.ndarray:
    """A round outline from its right half, top to bottom; both ends lie on the axis."""
    half = np.asarray(half, float)
    return smooth(np.concatenate([half, half[-2:0:-1] * (-1, 1)]))


def oval(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    angle = np.arange(32) * (np.pi / 16)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def stroke(start, bend, end, width: float, taper: float = 0.2) -> np.ndarray:
    """A brush stroke along a quadratic Bezier curve; `taper` is the part of the width left at its end."""
    t = np.linspace(0, 1, 14)[:, None]
    line = (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)
    along = np.gradient(line, axis=0)
    across = along[:, ::-1] * (1, -1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    across *= width / 2 * (1 - (1 - taper) * t)
    return np.concatenate([line + across, (line - across)[::-1]])


def furry(outline: np.ndarray, length: float, rng: Generator) -> np.ndarray:
    """The outline with tufts of hair standing out of it and hanging a little: (N, 2) -> (2 N, 2)."""
    dense = np.stack([outline, (outline + np.roll(outline, -1, axis=0)) / 2], axis=1).reshape(-1, 2)
    outward = dense - dense.mean(axis=0)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
    tuft = length * rng.random(len(dense)) * (np.arange(len(dense)) % 2)
    return dense + (outward + (0, 0.5)) * tuft[:, None]


# The canvas


@dataclass
class Canvas:
    pixels: np.ndarray  # float32 (3, H, W)
    centre: np.ndarray  # of the subject, pixels (x, y)
    scale: float  # pixels per unit
    tilt: float  # of the subject, radians
    turn: float  # to the side: what stands out by `depth` units moves by turn * depth
    light: np.ndarray  # float32 (2,), a unit vector towards the light

    def subject_units(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel lies on the subject: x and y, each float32 (H, W)."""
        height, width = self.pixels.shape[1:]
        x = ((np.arange(width) - self.centre[0]) / self.scale).astype(np.float32)
        y = ((np.arange(height) - self.centre[1]) / self.scale).astype(np.float32)[:, None]
        cos, sin = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        return cos * x + sin * y, cos * y - sin * x

    def paint(
        self,
        outlines,
        fill: np.ndarray,
        tone: float = 1.0,
        depth: float = 0.0,
        volume: float = 0.0,
        shadow: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Fill outlines with a colour (3, 1, 1) or a picture (3, H, W), made lighter or darker by `tone`.

        `volume` rounds them (a negative one hollows them), `shadow` darkens what lies around them.
        """
        shapes = [(o + (self.turn * depth, 0)) @ rotation(self.tilt) * self.scale + self.centre for o in outlines]
        points = np.concatenate(shapes)
        size = float(np.ptp(points, axis=0).min())
        margin = 2 + (0.2 * size if shadow else 0)
        height, width = self.pixels.shape[1:]
        (left, top), (right, bottom) = points.min(axis=0) - margin, points.max(axis=0) + margin
        left, top, right, bottom = max(0, int(left)), max(0, int(top)), min(width, int(right)), min(height, int(bottom))
        if right - left < 2 or bottom - top < 2:  # outside the picture
            return
        mask = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
        pen = ImageDraw.Draw(mask)
        for shape in shapes:
            pen.polygon(((shape - (left, top)) * SUPERSAMPLING).ravel().tolist(), fill=255)
        mask = mask.reduce(SUPERSAMPLING)
        area = self.pixels[:, top:bottom, left:right]
        fill = fill if fill.size == 3 else fill[:, top:bottom, left:right]
        if volume or shadow:
            height, slope = relief(mask, 0.12 * size, self.light)
            area *= 1 - shadow * height
            tone = tone + volume * slope
        area += np.asarray(mask, np.float32) * (opacity / 255) * (fill * tone - area)


def rotation(angle: float) -> np.ndarray:
    """For points in rows: points (N, 2) @ rotation."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def relief(mask: Image.Image, radius: float, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mask seen as a soft hill: its height (0..1) and how far it faces the light, each (H, W)."""
    coarse = max(1, int(radius / 2))  # a soft thing needs few pixels
    small = mask.reduce(coarse).filter(ImageFilter.GaussianBlur(radius / coarse))
    hill = np.pad(np.asarray(small, np.float32) / 255, 1, mode="edge")
    east, south = hill[1:-1, 2:] - hill[1:-1, :-2], hill[2:, 1:-1] - hill[:-2, 1:-1]
    slope = (east * light[0] + south * light[1]) * (-0.5 * radius / coarse)
    return resized(hill[1:-1, 1:-1], *mask.size), resized(slope, *mask.size)


def resized(values: np.ndarray, width: int, height: int) -> np.ndarray:
    values = Image.fromarray(np.ascontiguousarray(values))
    return np.asarray(values.resize((width, height), Image.Resampling.BICUBIC))


# The scene behind the subject


def set_scene(rng: Generator) -> Canvas:
    """A background and where the subject is: near or far, tilted, off the centre, at times partly outside."""
    width, height = (int(side) for side in 192 + 16 * rng.integers(0, 4, size=2))
    angle = rng.uniform(0, np.pi)
    return Canvas(
        pixels=draw_scene(width, height, rng),
        centre=np.array([width, height]) * rng.normal((0.5, 0.44), 0.11),
        scale=min(width, height) * rng.uniform(0.22, 0.4),
        tilt=rng.normal(0, 0.2),
        turn=rng.uniform(-0.35, 0.35),
        light=np.array([np.cos(angle), -np.sin(angle)], np.float32),
    )


def draw_scene(width: int, height: int, rng: Generator) -> np.ndarray:
    """A cluttered background out of focus, float32 (3, H, W); painted at half size, which is enough."""
    w, h = width // 2, height // 2
    scene = Image.new("RGB", (w, h), tint(rng))
    pen = ImageDraw.Draw(scene)
    SCENES[rng.integers(len(SCENES))](pen, w, h, rng)
    for _ in range(rng.integers(1, 6)):
        draw_clutter(pen, w, h, rng)
    scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 2.5)))
    grain = cloud(rng, width, height, 6) + 0.5 * cloud(rng, width, height, 50)
    scene = scene.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(scene, np.float32).transpose(2, 0, 1) * ((1 + 0.06 * grain) / 255)


def cloud(rng: Generator, width: int, height: int, blots: float) -> np.ndarray:
    """Soft noise around 0, float32 (H, W), with about so many blots along the longer side."""
    step = max(width, height) / blots
    grid = rng.standard_normal((int(height / step) + 2, int(width / step) + 2), dtype=np.float32)
    return resized(grid, width, height)


def tint(rng: Generator, saturation: float = 0.4, value: tuple[float, float] = (0.25, 0.95)) -> tuple[int, ...]:
    """A colour for things, 0..255: often like wood or sky, at times any other."""
    hue = rng.choice((0.08, 0.08, 0.58, rng.random())) + rng.normal(0, 0.04)
    rgb = colorsys.hsv_to_rgb(hue % 1, rng.random() * saturation, rng.uniform(*value))
    return tuple(int(255 * c) for c in rgb)


def green(rng: Generator) -> tuple[int, int, int]:
    return int(rng.integers(40, 130)), int(rng.integers(100, 180)), 50


def draw_room(pen: Pen, w: int, h: int, rng: Generator) -> None:
    floor = h * rng.uniform(0.5, 0.85)
    pen.rectangle((0, floor, w, h), fill=tint(rng, 0.5))
    pen.rectangle((0, floor - 4, w, floor), fill=tint(rng, 0.1))
    x, y, side = rng.uniform(-0.1, 0.8) * w, rng.uniform(-0.1, 0.3) * h, rng.uniform(0.2, 0.5) * w
    pen.rectangle((x, y, x + side, y + side), fill=tint(rng, 0.5, (0.7, 1)), outline=tint(rng), width=3)


def draw_garden(pen: Pen, w: int, h: int, rng: Generator) -> None:
    horizon = h * rng.uniform(0.15, 0.6)
    pen.rectangle((0, 0, w, horizon), fill=(int(rng.integers(150, 215)), 200, 235))
    for _ in range(rng.integers(0, 7)):
        x, r = rng.uniform(0, w), rng.uniform(0.1, 0.25) * w
        pen.ellipse((x - r, horizon - 1.6 * r, x + r, horizon + r), fill=green(rng))
    pen.rectangle((0, horizon, w, h), fill=green(rng))
    for x, y in rng.uniform((0, horizon), (w, h), (150, 2)):
        pen.line((x, y, x + rng.normal(0, 2), y - 6), fill=green(rng))


def draw_cloth(pen: Pen, w: int, h: int, rng: Generator) -> None:
    step, slant = rng.uniform(8, 30), rng.uniform(-1, 1)
    colours = [tint(rng, 0.7) for _ in range(3)]
    for i, x in enumerate(np.arange(-w, 2 * w, step)):
        pen.line((x, 0, x + slant * h, h), fill=colours[i % 3], width=int(step * rng.uniform(0.2, 0.7)))


def draw_bricks(pen: Pen, w: int, h: int, rng: Generator) -> None:
    colour, size = np.array(tint(rng, 0.6, (0.4, 0.8))), rng.uniform(8, 18)
    for row, y in enumerate(np.arange(0, h, size)):
        for x in np.arange(-size * (row % 2), w, 2 * size):
            shade = tuple(int(c) for c in colour + rng.integers(-20, 20))
            pen.rectangle((x + 1, y + 1, x + 2 * size - 1, y + size - 1), fill=shade)


def draw_lights(pen: Pen, w: int, h: int, rng: Generator) -> None:
    pen.rectangle((0, 0, w, h), fill=tint(rng, 0.6, (0.1, 0.35)))
    for x, y, r in rng.uniform((0, 0, 2), (w, h, 12), (25, 3)):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tint(rng, 0.7, (0.5, 1)))


SCENES = (draw_room, draw_room, draw_garden, draw_garden, draw_cloth, draw_bricks, draw_lights)


def draw_clutter(pen: Pen, w: int, h: int, rng: Generator) -> None:
    """A ball, a box or a plant in its pot, anywhere."""
    x, y, r, colour = rng.uniform(0, w), rng.uniform(0.2, 1) * h, rng.uniform(4, 0.2 * w), tint(rng, 0.9)
    kind = ("ball", "box", "plant")[rng.integers(3)]
    if kind == "ball":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        pen.ellipse((x - r / 2, y - r / 1.5, x, y - r / 4), fill=tint(rng, 0.1, (0.8, 1)))
    elif kind == "box":
        pen.rectangle((x - r, y - r * rng.uniform(0.3, 2), x + r, y + r), fill=colour, outline=tint(rng), width=2)
    elif kind == "plant":
        for angle in rng.uniform(-2.6, -0.5, 9):
            tip = x + 2 * r * np.cos(angle), y + 2 * r * np.sin(angle)
            pen.line((x, y, *tip), fill=green(rng), width=int(rng.integers(2, 6)))
        pen.rectangle((x - r / 2, y, x + r / 2, y + r), fill=colour)


# Light and camera


def develop(pixels: np.ndarray, rng: Generator) -> Image.Image:
    """Uneven light, white balance, exposure, sensor noise, blur: float32 (3, H, W) -> RGB picture."""
    height, width = pixels.shape[1:]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    slope, vignette, warmth = rng.normal(0, 0.12, 2), rng.uniform(0, 0.2), rng.normal(0, 0.05)
    light = (1 + slope[0] * x + slope[1] * y - vignette * (x * x + y * y)) * rng.uniform(0.75, 1.2)
    white = np.reshape((1 + warmth, 1, 1 - warmth), (3, 1, 1))
    pixels = pixels * light.astype(np.float32) * white.astype(np.float32)
    pixels += rng.uniform(0.01, 0.14) * (rng.random(pixels.shape, dtype=np.float32) - 0.5)
    bytes_hwc = (np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(bytes_hwc))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.1)))
