"""An animal from its cues: fur, body, head, ears, face. `sample.py` chooses the cues and writes the files.

No function here knows whether it draws a cat or a dog. Outlines are in head units: (0, 0) is the middle
of the head, 1 about half its width, y points down.
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from PIL import Image

from datasets.drawn.brush import (
    Canvas,
    cloud,
    colour,
    develop,
    furry,
    oval,
    rotation,
    set_scene,
    smooth,
    stroke,
    symmetric,
    tint,
)

# fmt: off
FURS = {  # main colour, second colour (stripes, patches), 0..255
    "black": ((44, 42, 46), (96, 84, 78)), "grey": ((136, 138, 146), (70, 72, 80)),
    "ginger": ((208, 130, 66), (150, 74, 30)), "cream": ((226, 200, 164), (180, 138, 96)),
    "brown": ((132, 98, 70), (62, 44, 34)), "golden": ((206, 160, 98), (150, 102, 54)),
    "white": ((232, 228, 220), (120, 108, 100)), "chocolate": ((92, 60, 44), (190, 146, 102)),
}
IRISES = {"green": (136, 176, 84), "gold": (222, 172, 52), "blue": (120, 176, 222), "brown": (156, 98, 50),
          "dark": (92, 60, 42)}
WHITE, DARK, PINK = colour([(240, 236, 228), (34, 28, 30), (222, 140, 138)])
TAN, RED, BRASS = colour([(184, 120, 66), (219, 107, 115), (217, 184, 76)])
HEADS = {  # right half, from the crown to the chin
    "round": [(0, -0.80), (0.45, -0.76), (0.85, -0.42), (1.00, 0.08), (0.86, 0.52), (0.50, 0.80), (0, 0.90)],
    "wide": [(0, -0.70), (0.50, -0.70), (0.88, -0.38), (1.10, 0.18), (0.92, 0.55), (0.45, 0.78), (0, 0.85)],
    "wedge": [(0, -0.76), (0.48, -0.72), (0.84, -0.38), (0.86, 0.00), (0.64, 0.45), (0.36, 0.80), (0, 0.92)],
    "long": [(0, -0.86), (0.42, -0.82), (0.72, -0.50), (0.76, -0.05), (0.66, 0.45), (0.48, 0.95), (0, 1.12)],
    "square": [(0, -0.78), (0.50, -0.76), (0.82, -0.45), (0.86, 0.00), (0.84, 0.50), (0.62, 0.92), (0, 1.02)],
}
EARS = {  # right ear, from the inner root over the tip to the outer root
    "pricked": [(0.22, -0.66), (0.48, -1.1), (0.8, -1.46), (0.86, -1.44), (0.98, -0.95), (0.94, -0.28), (0.55, -0.4)],
    "tall": [(0.22, -0.66), (0.36, -1.15), (0.6, -1.64), (0.68, -1.64), (0.88, -1.1), (0.86, -0.36), (0.5, -0.45)],
    "folded": [(0.22, -0.66), (0.36, -1), (0.66, -1.16), (0.96, -1), (1.22, -0.5), (1.16, -0.46), (0.6, -0.55)],
    "floppy": [(0.4, -0.78), (0.72, -0.88), (1, -0.62), (1.2, 0), (1.24, 0.55), (1, 0.78), (0.8, 0.3), (0.6, -0.4)],
}
ALMOND = [(-1.05, 0.28), (-0.62, -0.62), (0.15, -0.98), (1.08, -0.32), (0.68, 0.62), (-0.2, 0.92)]  # right eye
EYES = {"almond": (0.26, 0.23), "round": (0.20, 0.20), "small": (0.14, 0.125)}  # half width, half height
PUPILS = {"slit": (0.22, 0.92), "oval": (0.42, 0.80), "round": (0.62, 0.62)}    # the same, as parts of the eye
MUZZLES = {"short": (0.0, 0.25), "medium": (0.35, 0.65), "long": (0.75, 1.15)}  # range of how far it stands out
NOSES = {"small": (0.10, 0.13), "large": (0.20, 0.26)}                          # range of its half width
# fmt: on


def draw_animal(cues: dict[str, str], rng: Generator) -> Image.Image:
    """A photograph of the animal that has these cues, RGB, 192 to 240 pixels a side."""
    canvas = set_scene(rng)
    coat = grow_coat(canvas, cues, rng)
    draw_body(canvas, coat, rng)
    if cues["ears"] in ("pricked", "tall"):
        draw_upright_ears(canvas, coat, cues["ears"], rng)
        draw_head(canvas, coat, cues["head"], rng)
    else:
        draw_head(canvas, coat, cues["head"], rng)
        draw_hanging_ears(canvas, coat, cues["ears"], rng)
    draw_eyes(canvas, cues, rng)
    draw_muzzle(canvas, coat, cues, rng)
    return develop(canvas.pixels, rng)


# Fur


@lru_cache(maxsize=1)
def hair_tile() -> np.ndarray:
    """Streaks of hair around 0, float32 (256, 256), long in the second axis; the same for all pictures."""
    noise = np.random.default_rng(0).standard_normal((256, 256), dtype=np.float32)
    return sum(np.roll(noise, k, axis=1) for k in range(12)) / np.float32(12**0.5)


def step(x: np.ndarray, softness: float = 0.12) -> np.ndarray:
    """0 where x is below zero, 1 where it is above, with a soft edge."""
    return np.clip(x / softness + 0.5, 0, 1)


def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)  # np.hypot is many times slower


def grow_coat(canvas: Canvas, cues: dict[str, str], rng: Generator) -> np.ndarray:
    """The fur's colour at every pixel, float32 (3, H, W); the body parts cut their shapes out of it."""
    height, width = canvas.pixels.shape[1:]
    main, second = colour(FURS[cues["fur"]] * rng.uniform(0.85, 1.1, (2, 1)) * rng.normal(1, 0.03, (2, 3)))
    u, v = canvas.subject_units()
    radius, angle = distance(u, v - 0.2), np.arctan2(v - 0.2, u)  # hair grows away from the nose
    along = np.sqrt(radius) * (1.5 * canvas.scale)
    hair = hair_tile()[(angle * 81).astype(np.int32) & 255, along.astype(np.int32) & 255]
    u, v = u + 0.02 * hair, v + 0.03 * hair  # so that no pattern has a clean edge
    side, per_unit = np.abs(u), max(width, height) / canvas.scale
    blots = cloud(rng, width, height, 0.9 * per_unit)
    coat = main * (1 - 0.25 * np.clip(0.25 * blots + 0.15 * v, 0, 1))

    def dye(fill: np.ndarray, where: np.ndarray) -> None:
        coat[...] += where * (fill - coat)

    pattern = cues["pattern"]
    if pattern == "tabby":
        rays = np.sin(np.arctan2(v - 0.3, side) * rng.uniform(13, 17) + 0.5 * blots)
        rings = np.sin(7 * v + blots + side)
        dye(second, 0.85 * step(np.where(v < 1, rays, rings) - 0.15, 0.7) * step(radius - 0.62, 0.3))
    elif pattern == "bib":
        blaze, chest = rng.uniform((0.04, 0.3), (0.2, 0.7))
        dye(WHITE, step(blaze + chest * np.clip(v + 0.25, 0, 1) - side))
    elif pattern == "mask":
        dye(second * 0.6, step(0.55 - distance(u, 0.9 * (v - 0.3)), 0.4))
        dye(second * 0.6, step(-0.85 - v, 0.3))
    elif pattern == "patches":
        dye(second, step(blots - 0.1))
        dye(WHITE, step(cloud(rng, width, height, 0.9 * per_unit) - 0.3))
    elif pattern == "brows":
        dye(TAN, step(0.13 - distance(side - 0.36, v + 0.45)))
        dye(TAN, step(0.5 - distance(u, v - 0.55)))
    elif pattern == "spots":
        dye(second, step(cloud(rng, width, height, 3 * per_unit) - 0.7))
    return coat * (1 + rng.uniform(0.05, 0.12) * hair)


