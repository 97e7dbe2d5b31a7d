"""What clients send, on its way to the network: the form, then each picture, nothing trusted.

A picture's size and kind are read from its header before anything is decoded.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request

from datasets.image import DamagedPicture, ImageSpec, fitted, read
from export.serving.refusal import Refusal
from export.writers.class_maps import seen_box

PICTURES = 16  # in one request
# What training reads, and no format that starts another program or loads from elsewhere, as EPS and WMF do.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PIXELS = 50_000_000  # a telephone's largest photographs
# Pictures with transparency or with more than 8 bits are converted, which takes four times the memory.
PLAIN_MODES = ("1", "L", "P", "RGB", "YCbCr", "CMYK")
NAME_LETTERS = 200


class Prepared(NamedTuple):
    image: np.ndarray  # uint8 (H, W, C)
    seen: tuple[float, float, float, float]  # which part of the picture that is, see `seen_box`
    size: tuple[int, int]  # width, height of the upright picture


async def uploaded(request: Request) -> list[tuple[str, bytes]]:
    """(name, bytes) of each picture of a multipart form; files of any field count.

    Raises:
        Refusal: not a form, damaged, or with too many pictures or none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refusal(415, "not_a_form", "Send the pictures as multipart/form-data, in fields named picture.", True)
    try:
        async with request.form(max_files=PICTURES + 1, max_fields=PICTURES) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            found = [((file.filename or "")[:NAME_LETTERS], await file.read()) for file in files]
    except Refusal:
        raise
    except Exception as error:  # parsers raise nearly any type on damaged bytes
        raise Refusal(400, "damaged_form", "The form cannot be read, or has too many parts.", close=True) from error
    if not found:
        raise Refusal(422, "no_picture", "No picture in the form: send files in fields named picture.")
    if len(found) > PICTURES:
        raise Refusal(413, "too_many_pictures", f"One request may have up to {PICTURES} pictures.")
    return found


def prepare(content: bytes, spec: ImageSpec) -> Prepared:
    """Decode one picture. Runs in a thread; Pillow lets others run meanwhile.

    Raises:
        Refusal: no picture, too large, or damaged.
    """
    check(content)
    try:
        picture = read(content)
        image = fitted(picture, spec)
    except (DamagedPicture, MemoryError) as error:
        raise Refusal(422, "damaged", "The picture is damaged or not complete.") from error
    return Prepared(image, seen_box(*picture.size, spec), picture.size)


def check(content: bytes) -> None:
    """Refuse by what the header says."""
    if not content:
        raise Refusal(422, "empty", "The file is empty.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            pixels = width * height * (1 if picture.mode in PLAIN_MODES else 4)
    except Image.DecompressionBombError:
        pixels = PIXELS + 1
    except Exception as error:  # Pillow's header readers raise nearly any type on damaged bytes
        raise Refusal(
            415, "not_a_picture", f"Not a picture in a known format. Known are {', '.join(FORMATS)}."
        ) from error
    if pixels > PIXELS:
        raise Refusal(
            413,
            "too_many_pixels",
            f"Too many pixels. Allowed are {PIXELS // 1_000_000} million, a quarter with transparency or 16 bits.",
        )
