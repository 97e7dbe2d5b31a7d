"""Other people's pictures: which are read, what their values mean, and what is refused in words."""

import io
import re
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import odd_pictures
import pytest
from conftest import CHECKOUT
from odd_pictures import ALL, COLOURS, DEEP, GOOD, GREY, HEIC, HIDDEN, JPEG, LEVELS, SIDE, array, saved, transparent
from PIL import Image, JpegImagePlugin

from datasets.decoding import decode as room
from datasets.decoding.decode import Decoded, decode
from datasets.decoding.formats import FORMATS, DamagedPicture, looks_like_a_picture
from datasets.image import ImageSpec, to_array

SPEC = ImageSpec(size=(224, 224), resize=256, mean_unit=(0.5,) * 3, std_unit=(0.5,) * 3)


def pixels(content: bytes) -> np.ndarray:
    """int (H, W, 3)"""
    return np.asarray(decode(content).picture).astype(int)


def refusal(content: bytes) -> DamagedPicture:
    with pytest.raises(DamagedPicture) as caught:
        decode(content)
    return caught.value


@pytest.mark.parametrize("name", ALL)
def test_verdict(name):
    content, verdict = ALL[name]
    if verdict is None:
        picture = decode(content, 256).picture
        assert picture.mode == "RGB" and picture.getextrema() != ((255, 255),) * 3
    else:
        assert refusal(content).kind == verdict


# The same pixels as the plain picture, in levels: 0 where nothing is lost, a few where JPEG and palettes lose some.
SAME_COLOURS = {
    "progressive jpeg": 6,
    "jpeg without its last two bytes": 6,
    "jpeg with a short app0": 6,
    "jpeg with a short app14": 6,
    "jpeg with a short app2": 6,
    "jpeg with nonsense between its segments": 6,
    "png whose animation is broken": 0,
    "jpeg with nonsense as exif": 6,
    "two pictures of one camera": 6,
    "png": 0,
    "png with everything hidden": 0,
    "png with 2 MB of text": 0,
    "png with a wrong pHYs": 0,
    "png with a wrong iCCP": 0,
    "png with a wrong tEXt": 0,
    "png whose pixels have a wrong checksum": 0,
    "png whose first frame is empty": 0,
    "webp whose first frame is empty": 0,
    "gif whose first frame is white": 20,
    "tiff": 0,
    "tiff compressed": 0,
    "tiff whose first page is white": 0,
    "bmp": 0,
    "ppm": 0,
    "jpeg 2000": 0,
}


@pytest.mark.parametrize("name", SAME_COLOURS)
def test_the_colours_are_those_of_the_picture(name):
    assert np.abs(pixels(GOOD[name]) - np.asarray(COLOURS)).mean() <= SAME_COLOURS[name]


SAME_GREY = [
    "png of 16 bits", "tiff of 16 bits", "tiff of 12 bits that says so", "tiff of 32 bits", "tiff of real numbers",
    "tiff of real numbers above 1", "pgm of 10 bits", "pgm of 8 bits",
]  # fmt: skip


@pytest.mark.parametrize("name", SAME_GREY)
def test_the_depth_is_read_from_the_file(name):
    assert np.abs(pixels(GOOD[name]) - np.asarray(GREY)[..., None]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [24, 203])