# Body, head, ears


def draw_body(canvas: Canvas, coat: np.ndarray, rng: Generator) -> None:
    """A sitting body below the head; of a near animal only the shoulders are in the picture."""
    upright = rotation(-canvas.tilt * rng.uniform(0.5, 1))
    stretch = np.array([[rng.uniform(0.85, 1.2), 0], [rng.normal(0, 0.08), 1]])  # stout or slim, leaning

    def paint(outline: np.ndarray, fill: np.ndarray, **look: float) -> None:
        canvas.paint([outline @ stretch @ upright], fill, **look)

    side, reach, rise = rng.choice((-1, 1)), rng.uniform(1.2, 2.4), rng.uniform(1, 2)
    tail = stroke((side * 0.8, 3.2), (side * 2.6, 3.2), (side * reach, rise), rng.uniform(0.25, 0.5), 0.6)
    paint(furry(tail, 0.08, rng), coat, tone=0.9, volume=1.2)
    torso = symmetric([(0, 0.2), (0.55, 0.4), (0.88, 1.1), (1.1, 2.1), (1.35, 2.9), (1.2, 3.5), (0, 3.6)])
    paint(furry(torso, 0.07, rng), coat, tone=0.92, volume=1.2, shadow=0.3)
    leg = symmetric([(0, 1.5), (0.25, 1.8), (0.26, 3.0), (0.34, 3.45), (0.2, 3.66), (0, 3.7)])
    for x in (-0.42, 0.42):
        paint(leg + (x, 0), coat, volume=0.9, shadow=0.25)
    if rng.random() < 0.25:
        collar = stroke((-0.8, 0.85), (0, 1.5), (0.8, 0.85), 0.2, 1)
        paint(collar, colour(tint(rng, 1, (0.4, 0.9))), volume=0.6, shadow=0.3)
        paint(oval(0, 1.3, 0.12, 0.14), BRASS, volume=1.5)


