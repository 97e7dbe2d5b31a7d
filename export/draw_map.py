"""A class map over its picture, as a PNG: orange where a place speaks for the class, blue where against it.

As on the page (`export/page/map.js`): opacity goes with the logit of the place, up to the strongest place of all
classes, and a dashed line shows what the network sees of the picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from datasets.decoding.decode import decode, read_file
from datasets.files import replace_file
from datasets.image import ImageSpec
from export.writers.class_maps import seen_box

FOR, AGAINST = (232, 119, 34), (40, 96, 200)
STRONGEST = 0.72  # opacity of the strongest place of all classes
LONGEST = 800  # pixels of the picture that is drawn
DASH, GAP = 6, 4  # widths of the line


def draw_map(path: Path, maps: np.ndarray, label: int, spec: ImageSpec, target: Path) -> None:
    """`maps`: (C, H', W') of one picture, of which that of class `label` is drawn.

    Raises:
        DamagedPicture: it cannot be read any more.
    """
    decoded = decode(read_file(path), LONGEST // 2)
    picture = decoded.picture.convert("RGB").crop([round(edge) for edge in decoded.box])
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    left, top, share_x, share_y = seen_box(*decoded.size, spec)
    width, height = picture.size
    box = [round(left * width), round(top * height), round((left + share_x) * width), round((top + share_y) * height)]
    strongest = max(float(np.abs(maps).max()), 1e-6)
    size = (max(1, box[2] - box[0]), max(1, box[3] - box[1]))
    for sign, colour in ((1, FOR), (-1, AGAINST)):  # two sheets: between orange and blue on one there would be grey
        share = (sign * maps[label]).clip(0) / strongest
        opacity = Image.fromarray((255 * STRONGEST * share).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        picture.paste(Image.new("RGB", size, colour), box[:2], opacity)
    dashed(ImageDraw.Draw(picture), box, max(1, width // 300))
    replace_file(target, lambda file: picture.save(file, "PNG"))


def dashed(draw: ImageDraw.ImageDraw, box: list[int], width: int) -> None:
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1
    dash, step = DASH * width, (DASH + GAP) * width
    for x in range(left, right, step):
        for y in (top, bottom):
            draw.line((x, y, min(x + dash, right), y), "white", width)
    for y in range(top, bottom, step):
        for x in (left, right):
            draw.line((x, y, x, min(y + dash, bottom)), "white", width)
