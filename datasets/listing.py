"""Which files below a folder are pictures, and what else lies there.

A file is taken for a picture by its suffix, or by how it begins where the suffix is another or none. Everything else is
counted. Links are followed; no folder is walked twice.
"""

from __future__ import annotations

import errno
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from datasets.base import MachineFault, cannot_read
from datasets.decoding.formats import looks_like_a_picture

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .pfm .avif .jp2 "
    ".j2k .jpx .jpf .heic .heif .hif".split()
)
SYSTEM_FOLDERS = frozenset(  # of storage boxes, systems and tools: thumbnails and deleted files, by their exact names
    ("@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "RECYCLER", "System Volume Information")
    + ("lost+found", "__MACOSX", "__pycache__")
)


class Listing:
    """Walks folders, and counts what is not used: passed_over[folder][reason]."""

    def __init__(self, root: Path):
        self.root = root
        self.passed_over: dict[str, Counter[str]] = defaultdict(Counter)

    def pictures(self, folder: Path, place: str | None = None) -> list[Path]:
        """All pictures below a folder, sorted by path. What is passed over is counted under `place`.

        Raises:
            InputError: a folder cannot be listed.
        """
        counts = self.passed_over[self.place(folder) if place is None else place]
        above = [self.root, *(self.root / part for part in folder.relative_to(self.root).parents), folder]
        seen, found, ahead = {identity(one) for one in above}, [], [folder]
        while ahead:
            for entry in entries(ahead.pop()):
                kind, path = self.kind_of(entry), Path(entry.path)
                if kind == "picture":
                    found.append(path)
                elif kind != "folder":
                    counts[kind] += 1
                elif (own := identity(path)) in seen:
                    counts["link to a folder seen before"] += 1
                else:
                    seen.add(own)
                    ahead.append(path)
        return sorted(found)

    def kind_of(self, entry: os.DirEntry) -> str:
        """ "picture", "folder", or why it is passed over."""
        if entry.name.startswith("."):
            return "hidden"
        try:
            folder, file = entry.is_dir(), entry.is_file()
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise cannot_read(Path(entry.path), error) from error
            folder = file = False
        if folder:
            return f"{entry.name}/" if entry.name in SYSTEM_FOLDERS else "folder"
        if not file:
            return "broken link" if entry.is_symlink() else "no regular file"
        try:
            picture = is_picture(Path(entry.path))
        except OSError as error:
            raise cannot_read(Path(entry.path), error) from error
        return "picture" if picture else Path(entry.name).suffix.lower() or "without suffix"

    def subfolders(self, folder: Path) -> list[Path]:
        """The folders directly below, sorted; files and what is passed over are counted."""
        found, counts = [], self.passed_over[self.place(folder)]
        for entry in entries(folder):
            kind = self.kind_of(entry)
            if kind == "folder":
                found.append(Path(entry.path))
            else:
                counts["picture outside of the class folders" if kind == "picture" else kind] += 1
        return sorted(found)

    def leave_out(self, folder: Path, reason: str) -> None:
        """Count the pictures of a folder that is not used."""
        pictures = Listing(self.root).pictures(folder)
        if pictures:
            self.passed_over[self.place(folder)][reason] += len(pictures)

    def place(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix() if folder != self.root else "."

    def counted(self) -> dict[str, dict[str, int]]:
        return {place: dict(sorted(counts.items())) for place, counts in sorted(self.passed_over.items()) if counts}


def entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as found:
            yield from list(found)
    except OSError as error:
        raise MachineFault(
            f"{folder}: cannot be listed ({error.strerror or error}), so that its pictures would be missing. "
            "Change its rights, or mount its disk again."
        ) from error


def identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def is_picture(path: Path) -> bool:
    """Raises OSError where a file without a known suffix cannot be read."""
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return looks_like_a_picture(file.read(32))


def find_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path."""
    return Listing(folder).pictures(folder)


def passed_over_lines(passed_over: dict[str, dict[str, int]], root: Path | None = None) -> list[str]:
    """A line a folder: what is there beside pictures. With `root` the folder itself is called by that path, in full
    where it is the current one: "." says little."""
    own = "." if root is None else str(root if root != Path() else root.resolve())
    return [
        f"passed over in {own if place == '.' else place}: "
        f"{', '.join(f'{count} {what}' for what, count in counts.items())}"
        for place, counts in passed_over.items()
    ]