def test_every_exif_orientation(orientation, side):
    """As Pillow's own function turns it; also where it is decoded smaller, and the box says what it shows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(COLOURS.resize((side + 10, side)), "JPEG", exif=exif, quality=95)
    from PIL import ImageOps

    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    found = decode(content, 24)
    assert found.size == wanted.size and (found.picture.size != wanted.size) == (side > 100)
    small = found.picture.resize((20, 20), Image.Resampling.BILINEAR, found.box)
    difference = np.abs(np.asarray(small).astype(int) - np.asarray(wanted.resize((20, 20), Image.Resampling.BILINEAR)))
    assert difference.mean() < 1.5


FLAT = {
    "grey": (saved(Image.new("L", (20, 12), 77), "PNG"), (77, 77, 77)),
    "one bit": (saved(Image.new("1", (20, 12), 1), "PNG"), (255, 255, 255)),
    "half transparent over white": (saved(Image.new("RGBA", (20, 12), (255, 0, 0, 127)), "PNG"), (255, 128, 128)),
    "16 bits": (array(np.full((12, 20), 0x8080, np.uint16), "PNG"), (128, 128, 128)),
    "16 bits, the first byte of the last order": (array(np.full((12, 20), 0x8080, ">u2"), "TIFF"), (128, 128, 128)),
    "real numbers": (array(np.full((12, 20), 0.5, np.float32)), (128, 128, 128)),
    "CMYK": (saved(Image.new("CMYK", (20, 12), (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
    "CMYK JPEG": (saved(Image.new("CMYK", (20, 12), (255, 0, 0, 0)), "JPEG", quality=100), (0, 255, 255)),
    "Lab": (saved(Image.new("LAB", (20, 12), (255, 128, 128)), "TIFF"), (255, 255, 255)),
    "hidden altogether": (saved(Image.new("RGBA", (20, 12), (9, 8, 7, 0)), "PNG"), (9, 8, 7)),
}


@pytest.mark.parametrize("name", FLAT)
def test_every_mode_becomes_rgb(name):
    content, colour = FLAT[name]
    assert pixels(content).shape == (12, 20, 3) and np.abs(pixels(content) - colour).max() <= 1


def test_the_brightest_pixel_does_not_decide():
    """Of 16 bits, 255 and 256 are next to each other; of real numbers 1 and 1.0001, 255 and 255.5."""
    ramp = np.linspace(0, 1, 400).reshape(20, 20)
    for low, high, kind in [
        (255, 256, np.uint16),
        (255, 256, np.int32),
        (1, 1.0001, np.float32),
        (255, 255.5, np.float32),
    ]:
        first, second = (pixels(array((ramp * top).astype(kind))) for top in (low, high))
        assert np.abs(first - second).max() <= 1
    assert pixels(array((ramp * 256).astype(np.uint16))).max() == 1  # 256 of 65535


def test_nan_and_infinity_decide_nothing(recwarn):
    plain = pixels(array(LEVELS.astype(np.float32)))
    spoilt = pixels(GOOD["tiff with nan and infinity"])
    assert (np.abs(plain - spoilt).max(-1) > 0).sum() <= 3  # the three spots themselves
    assert spoilt[0, 0].tolist() == [0] * 3 and spoilt[1, 1].tolist() == [255] * 3 and spoilt[2, 2].tolist() == [0] * 3
    assert not recwarn.list


def test_negative_numbers_are_not_cut():
    found = pixels(GOOD["tiff of real numbers below 0"])
    assert found.min() == 0 and len(np.unique(found)) > 50


def test_a_stated_range_counts():
    stated = odd_pictures.tags(smallest_real=-100.0, largest_real=300.0)
    found = pixels(array((LEVELS * 400 - 100).astype(np.float32), tiffinfo=stated))
    assert np.abs(found - np.asarray(GREY)[..., None]).max() <= 1
    inverted = pixels(array(65535 - DEEP, tiffinfo=odd_pictures.tags(photometric=0)))
    assert np.abs(inverted - np.asarray(GREY)[..., None]).max() <= 1


def test_the_first_frame_that_shows_anything_counts():
    other = COLOURS.transpose(Image.Transpose.ROTATE_180)
    for kind in ("WEBP", "PNG", "TIFF"):
        white, first = Image.new("RGB", SIDE, "white"), COLOURS.convert("RGB")
        content = saved(white, kind, save_all=True, append_images=[white, first, other], lossless=True)
        assert np.array_equal(pixels(content), np.asarray(COLOURS)), kind
    red, green = (Image.new("RGB", SIDE, name).quantize(2) for name in ("red", "green"))
    assert pixels(saved(red, "PNG", save_all=True, append_images=[green]))[0, 0].tolist() == [255, 0, 0]
    nothing = saved(HIDDEN, "WEBP", save_all=True, append_images=[HIDDEN, HIDDEN], lossless=True)
    assert pixels(nothing).max() == 0  # the first one, with what it hides


def test_nothing_is_started(monkeypatch):
    """Pillow would run Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a program"))
    for name in ("postscript that never ends", "encapsulated postscript"):
        assert "program" in str(refusal(ALL[name][0]))
    assert not {"EPS", "WMF", "PDF", "PSD", "GBR", "FITS"} & set(FORMATS)