def draw_head(canvas: Canvas, coat: np.ndarray, shape: str, rng: Generator) -> None:
    outline = symmetric(HEADS[shape] * rng.uniform(0.94, 1.06, 2))
    canvas.paint([furry(outline, rng.uniform(0.03, 0.14), rng)], coat, volume=1.1, shadow=0.45)


def shape_ears(shape: str, rng: Generator) -> list[np.ndarray]:
    """Corner points of the left and the right ear, not quite alike, each (N, 2)."""
    root, size = np.array((0.6, -0.5)), rng.uniform(0.85, 1.2, 2)
    return [((EARS[shape] - root) * size * rng.uniform(0.93, 1.07, 2) + root) * (side, 1) for side in (-1, 1)]


def draw_upright_ears(canvas: Canvas, coat: np.ndarray, shape: str, rng: Generator) -> None:
    skin = PINK * rng.uniform(0.6, 0.95)
    for ear in shape_ears(shape, rng):
        inside = (ear - ear.mean(axis=0)) * (0.62, 0.72) + ear.mean(axis=0) + (0, 0.06)
        canvas.paint([furry(smooth(ear), 0.04, rng)], coat, tone=0.9, depth=-0.3, volume=0.8, shadow=0.2)
        canvas.paint([furry(smooth(inside), 0.05, rng)], skin, depth=-0.3, volume=-0.8, opacity=0.75)


def draw_hanging_ears(canvas: Canvas, coat: np.ndarray, shape: str, rng: Generator) -> None:
    for ear in shape_ears(shape, rng):
        canvas.paint([furry(smooth(ear), 0.04, rng)], coat, tone=0.82, volume=1.3, shadow=0.4)


# Face


def draw_eyes(canvas: Canvas, cues: dict[str, str], rng: Generator) -> None:
    size = EYES[cues["eyes"]] * rng.uniform((0.9, 0.7), (1.1, 1.1))
    pupil = np.multiply(PUPILS[cues["pupils"]], rng.uniform(0.85, 1.1))
    iris = colour(IRISES[cues["iris"]]) * rng.uniform(0.85, 1.1)
    place, gaze = rng.uniform((0.38, -0.2), (0.46, -0.1)), rng.normal(0, 0.1, 2)
    lid = smooth(ALMOND) if cues["eyes"] == "almond" else oval(0, 0, 1, 1)
    glint = np.array((0.3 * canvas.light[0], -0.35))
    for outline, shift, fill, opacity in (  # what is seen of both eyes is mirrored, where they look is not
        (lid * 1.16, (0, 0), DARK, 0.85),
        (lid, (0, 0), iris * 0.8, 1),
        (lid * 0.7 + (0, 0.18), (0, 0), iris * 1.15, 1),
        (oval(0, 0, *pupil), gaze, DARK * 0.5, 1),
        (oval(0, 0, 0.2, 0.2), glint, WHITE, 0.95),
    ):
        eyes = [(outline * size + place) * (side, 1) + shift * size for side in (-1, 1)]
        canvas.paint(eyes, fill, depth=0.15, opacity=opacity)


