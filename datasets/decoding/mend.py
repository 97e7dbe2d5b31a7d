"""JPEG and PNG by their parts: what a decoder would have to do, and the pixels without what is no pixel.

ITU-T T.81, annex B, for JPEG; https://www.w3.org/TR/png/ for PNG.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Iterator, Sequence

SOI, EOI, SOS, COMMENT, APP0, APP1, APP14, APP15 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE0, 0xE1, 0xEE, 0xEF
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE, LOSSLESS = (0xC2, 0xC6, 0xCA, 0xCE), (0xC3, 0xC7, 0xCB, 0xCF)
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # inside of a scan all others are data
END = b"\xff\xd9"
RANDOM = bytes(range(7, 247, 5)) * 4
NOISE = RANDOM + b"".join(bytes([0xFF, 0xD0 + number]) + RANDOM for number in range(8))  # behind each restart, too
PNG_STILL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
PNG_PIXELS = (*PNG_STILL, b"acTL", b"fcTL", b"fdAT")  # with an animation


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of each marker of a JPEG with its fields; what lies between two is the data of a scan."""
    at = 2
    while found := MARKER.search(content, at):
        start, kind = found.start(), content[found.start() + 1]
        length = 0 if kind in (0x01, SOI, EOI) else int.from_bytes(content[start + 2 : start + 4], "big")
        at = max(start + 2 + length, found.end())
        yield kind, start, at


def frame_of(content: bytes) -> tuple[int, bool]:
    """(kind of frame, whether its channels come in several scans) of a JPEG, by its head up to the first scan."""
    frame, components = 0, 0
    for kind, start, _ in segments(content):
        if kind in FRAMES:
            frame, components = kind, int.from_bytes(content[start + 9 : start + 10], "big")
        if kind == SOS:
            return frame, int.from_bytes(content[start + 4 : start + 5], "big") < components
    return frame, False


def has_more_scans(content: bytes, than: int) -> bool:
    """Of a JPEG's first picture."""
    if content.count(b"\xff\xda") <= than:
        return False
    kinds = itertools.takewhile(lambda kind: kind != EOI, (kind for kind, _, _ in segments(content)))
    return sum(kind == SOS for kind in kinds) > than


def mend(content: bytes, ending: bytes) -> Iterator[bytes]:
    """The same pixels with ever less of what is no pixel, for a file that cannot be read as it is. `ending` is what
    a JPEG lacks at its end."""
    if content.startswith(b"\xff\xd8"):
        if ending:
            yield content + ending
        for kept in ((APP1, APP14), (APP14,), ()):
            yield without_applications(content, kept) + ending
    elif content.startswith(b"\x89PNG"):
        for kept in (PNG_PIXELS, PNG_STILL):
            yield only_chunks(content, kept)


def without_applications(content: bytes, kept: Sequence[int]) -> bytes:
    """A JPEG whose head has no comments, nothing between its segments, and of the applications' segments only those of
    the kinds `kept`."""
    pieces, at = [content[:2]], 2
    for kind, start, end in segments(content):
        if not (APP0 <= kind <= APP15 or kind == COMMENT) or kind in kept:
            pieces.append(content[start:end])
        at = end
        if kind == SOS:
            break
    return b"".join([*pieces, content[at:]])


def only_chunks(content: bytes, kept: Sequence[bytes]) -> bytes:
    """A PNG without texts, profiles and other chunks that are no pixels; EXIF stays where it is whole."""
    pieces, at = [content[:8]], 8
    while at + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        end = at + 12 + length
        whole = content[end - 4 : end] == struct.pack(">I", zlib.crc32(content[at + 4 : end - 4]))
        if kind in kept and (whole or kind != b"eXIf"):
            pieces.append(content[at:end])
        at = end
    return b"".join(pieces)
