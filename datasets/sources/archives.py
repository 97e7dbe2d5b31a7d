"""Unpack published archives: zip and tar, by content; whole or not at all, and never outside of their folder.

Links, devices, absolute names, `..`, names that meet on a disk without upper and lower case, too many entries and too
many bytes are refused, because nothing that people publish as pictures needs them.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from datasets.base import InputError, MachineFault
from datasets.progress import Progress

MOST_ENTRIES = 200_000
MOST_BYTES = 16 << 30
MOST_RATIO = 200  # unpacked to packed; pictures do not shrink
PIECE_BYTES = 1 << 20
UNFINISHED = ".unfinished"  # of the folder in work
PASSED_OVER = ("__MACOSX", ".DS_Store")
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # how a packed tar begins
FAULTS = (
    *(EOFError, ValueError, KeyError, NotImplementedError, RuntimeError),
    *(struct.error, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError),
)
Entry = tuple[str, BinaryIO]  # name, content


class Refused(Exception):
    """An archive that no publisher of pictures would make."""


def unpack(archives: Sequence[Path], folder: Path) -> None:
    """All archives into one new folder, which appears when all is in it.

    Raises:
        InputError: damaged, or it holds what is refused.
        MachineFault: the disk is too small.
    """
    unfinished = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir(parents=True)
    seen: set[str] = set()
    try:
        for archive in archives:
            try:
                _unpack_one(archive, unfinished, seen)
            except Refused as error:
                raise InputError(
                    f"{archive}: refused, {error}. Nothing of it was kept. Get it from its publisher again, or unpack "
                    "it yourself and give the folder."
                ) from error
            except (FileExistsError, NotADirectoryError) as error:
                raise InputError(f"{archive}: refused, {error.filename} is a file and a folder in it.") from error
            except FAULTS as error:
                raise InputError(f"{archive}: damaged ({error}). Remove it and fetch it again.") from error
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack_one(archive: Path, folder: Path, seen: set[str]) -> None:
    packed = archive.stat().st_size
    most = min(MOST_BYTES, max(packed, 1 << 20) * MOST_RATIO)
    with archive.open("rb") as file, Progress(f"unpacking {archive.name}", packed, "bytes") as bar:
        entries = zip_entries(file) if file.read(4) == b"PK\3\4" else tar_entries(file)
        written = count = 0
        with contextlib.closing(entries):
            for name, content in entries:
                count += 1
                if count > MOST_ENTRIES:
                    raise Refused(f"it has more than {MOST_ENTRIES:,} entries")
                target = folder / place(name, seen)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    while piece := content.read(PIECE_BYTES):
                        written += len(piece)
                        if written > most:
                            raise Refused(f"it unpacks to more than {most >> 20:,} MiB")
                        if shutil.disk_usage(folder).free < len(piece):
                            raise MachineFault(f"{folder.parent}: the disk is full. Make room and repeat the command.")
                        out.write(piece)
                bar.update(max(0, file.tell() - bar.done))


def zip_entries(file: BinaryIO) -> Iterator[Entry]:
    """The files in a zip, in order."""
    count = entries_of_zip(file)
    if count > MOST_ENTRIES:
        raise Refused(f"it has {count:,} entries")
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise Refused(f"{member.filename} is a link")
            if not member.is_dir() and not passed_over(member.filename):
                with archive.open(member) as content:
                    yield member.filename, content


def entries_of_zip(file: BinaryIO) -> int:
    """How many the end of the file states, before all of them are read."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 64))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise zipfile.BadZipFile("its end is missing")
    count = struct.unpack_from("<H", tail, at + 10)[0]
    large = tail.rfind(b"PK\6\6", 0, at)
    return struct.unpack_from("<Q", tail, large + 32)[0] if count == 0xFFFF and large >= 0 else count


def tar_entries(file: BinaryIO) -> Iterator[Entry]:
    """The files in a tar, packed or not, as they come: nothing is listed before."""
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    unpacked = next((opened for magic, opened in PACKED.items() if start.startswith(magic)), io.BufferedReader)(file)
    stream = WithTail(unpacked)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for count, member in enumerate(archive):
            archive.members.clear()  # it would keep them all
            if count >= MOST_ENTRIES:
                raise Refused(f"it has more than {MOST_ENTRIES:,} entries")
            if not (member.isfile() or member.isdir()):
                raise Refused(f"{member.name} is a link or a device")
            if member.isfile() and not passed_over(member.name):
                yield member.name, archive.extractfile(member)
    while stream.read(PIECE_BYTES):
        pass
    if stream.tail.strip(b"\0") or len(stream.tail) < tarfile.BLOCKSIZE:  # tarfile takes any end for the end
        raise tarfile.ReadError("its end is missing")


class WithTail:
    """A stream that remembers the last block it gave."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.tail = stream, b""

    def read(self, size: int) -> bytes:
        piece = self.stream.read(size)
        self.tail = (self.tail + piece)[-tarfile.BLOCKSIZE :]
        return piece


def passed_over(name: str) -> bool:
    return any(part in PASSED_OVER for part in PurePosixPath(name).parts)


def place(name: str, seen: set[str]) -> Path:
    """Where an entry goes, below the folder. Raises Refused where that is elsewhere, or taken."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or any(c in name for c in "\\\0:"):
        raise Refused(f"{name!r} leads out of the folder")
    same = unicodedata.normalize("NFC", str(path)).casefold()
    if same in seen:
        raise Refused(f"{name!r} is in it twice, perhaps in upper and lower case")
    seen.add(same)
    return Path(*path.parts)
