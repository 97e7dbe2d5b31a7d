"""A file's bytes -> an upright picture in RGB, within limits that are the same for everybody.

    decode(content, enough=256)     a picture with a short side of at least twice `enough`, or as large as it is

`check`, training, prediction, a bundle's own scripts and the page come through here, so that a file gets the same
verdict and the same pixels everywhere. Of several frames or pages the first counts that is not all of one colour, of
the first 16; else the very first. A fault of the machine, as too little memory, is raised as what it is and never as a
damaged picture.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from datasets.decoding.formats import FORMATS, KNOWN_AS, DamagedPicture, formats_for, looks_like_a_picture
from datasets.decoding.mend import (
    APP14,
    END,
    LOSSLESS,
    NOISE,
    PROGRESSIVE,
    frame_of,
    has_more_scans,
    mend,
    without_applications,
)
from datasets.decoding.values import KEPT, to_rgb

LARGEST_FILE = 512 * 2**20  # bytes
JPEG_HELD = 96  # millions of pixels of a JPEG in several scans, whose coefficients are all kept, or without loss
ANIMATED, REAL = 40, 100  # millions of pixels of GIF and PNG in several frames, and of pictures of real numbers
SCANS, FEW_SCANS = 100, 20  # of a JPEG; encoders write up to 20, and each may cost the work of a whole picture
SCANNED_PIXELS = 2 * 10**9  # in all its scans
SECONDS = 20.0  # of decoding, looked at when a decoder asks for more bytes
SPARE_BYTES = 2**27  # a machine that has them did not lack memory
FRAMES = 16
TURN_BYTES = 64 * 2**20  # pictures that need more are decoded one after the other
TRANSPOSE = {  # EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 274  # tag of EXIF

# Our limits stand above, and are looked at before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of odd EXIF blocks, but the pixels are what counts. Set once, because decoding is threaded and
# warnings.catch_warnings is not safe there.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_turns = threading.Lock()


class Decoded(NamedTuple):
    picture: Image.Image  # RGB, upright, perhaps smaller than in the file
    size: tuple[int, int]  # width, height in the file, upright
    box: tuple[float, float, float, float]  # left, upper, right, lower of what the file shows, in pixels of `picture`:
    # where it was reduced, the last row and column may be filled in part only
    grey: bool = False  # stored in grey


def whole(picture: Image.Image) -> Decoded:
    """A picture in RGB that did not come from a file."""
    return Decoded(picture, picture.size, (0, 0, *picture.size))


def read_file(path: Path) -> bytes:
    """The bytes of a file; of one that is too large, enough for `decode` to see it.

    Raises:
        DamagedPicture: it was removed since it was found.
        OSError: a fault of the machine, as when its folder is gone, too.
    """
    try:
        with path.open("rb") as file:
            large = os.fstat(file.fileno()).st_size > LARGEST_FILE
            return file.read(LARGEST_FILE + 1 if large else -1)
    except FileNotFoundError:
        if path.parent.is_dir():
            raise DamagedPicture("not there any more") from None
        raise


def decode(content: bytes, enough: int | None = None) -> Decoded:
    """Raises DamagedPicture: empty, not whole, of an unknown format, or beyond the limits above."""
    if not content:
        raise DamagedPicture("the file is empty", DamagedPicture.EMPTY)
    if len(content) > LARGEST_FILE:
        message = f"too large: a file may have {LARGEST_FILE >> 20} MiB"
        raise DamagedPicture(message, DamagedPicture.TOO_LARGE)
    formats = formats_for(content)
    try:
        return _decode(content, formats, enough)
    except (DamagedPicture, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged bytes
        if "out of memory" in str(error):
            raise MemoryError from error
        for mended in mend(content, END if _lacks_only_its_end(content) else b""):
            try:
                return _decode(mended, formats, enough)
            except (DamagedPicture, MemoryError):
                raise
            except Exception:
                continue
        bytearray(SPARE_BYTES)  # not all decoders say that they lacked memory: this raises MemoryError then
        raise damage(content, error) from error


def damage(content: bytes, error: Exception) -> DamagedPicture:
    """What to say of bytes that cannot be decoded."""
    if not isinstance(error, Image.UnidentifiedImageError):
        return DamagedPicture(f"damaged, not complete, or of a rare kind ({error}); save it anew")
    begins = f"it begins with {content[:12].hex(' ')}"
    if looks_like_a_picture(content[:32]):
        return DamagedPicture(f"damaged, or of a rare kind: its head cannot be read, {begins}; save it anew")
    message = f"not a picture in a known format, which are {KNOWN_AS}; {begins}"
    return DamagedPicture(message, DamagedPicture.NO_PICTURE)


def _lacks_only_its_end(content: bytes) -> bool:
    """Whether a JPEG without its end mark is whole: decoded with noise behind it, it is the same as without. Where
    anything is missing, the noise becomes pixels; of several scans in details that only the full size shows."""
    if not content.startswith(b"\xff\xd8") or content.rstrip(b"\0").endswith(END):
        return False
    plain = without_applications(content, (APP14,)).rstrip(b"\xff")
    frame, several_scans = frame_of(plain)
    enough = None if frame in PROGRESSIVE or several_scans else 128
    try:
        first, second = (_decode(plain + noise + END, ["JPEG"], enough).picture for noise in (b"", NOISE))
    except (DamagedPicture, MemoryError):
        raise
    except Exception:
        return False
    return first == second


class Patient(io.BytesIO):
    """A file that is not read any more when its time is over: a decoder asks for its bytes piece by piece."""

    def __init__(self, content: bytes):
        super().__init__(content)
        self.until = time.monotonic() + SECONDS

    def read(self, size: int | None = -1) -> bytes:
        self.check_time()
        return super().read(size)

    def check_time(self) -> None:
        if time.monotonic() > self.until:
            message = f"too much work: not decoded after {SECONDS:.0f} seconds; save it anew"
            raise DamagedPicture(message, DamagedPicture.TOO_MUCH_WORK)


def _decode(content: bytes, formats: list[str], enough: int | None) -> Decoded:
    file = Patient(content)
    try:
        picture = Image.open(file, formats=formats)
        size = picture.size
        needed = _check_limits(picture, content)
        if enough and picture.format in ("JPEG", "MPO") and frame_of(content)[0] not in LOSSLESS:  # that has one scale
            picture.draft(None, (KEPT * enough, KEPT * enough))  # libjpeg leaves out what is not seen at this scale
        needed += picture.width * picture.height * (2 if picture.mode.startswith("I;16") else 4)
        with _turns if needed > TURN_BYTES else contextlib.nullcontext():
            file.until = time.monotonic() + SECONDS
            return _first_that_shows(picture, size, enough)
    except (DamagedPicture, MemoryError):
        raise
    except Exception:
        file.check_time()  # some decoders hide why they were stopped
        raise


def _check_limits(picture: Image.Image, content: bytes) -> int:
    """Bytes that the decoder keeps beside the pixels. Raises DamagedPicture where a limit is passed."""
    name = "JPEG" if picture.format == "MPO" else picture.format
    pixels, most, kept = picture.width * picture.height, FORMATS[name][1], 0
    frame, several_scans = frame_of(content) if name == "JPEG" else (0, False)
    if frame in PROGRESSIVE + LOSSLESS or several_scans:
        most, kept = JPEG_HELD, 6 * pixels  # three channels of two bytes
        scans = max(FEW_SCANS, min(SCANS, SCANNED_PIXELS // max(pixels, 1)))
        if has_more_scans(content, scans):
            message = f"too much work: a JPEG in more than {scans} scans, each as much as a picture; save it anew"
            raise DamagedPicture(message, DamagedPicture.TOO_MUCH_WORK)
    if getattr(picture, "is_animated", False) and name in ("GIF", "PNG"):
        most = ANIMATED  # the frame before is kept
    if picture.mode == "F":
        most = min(most, REAL)
    if pixels > most * 10**6:
        raise DamagedPicture(
            f"too large: {picture.width} x {picture.height} are {pixels / 1e6:.0f} megapixels, and a {name} "
            f"{'that is held whole ' if kept else ''}may have {most}; save it smaller",
            DamagedPicture.TOO_LARGE,
        )
    return kept


def _first_that_shows(picture: Image.Image, size: tuple[int, int], enough: int | None) -> Decoded:
    """Load the frame or page that counts, see the top. `size`: of the first one in the file."""
    picture.load()
    first = _upright(to_rgb(picture, enough, show_hidden=True), picture, size)
    if picture.format == "MPO" or not getattr(picture, "is_animated", False):
        return first
    first = first._replace(picture=first.picture.copy())  # `seek` changes the picture that it is
    shown = to_rgb(picture, enough)
    for number in range(1, FRAMES):
        if not is_flat(shown):
            return _upright(shown, picture, picture.size)
        try:
            picture.seek(number)  # and never back: the first frame is not always found again
        except EOFError:
            return first
        _check_limits(picture, b"")
        picture.load()
        shown = to_rgb(picture, enough)
    return first if is_flat(shown) else _upright(shown, picture, picture.size)


def is_flat(picture: Image.Image) -> bool:
    return all(low == high for low, high in picture.getextrema())


def _upright(shown: Image.Image, picture: Image.Image, size: tuple[int, int]) -> Decoded:
    """Turned as the file says, if it does. `size`: in the file, of which `shown` may be a reduction."""
    factor = max(round(side / small) for side, small in zip(size, shown.size))
    right, lower = (side / factor for side in size)
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # an unreadable EXIF block says nothing about the orientation
        orientation = 1
    grey = picture.mode in ("1", "L", "F") or picture.mode.startswith("I")
    if not isinstance(orientation, int) or orientation not in TRANSPOSE:
        return Decoded(shown, size, (0, 0, right, lower), grey)
    turned = shown.transpose(TRANSPOSE[orientation])
    if orientation > 4:  # a quarter turn, with a flip or without
        size, right, lower = size[::-1], lower, right
    left = turned.width - right if orientation in (2, 3, 6, 7) else 0
    upper = turned.height - lower if orientation in (3, 4, 7, 8) else 0
    return Decoded(turned, size, (left, upper, left + right, upper + lower), grey)