def test_what_it_is_is_said_with_a_remedy():
    said = {name: str(refusal(content)) for name, (content, verdict) in ALL.items() if verdict}
    for name, words in {
        "lfs pointer": "git lfs pull", "web page": "web page", "jpeg xl": "JPEG XL", "pdf": "PDF", "film": "film",
        "zeros": "zeros", "jpeg in 1000 scans": "more than 100 scans", "png that claims to be huge": "2500 megapixels",
    }.items():  # fmt: skip
        assert words in said[name]
    assert "too large: 12000 x 11000" in said["png of a small bomb"] and "bomb" not in said["png of a small bomb"]
    assert not [text for text in said.values() if re.search("0x[0-9a-f]{4}|object at", text)]
    if "heic without its reader" in said:
        assert "pip install pillow-heif" in said["heic without its reader"]


def test_heic_is_read_where_its_reader_is(monkeypatch):
    """By a stand-in for pillow-heif, which need not be here: it registers itself with Pillow."""
    import sys
    import types

    def register_heif_opener():
        def opened(file, name):
            file.read()
            picture = COLOURS.copy()
            picture.format = "HEIF"
            return picture

        Image.register_open("HEIF", opened, lambda start: start[4:8] == b"ftyp")

    monkeypatch.setattr(Image, "ID", Image.ID.copy())  # both are taken back afterwards
    monkeypatch.setattr(Image, "OPEN", Image.OPEN.copy())
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register_heif_opener))
    assert decode(HEIC).size == SIDE


@pytest.mark.parametrize(
    "start, yes", [(JPEG, True), (GOOD["webp"], True), (HEIC, True), (b"Hello", False), (b"", False)]
)
def test_the_start_of_a_file_tells(start, yes):
    assert looks_like_a_picture(start[:32]) == yes


def test_a_wrong_end_is_not_a_missing_one():
    """Whatever is cut off: only the end mark may be missing."""
    for cut in (1, 2):
        assert decode(JPEG[:-cut]).size == SIDE
    for cut in (12, 60, len(JPEG) // 2):
        assert refusal(JPEG[:-cut]).kind == "damaged"


def test_a_jpeg_without_loss_is_never_scaled(monkeypatch):
    """libjpeg cannot; the marker tells, and Pillow writes none, so that a frame is called lossless here."""
    asked = []
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda self, *size: asked.append(size))
    decode(JPEG, 10)
    monkeypatch.setattr(room, "frame_of", lambda content: (0xC3, False))
    decode(JPEG, 10)
    assert len(asked) == 1


@pytest.mark.parametrize("percent", [5, 10, 30, 60, 80, 95])
def test_a_large_progressive_jpeg_that_is_cut_is_refused(percent):
    """At a small scale the missing scans would not show."""
    content = saved(COLOURS.resize((1600, 1200), Image.Resampling.BICUBIC), "JPEG", progressive=True)
    assert decode(content[:-2], 64).size == (1600, 1200)
    with pytest.raises(DamagedPicture):
        decode(content[: len(content) * percent // 100], 64)


def test_a_jpeg_cut_at_a_restart_is_refused():
    content = saved(COLOURS, "JPEG", restart_marker_rows=1)
    cuts = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", content)]
    assert len(cuts) >= 4 and decode(content[:-2]).size == SIDE
    for cut in cuts:
        for more in (0, 1, 2, 3):
            assert refusal(content[: cut + more]).kind == "damaged"


@pytest.mark.parametrize("name", ["jpeg", "webp", "jpeg 2000"])
def test_a_decoder_that_does_not_say_that_memory_was_short(name, monkeypatch):
    def load(self):
        raise OSError("broken data stream when reading image file")

    class Short(bytearray):
        def __init__(self, size):
            raise MemoryError

    monkeypatch.setattr(Image.Image, "load", load)
    assert refusal(GOOD[name]).kind == "damaged"
    monkeypatch.setattr(room, "bytearray", Short, raising=False)
    with pytest.raises(MemoryError):
        decode(GOOD[name])


def test_a_stopped_decoder_that_hides_why(monkeypatch):
    monkeypatch.setattr(room, "SECONDS", 0.02)

    def load(self):
        time.sleep(0.05)
        raise SystemError("a result with an exception set")

    monkeypatch.setattr(Image.Image, "load", load)
    assert refusal(GOOD["jpeg 2000"]).kind == "too_much_work"


def test_limits_are_the_same_for_everybody_and_far_above_telephones():
    assert decode(saved(Image.new("RGBA", (5120, 2880), (90, 200, 90, 255)), "PNG"), 256).size == (5120, 2880)
    green = decode(saved(Image.new("RGB", (12_000, 9_000), "green"), "PNG", compress_level=1), 256)
    assert green.size == (12_000, 9_000) and max(green.picture.size) < 1000
    assert np.asarray(green.picture).reshape(-1, 3).max(0).tolist() == [0, 128, 0]
    telephone = saved(Image.new("L", (16_320, 12_240), 128), "JPEG")
    found = decode(telephone, 256)
    assert found.size == (16_320, 12_240) and max(found.picture.size) <= 2040
    progressive = saved(Image.new("L", (12_000, 9_000), 128), "JPEG", progressive=True)
    assert "that is held whole may have 96" in str(refusal(progressive))


@pytest.mark.parametrize("factor", [4, 7, 13])
def test_a_large_picture_is_reduced_as_pillow_would(factor):
    side = 24 * 2 * factor + 5
    large = COLOURS.resize((side, side + 50), Image.Resampling.BICUBIC)
    found = decode(saved(large, "PNG"), 24)
    assert np.array_equal(np.asarray(found.picture), np.asarray(large.reduce(factor)))
    assert found.box == (0, 0, side / factor, (side + 50) / factor)


def test_strips_change_nothing(monkeypatch):
    from datasets.decoding import values

    large = saved(transparent(200).resize((700, 600)), "PNG")
    deep = array(np.tile(DEEP, (8, 8)), "PNG")
    whole = [np.asarray(decode(content, 40).picture) for content in (large, deep)]
    monkeypatch.setattr(values, "STRIP_PIXELS", 5000)
    pieces = [np.asarray(decode(content, 40).picture) for content in (large, deep)]
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces))