def draw_muzzle(canvas: Canvas, coat: np.ndarray, cues: dict[str, str], rng: Generator) -> None:
    """Bridge, chin, tongue, cheeks, nose and whiskers; `long` (0..1) moves them down and forward."""
    long = rng.uniform(*MUZZLES[cues["muzzle"]])
    nose_y, lip_y, depth = 0.2 + 0.26 * long, 0.4 + 0.36 * long, 0.15 + 0.7 * long
    pale = coat + np.float32(rng.uniform(0, 0.5)) * (WHITE - coat)
    if long > 0.3:
        bridge = symmetric([(0, -0.3), (0.16, -0.25), (0.2 + 0.05 * long, nose_y), (0.36, lip_y), (0, lip_y + 0.1)])
        canvas.paint([bridge], coat, depth=depth / 2, volume=0.8, shadow=0.2)
    chin = oval(0, lip_y + 0.2 + 0.06 * long, 0.2 + 0.14 * long, 0.17 + 0.08 * long)
    canvas.paint([chin], pale, tone=0.93, depth=depth, volume=1, shadow=0.2)
    if cues["tongue"] == "out":
        draw_tongue(canvas, lip_y + 0.12, depth, rng)
    cheeks = [oval(s * (0.19 + 0.03 * long), lip_y, 0.26 + 0.08 * long, 0.2 + 0.1 * long) for s in (-1, 1)]
    canvas.paint(cheeks, pale, depth=depth, volume=1.1, shadow=0.3)
    draw_nose(canvas, cues["nose"], nose_y, lip_y + 0.1, depth, rng)
    if cues["whiskers"] != "none":
        draw_whiskers(canvas, cues["whiskers"], lip_y, depth, rng)


def draw_tongue(canvas: Canvas, y: float, depth: float, rng: Generator) -> None:
    length, wide = rng.uniform(0.3, 0.6), rng.uniform(0.13, 0.2)
    tongue = symmetric([(0, y), (wide, y + 0.05), (wide, y + 0.75 * length), (wide / 2, y + length), (0, y + length)])
    canvas.paint([oval(0, y + 0.08, wide * 1.7, 0.2)], DARK, depth=depth)
    canvas.paint([tongue], RED, depth=depth, volume=0.8)
    canvas.paint([stroke((0, y), (0.02, y + 0.5 * length), (0, y + 0.8 * length), 0.03)], RED * 0.65, depth=depth)


def draw_nose(canvas: Canvas, nose: str, y: float, mouth_y: float, depth: float, rng: Generator) -> None:
    size, shade = nose.split()
    wide = rng.uniform(*NOSES[size])
    skin = PINK * rng.uniform(0.75, 1) if shade == "pink" else DARK * rng.uniform(0.8, 1.6)
    mouth = [stroke((0, mouth_y), (s * 0.12, mouth_y + 0.1), (s * 0.32, mouth_y - 0.01), 0.035) for s in (-1, 1)]
    tip = symmetric([(0, -0.62), (0.75, -0.62), (1, -0.25), (0.62, 0.3), (0, 0.7)]) * wide + (0, y)
    nostrils = [oval(s * wide * 0.45, y + wide * 0.12, wide * 0.2, wide * 0.14) for s in (-1, 1)]
    gloss = oval(canvas.light[0] * wide * 0.3, y - wide * 0.36, wide * 0.32, wide * 0.1)
    canvas.paint([*mouth, stroke((0, y), (0, y), (0, mouth_y), 0.035, 1)], DARK, depth=depth, opacity=0.75)
    canvas.paint([tip], skin, depth=depth, volume=1.2, shadow=0.2)
    canvas.paint(nostrils, skin * 0.35, depth=depth)
    canvas.paint([gloss], WHITE, depth=depth, opacity=0.5)


def draw_whiskers(canvas: Canvas, length: str, y: float, depth: float, rng: Generator) -> None:
    reach = rng.uniform(0.9, 1.3) if length == "long" else rng.uniform(0.3, 0.5)
    hairs = []
    for side in (-1, 1):
        for rise in np.linspace(-0.25, 0.3, rng.integers(3, 6)) + rng.normal(0, 0.03):
            tip = (side * (0.3 + reach * rng.uniform(0.85, 1.1)), y + 1.4 * rise * reach + rng.normal(0.05, 0.05))
            bend = (side * (0.3 + reach / 2), y + 0.6 * rise - 0.08)
            hairs.append(stroke((side * 0.28, y + 0.25 * rise), bend, tip, 0.028))
    canvas.paint(hairs, WHITE if rng.random() < 0.8 else DARK, depth=depth, opacity=0.85)
