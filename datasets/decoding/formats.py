"""Which files are pictures: one table of formats, told by content, and names for what is none."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re

# Pillow's name of a format: its module, and the most pixels in millions. A JPEG is decoded at a smaller scale, so that
# a telephone's 200 millions need little memory; of the others as many as take 600 MB to decode, 4 to 20 bytes a pixel.
FORMATS = {
    "JPEG": ("JpegImagePlugin", 256),  # also MPO, the JPEG of cameras with two lenses
    "PNG": ("PngImagePlugin", 128),
    "WEBP": ("WebPImagePlugin", 36),
    "GIF": ("GifImagePlugin", 64),
    "BMP": ("BmpImagePlugin", 128),
    "TIFF": ("TiffImagePlugin", 128),
    "PPM": ("PpmImagePlugin", 128),  # also PGM, PBM, PNM, PFM
    "AVIF": ("AvifImagePlugin", 64),  # from Pillow 11.3
    "JPEG2000": ("Jpeg2KImagePlugin", 30),
    "HEIF": (None, 64),  # with pillow-heif
}
KNOWN_AS = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF, JPEG 2000"
NOT_PICTURES = (  # how a file begins, what that is, and what helps
    (b"version https://git-lfs", "a Git LFS pointer in place of the picture; `git lfs pull` gets it"),
    (b"%!PS", "PostScript, which is a program; save it as PNG"),
    (b"\xc5\xd0\xd3\xc6", "PostScript, which is a program; save it as PNG"),
    (b"%PDF", "a PDF document; save its pages as PNG"),
    (b"\xff\x0a", "JPEG XL; save it as JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL; save it as JPEG or PNG"),
    (b"8BPS", "a Photoshop document; save it as PNG"),
    (b"gimp xcf", "a GIMP document; save it as PNG"),
    (b"PK\3\4", "a ZIP archive; unpack it"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
    (b"\x93NUMPY", "a NumPy array; save each picture as PNG"),
    (b"\0\0\1\0", "an icon; save it as PNG"),
)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
BMP_HEADS = tuple(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))  # of the second head
PICTURE_STARTS = (  # enough to tell that a file without a known suffix is meant to be a picture
    *(b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    *(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b"\n \r\t"),
)

ADDRESS = re.compile(r"<?[\w.]* ?object at 0x[0-9a-fA-F]+>?")  # how Pillow names a file in memory


class DamagedPicture(Exception):
    """The bytes are not a picture that can be decoded whole. `kind` is one of the words below, for programs."""

    EMPTY, NO_PICTURE, HEIC, DAMAGED = "empty", "not_a_picture", "heic", "damaged"
    TOO_LARGE, TOO_MUCH_WORK = "too_many_pixels", "too_much_work"

    def __init__(self, message: str, kind: str = DAMAGED):
        super().__init__(ADDRESS.sub("file", message)[:300])
        self.kind = kind


def formats_for(content: bytes) -> list[str]:
    """Pillow's names of the formats to try.

    Raises:
        DamagedPicture: it is none of them, and the message says what it is.
    """
    if content.startswith(b"\xff\xd8\xff"):  # most are
        return ["JPEG"]
    name = what_it_is(content)
    if name is None:
        return _plugins()
    if name == "HEIC":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            message = "this is an HEIC photograph, as iPhones take them; pip install pillow-heif, or save it as JPEG"
            raise DamagedPicture(message, DamagedPicture.HEIC) from None
        register_heif_opener()
        return ["HEIF"]
    raise DamagedPicture(name, DamagedPicture.NO_PICTURE)


def what_it_is(content: bytes) -> str | None:
    """The name of what is no picture, "HEIC", or None where Pillow should look."""
    if content[4:8] == b"ftyp":
        if content[8:12] in AVIF_BRANDS:
            return None
        brands = content[8 : min(int.from_bytes(content[:4], "big"), 128)]
        if not any(brands[i : i + 4] in AVIF_BRANDS for i in range(0, len(brands), 4)):
            return "HEIC" if brands[:4] in HEIF_BRANDS else "this is a film"
    for start, name in NOT_PICTURES:
        if content.startswith(start):
            return f"this is {name}"
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "this is a web page, perhaps of a download that needs a login; get the file again"
    if start.startswith((b"<svg", b"<?xml", b"<!--")):
        return "this is a drawing (SVG) or XML; save it as PNG"
    if not content.strip(b"\0"):
        return "zeros only, as of a copy that was cut short; get the file again"
    return None


def looks_like_a_picture(start: bytes) -> bool:
    """By the first 32 bytes of a file."""
    if start.startswith(b"BM") and start[14:18] not in BMP_HEADS:
        return False
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start.startswith(PICTURE_STARTS) or webp or brand in HEIF_BRANDS + AVIF_BRANDS


@functools.cache
def _plugins() -> list[str]:
    """The formats that this Pillow has, with their modules imported."""
    here = []
    for name, (module, _) in FORMATS.items():
        with contextlib.suppress(ImportError):  # of a later Pillow, or of another package
            importlib.import_module(f"PIL.{module}")
            here.append(name)
    return here
