"""Pictures as other people have them, good and bad, made in memory: {name: (bytes, verdict)}.

The verdict is None where the file must be read, else the kind of `DamagedPicture`. All get a name that ends in .jpg,
because the content decides.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

RNG = np.random.default_rng(7)
SIDE = (96, 80)  # width, height
COLOURS = Image.fromarray(RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8)).resize(SIDE, Image.Resampling.BICUBIC)
GREY = COLOURS.convert("L")
LEVELS = np.asarray(GREY).astype(np.float64) / 255  # 0..1
HIDDEN = Image.new("RGBA", SIDE, (0, 0, 0, 0))


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def array(values: np.ndarray, kind: str = "TIFF", **options) -> bytes:
    return saved(Image.fromarray(values), kind, **options)


def tags(**values) -> TiffImagePlugin.ImageFileDirectory_v2:
    names = {"smallest_real": (340, 11), "largest_real": (341, 11), "largest": (281, 3), "photometric": (262, 3)}
    found = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in values.items():
        tag, kind = names[name]
        found.tagtype[tag] = kind
        found[tag] = value
    return found


def after_the_start(jpeg: bytes, segment: bytes) -> bytes:
    return jpeg[:2] + segment + jpeg[2:]


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan stands there `count` times."""
    jpeg = saved(COLOURS, "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(bytes(99)))
        + png_chunk(b"IEND", b"")
    )


def wrong_checksum(png: bytes, kind: bytes) -> bytes:
    changed = bytearray(png)
    start = png.index(kind)
    length = struct.unpack(">I", png[start - 4 : start])[0]
    changed[start + 4 + length] ^= 1
    return bytes(changed)


def with_metadata() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "a picture")
    return saved(COLOURS, "PNG", pnginfo=texts, dpi=(72, 72), icc_profile=b"no profile at all, but a chunk")


def long_text() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("a", "x" * 2_000_000, zip=True)
    return saved(COLOURS, "PNG", pnginfo=texts)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(COLOURS, "JPEG", exif=exif)


def transparent(alpha: int | np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([np.asarray(COLOURS), np.broadcast_to(np.uint8(alpha), SIDE[::-1])]))


def frames(kind: str, first: Image.Image, **options) -> bytes:
    return saved(first, kind, save_all=True, append_images=[COLOURS.convert(first.mode)], **options)


def pgm(largest: int) -> bytes:
    values = np.round(LEVELS * largest).astype(">u2" if largest > 255 else np.uint8)
    return b"P5\n%d %d\n%d\n" % (*SIDE, largest) + values.tobytes()


def spoilt(values: np.ndarray, *spots) -> np.ndarray:
    values = values.astype(np.float32)
    for spot, value in enumerate(spots):
        values[spot, spot] = value
    return values


