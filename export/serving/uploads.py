"""What clients send, on its way to the network: the form, then each picture, nothing trusted.

What is a picture, and how large it may be, `datasets.decoding` says, as it does in training.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from starlette.datastructures import UploadFile
from starlette.requests import Request

from datasets.decoding.decode import decode
from datasets.decoding.formats import DamagedPicture
from datasets.image import ImageSpec, enough_for, fitted
from export.serving.refusal import Refusal
from export.writers.class_maps import seen_box

PICTURES = 16  # in one request
STATUS = {"not_a_picture": 415, "heic": 415, "too_many_pixels": 413}  # the others are 422
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
        Refusal: no picture, too large, too much work, or damaged; or too little memory here.
    """
    try:
        decoded = decode(content, enough_for(spec))
        image = fitted(decoded, spec)
    except DamagedPicture as error:
        message = str(error)
        raise Refusal(STATUS.get(error.kind, 422), error.kind, f"{message[:1].upper()}{message[1:]}.") from error
    except MemoryError as error:
        raise Refusal(503, "no_memory", "The server has too little memory for this picture now. Try again.") from error
    return Prepared(image, seen_box(*decoded.size, spec), decoded.size)