def test_a_photograph_from_a_telephone_looks_as_if_decoded_whole():
    """Half a level of 255 on average: what libjpeg leaves out is not seen in a picture of 256 pixels."""
    large = COLOURS.resize((4000, 3000), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(1).normal(0, 12, (3000, 4000, 1))
    content = saved(Image.fromarray((np.asarray(large) + noise).clip(0, 255).astype(np.uint8)), "JPEG", quality=90)
    wanted = np.asarray(Image.open(io.BytesIO(content)).resize((341, 256), Image.Resampling.BILINEAR))
    found = to_array(content, SPEC).astype(int)
    assert np.abs(found - wanted[16:240, 58:282]).mean() < 0.5


def test_too_little_memory_is_a_fault_of_the_machine(monkeypatch):
    def load(self):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(MemoryError):
        decode(GOOD["png"])


def test_work_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(room, "SECONDS", 0.0)
    assert refusal(JPEG).kind == "too_much_work" and "save it anew" in str(refusal(JPEG))


def test_large_pictures_take_turns(monkeypatch):
    """What needs much memory is decoded one after the other, whatever else is decoded meanwhile."""
    at_once, most, first_that_shows = 0, [0], room._first_that_shows
    counting = threading.Lock()

    def noted(*arguments) -> Decoded:
        nonlocal at_once
        with counting:
            at_once += 1
            most[0] = max(most[0], at_once)
        time.sleep(0.05)
        try:
            return first_that_shows(*arguments)
        finally:
            with counting:
                at_once -= 1

    monkeypatch.setattr(room, "_first_that_shows", noted)
    for bound, together in ((room.TURN_BYTES, 4), (0, 1)):
        monkeypatch.setattr(room, "TURN_BYTES", bound)
        most[0] = 0
        threads = [threading.Thread(target=decode, args=(GOOD["png"],)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most[0] == together


def test_text_that_unpacks_to_much_costs_no_memory():
    content = odd_pictures.long_text()
    tracemalloc.start()
    decode(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="the largest memory of a process is asked as Linux states it")
def test_sixteen_bits_of_88_megapixels_take_less_than_600_mb(tmp_path):
    """In a process of its own, whose largest memory is that of this one picture."""
    Image.fromarray(np.full((9400, 9400), 30000, np.uint16)).save(tmp_path / "deep.png", compress_level=1)
    code = (
        "import resource, sys\n"
        "from datasets.decoding.decode import decode\n"
        "found = decode(open(sys.argv[1], 'rb').read(), 256)\n"
        "assert found.size == (9400, 9400) and found.picture.getpixel((9, 9)) == (117, 117, 117)\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "deep.png")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and int(done.stdout) < 600_000, done.stdout + done.stderr