JPEG = saved(COLOURS, "JPEG", quality=92)
PNG = saved(COLOURS, "PNG")
DEEP = np.round(LEVELS * 65535).astype(np.uint16)
GOOD = {
    "jpeg": JPEG,
    "grey jpeg": saved(GREY, "JPEG"),
    "cmyk jpeg": saved(COLOURS.convert("CMYK"), "JPEG"),
    "progressive jpeg": saved(COLOURS, "JPEG", progressive=True),
    "jpeg in 100 scans": with_scans(91),
    "jpeg turned by 90 degrees": turned(6),
    "jpeg flipped and turned": turned(7),
    "jpeg without its last two bytes": JPEG[:-2],
    "progressive jpeg without its last two bytes": saved(COLOURS, "JPEG", progressive=True)[:-2],
    "jpeg with a short app0": after_the_start(JPEG, b"\xff\xe0\x00\x07JFIF\0"),
    "jpeg with a short app14": after_the_start(JPEG, b"\xff\xee\x00\x07Adobe"),
    "jpeg with a short app2": after_the_start(JPEG, b"\xff\xe2\x00\x06MPF\0"),
    "jpeg with nonsense between its segments": after_the_start(JPEG, bytes(range(200))),
    "jpeg with nonsense as exif": saved(COLOURS, "JPEG", exif=b"Exif\0\0garbage"),
    "two pictures of one camera": saved(COLOURS, "MPO", save_all=True, append_images=[COLOURS]),
    "a large photograph": saved(COLOURS.resize((4000, 3000), Image.Resampling.BICUBIC), "JPEG"),
    "png": PNG,
    "png of a palette": saved(COLOURS.quantize(32), "PNG"),
    "png of a palette with a transparent colour": saved(COLOURS.quantize(32), "PNG", transparency=3),
    "png of one bit": saved(COLOURS.convert("1"), "PNG"),
    "png with transparency": saved(transparent(RNG.integers(0, 256, SIDE[::-1])), "PNG"),
    "png with everything hidden": saved(transparent(0), "PNG"),
    "grey png with transparency": saved(transparent(90).convert("LA"), "PNG"),
    "png of 16 bits": array(DEEP, "PNG"),
    "png with 2 MB of text": long_text(),
    "png with a wrong pHYs": wrong_checksum(with_metadata(), b"pHYs"),
    "png with a wrong iCCP": wrong_checksum(with_metadata(), b"iCCP"),
    "png with a wrong tEXt": wrong_checksum(with_metadata(), b"tEXt"),
    "png whose pixels have a wrong checksum": wrong_checksum(PNG, b"IDAT"),
    "png whose animation is broken": frames("PNG", COLOURS).replace(b"fcTL", b"fcTl"),
    "png whose first frame is empty": frames("PNG", HIDDEN),
    "webp": saved(COLOURS, "WEBP"),
    "webp whose first frame is empty": frames("WEBP", HIDDEN, lossless=True),
    "gif": saved(COLOURS, "GIF"),
    "gif whose first frame is white": frames("GIF", Image.new("RGB", SIDE, "white")),
    "bmp": saved(COLOURS, "BMP"),
    "tiff": saved(COLOURS, "TIFF"),
    "tiff compressed": saved(COLOURS, "TIFF", compression="tiff_lzw"),
    "tiff whose first page is white": frames("TIFF", Image.new("RGB", SIDE, "white")),
    "tiff of 16 bits": array(DEEP),
    "tiff of 12 bits that says so": array(np.round(LEVELS * 4095).astype(np.uint16), tiffinfo=tags(largest=4095)),
    "tiff of 32 bits": array(np.round(LEVELS * 255).astype(np.int32)),
    "tiff of real numbers": array(LEVELS.astype(np.float32)),
    "tiff of real numbers above 1": array((LEVELS * 1.0001).astype(np.float32)),
    "tiff of real numbers below 0": array((LEVELS - 0.5).astype(np.float32)),
    "tiff with nan and infinity": array(spoilt(LEVELS, np.nan, np.inf, -np.inf)),
    "tiff in cmyk": saved(COLOURS.convert("CMYK"), "TIFF"),
    "pgm of 10 bits": pgm(1023),
    "pgm of 8 bits": pgm(255),
    "ppm": saved(COLOURS, "PPM"),
    "jpeg 2000": saved(COLOURS, "JPEG2000"),
    "one pixel": saved(Image.new("RGB", (1, 1), "green"), "PNG"),
    "a thin strip": saved(COLOURS.resize((1500, 3)), "PNG"),
}
if "AVIF" in Image.registered_extensions().values():
    GOOD["avif"] = saved(COLOURS, "AVIF")

BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is no picture", "not_a_picture"),
    "web page": (b"<!DOCTYPE html>\n<html><body>Please log in</body></html>", "not_a_picture"),
    "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_a_picture"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "not_a_picture"),
    "postscript that never ends": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\n",
        "not_a_picture",
    ),
    "pdf": (b"%PDF-1.7\n", "not_a_picture"),
    "jpeg xl": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(90), "not_a_picture"),
    "zip": (b"PK\3\4" + bytes(90), "not_a_picture"),
    "film": (struct.pack(">I", 24) + b"ftypisom" + bytes(4) + b"isommp42" + bytes(200), "not_a_picture"),
    "icon": (saved(COLOURS, "ICO"), "not_a_picture"),
    "encapsulated postscript": (saved(COLOURS, "EPS"), "not_a_picture"),
    "zeros": (bytes(5000), "not_a_picture"),
    "targa": (saved(COLOURS, "TGA"), "not_a_picture"),
    "jpeg cut at 60 percent": (JPEG[: len(JPEG) * 6 // 10], "damaged"),
    "png cut at 60 percent": (PNG[: len(PNG) * 6 // 10], "damaged"),
    "the start of a jpeg": (b"\xff\xd8\xff" * 9, "damaged"),
    "png that has less than it claims": (claiming(500, 500), "damaged"),
    "jpeg in 1000 scans": (with_scans(1000), "too_much_work"),
    "png that claims to be huge": (claiming(50_000, 50_000), "too_many_pixels"),
    "png of a small bomb": (saved(Image.new("1", (12_000, 11_000)), "PNG"), "too_many_pixels"),
}
HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)
try:
    import pillow_heif  # noqa: F401

    BAD["heic that is none"] = (HEIC, "damaged")
except ImportError:
    BAD["heic without its reader"] = (HEIC, "heic")

ALL = {**{name: (content, None) for name, content in GOOD.items()}, **BAD}


def write(folder) -> dict[str, str | None]:
    """Write all of them; {file name: verdict}."""
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = {}
    for number, (name, (content, verdict)) in enumerate(ALL.items()):
        file = f"{number:02d} {name}.jpg"
        (folder / file).write_bytes(content)
        verdicts[file] = verdict
    return verdicts
