"""Pictures in folders, a folder a class.

Two layouts are understood; names of parts are compared without regard to case:

    <root>/train/<class>/*  with  <root>/{eval,val,valid,validation,validation_preprocess,test}/<class>/*
    <root>/<class>/*        without a published split

With both a validation and a test folder, the first chooses the best epoch and the second evaluates. A folder that holds
pictures and no folders of pictures is a class, whatever its name. Pictures deeper below a class are of that class.
Links are followed.

A file is taken for a picture by its suffix, or by how it begins where the suffix is another or none. Everything else is
counted, by folder and reason, in `Dataset.passed_over`.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError, MachineFault, cannot_read
from datasets.decoding.formats import KNOWN_AS, looks_like_a_picture

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .pfm .avif .jp2 "
    ".j2k .jpx .jpf .heic .heif .hif".split()
)
TRAIN_FOLDERS = ("train", "training")
VALID_FOLDERS = ("val", "valid", "validation", "validation_preprocess")
EVAL_FOLDERS = ("eval", "test")
PART_FOLDERS = TRAIN_FOLDERS + VALID_FOLDERS + EVAL_FOLDERS
VIEWS_FOLDER = "features"  # where finetune puts the .npy views; never a class unless it holds pictures
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


def passed_over_lines(passed_over: dict[str, dict[str, int]]) -> list[str]:
    """A line a folder: what is there beside pictures."""
    return [
        f"passed over in {place}: {', '.join(f'{count} {what}' for what, count in counts.items())}"
        for place, counts in passed_over.items()
    ]


def load_folder(root: Path, least_classes: int = 2) -> Dataset:
    """Read the names (not the pixels) of a folder dataset.

    Raises:
        InputError: no such folder, no pictures, fewer classes, an empty class folder, classes that differ between the
            parts, or a folder that cannot be listed.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. --dataset_path takes a folder of pictures, a folder a class.")
    listing = Listing(root)
    part_folders, notes = _part_folders(root, listing)
    per_part = {part: _classes_of(folder, listing, notes) for part, folder in (part_folders or {None: root}).items()}
    if part_folders:
        _check_same_classes(part_folders, per_part)
    classes = tuple(sorted(next(iter(per_part.values()))))
    if len(classes) < least_classes:
        raise InputError(_too_few_classes(root, part_folders.get("train", root), classes))
    if not part_folders and all(name.lower() in PART_FOLDERS for name in classes):
        raise InputError(
            f"{root}: pictures lie directly in {' and '.join(classes)}. Put those of each class into a folder of its "
            f"own, as {classes[0]}/cat; the folder's name is the class name."
        )

    if not part_folders:
        _check_no_parts(root, next(iter(per_part.values())))
    paths, labels, parts = [], [], []
    for part, by_class in per_part.items():
        for label, name in enumerate(classes):
            paths += by_class[name]
            labels += [label] * len(by_class[name])
            parts += [part] * len(by_class[name])
    return Dataset(
        name=root.resolve().name,
        root=root,
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int32),
        classes=classes,
        parts=tuple(parts) if part_folders else None,
        passed_over=listing.counted(),
        notes=tuple(notes),
    )


def _part_folders(root: Path, listing: Listing) -> tuple[dict[str, Path], list[str]]:
    """({"train": folder, "valid": ..., "eval": ...} as far as they are there, what was decided); {}: flat layout."""
    above = Listing(root)
    folders = {path: path.name.lower() for path in above.subfolders(root)}
    parts = {path: name for path, name in folders.items() if name in PART_FOLDERS and not _is_class(path)}

    def first(names: tuple[str, ...]) -> Path | None:
        return min((p for p, name in parts.items() if name in names), key=lambda p: names.index(parts[p]), default=None)

    train, valid, evaluation = first(TRAIN_FOLDERS), first(VALID_FOLDERS), first(EVAL_FOLDERS)
    if train is None:
        return {}, []
    if evaluation is None:
        valid, evaluation = None, valid
    if evaluation is None:
        raise InputError(
            f"{root}: there is {train.name}/ but nothing to evaluate on. Put pictures into one of "
            f"{', '.join(EVAL_FOLDERS + VALID_FOLDERS)}, or give {train} as the dataset: "
            "a part of it is then held out."
        )
    used = {part: folder for part, folder in zip(("train", "valid", "eval"), (train, valid, evaluation)) if folder}
    roles = {"train": "trains", "valid": "chooses the best epoch", "eval": "evaluates"}
    notes = ["parts: " + ", ".join(f"{folder.name}/ {roles[part]}" for part, folder in used.items())]
    for reason, count in above.passed_over["."].items():
        listing.passed_over["."][reason] += count
    for folder in folders:
        if folder not in used.values():
            listing.leave_out(folder, f"picture beside {' and '.join(f'{used.name}/' for used in used.values())}")
    return used, notes


def _is_class(folder: Path) -> bool:
    """Whether it holds pictures, but no folder of pictures."""
    listing = Listing(folder)
    direct = any(listing.kind_of(entry) == "picture" for entry in entries(folder))
    return direct and not any(listing.pictures(inner) for inner in listing.subfolders(folder))


def _classes_of(folder: Path, listing: Listing, notes: list[str]) -> dict[str, list[Path]]:
    """Class name -> its pictures, for each folder below `folder`. Two spellings of the same letters are one class."""
    by_class: dict[str, list[Path]] = {}
    spelt: dict[str, Path] = {}
    for path in listing.subfolders(folder):
        pictures = listing.pictures(path)
        if not pictures and path.name == VIEWS_FOLDER:
            listing.passed_over.pop(listing.place(path))
            continue
        name = unicodedata.normalize("NFC", path.name)
        if name in by_class:
            notes.append(f"{listing.place(path)} and {listing.place(spelt[name])} are one class in two Unicode forms")
        by_class.setdefault(name, []).extend(pictures)
        spelt.setdefault(name, path)
    empty = [name for name, pictures in by_class.items() if not pictures]
    if by_class and len(empty) == len(by_class):
        raise InputError(f"{folder}: no pictures found below it. Known are {KNOWN_AS}.")
    if empty:
        others = ", ".join(f"{n} {what}" for what, n in listing.passed_over[listing.place(spelt[empty[0]])].items())
        raise InputError(
            f"{spelt[empty[0]]}: no pictures in this class folder{f', but {others}' if others else ''}. "
            f"Add some ({KNOWN_AS}), or remove the folder."
        )
    return by_class


def _check_no_parts(root: Path, by_class: dict[str, list[Path]]) -> None:
    """Raises InputError where the classes look like parts: all of them hold the same two or more folders only."""
    inner = [{path.relative_to(root).parts[1] if len(path.relative_to(root).parts) > 2 else "" for path in pictures}
             for pictures in by_class.values()]  # fmt: skip
    if len(inner) > 1 and len(inner[0]) > 1 and "" not in inner[0] and all(names == inner[0] for names in inner):
        raise InputError(
            f"{root}: {' and '.join(by_class)} all hold {', '.join(sorted(inner[0]))}. If these are the classes, "
            "rename the folders above them to train and eval; if not, give the inner folders other names."
        )


def _check_same_classes(folders: dict[str, Path], per_part: dict[str, dict]) -> None:
    train = set(per_part["train"])
    for part, by_class in per_part.items():
        lacking, unknown = sorted(train - set(by_class)), sorted(set(by_class) - train)
        if unknown:
            raise InputError(
                f"{folders[part] / unknown[0]}: the class {unknown[0]!r} has no pictures in "
                f"{folders['train']}, which has {', '.join(sorted(train)) or 'none'}. "
                "Rename the folder, add training pictures for it, or remove it."
            )
        if lacking:
            raise InputError(
                f"{folders[part]}: the class {lacking[0]!r} of {folders['train']} is missing here. "
                f"Add {folders[part] / lacking[0]} with pictures, or remove the class from both."
            )


def _too_few_classes(root: Path, folder: Path, classes: tuple[str, ...]) -> str:
    loose = sum(1 for path in folder.iterdir() if path.is_file() and is_picture(path))
    inner = folder / classes[0] if classes else None
    if inner and any((inner / name).is_dir() for name in TRAIN_FOLDERS):
        return f"{root}: only the folder {classes[0]} is in it. Did you mean --dataset_path {inner}?"
    if loose and not classes:
        return (
            f"{folder}: {loose} pictures lie directly in it. Put the pictures of each class into a "
            "folder of its own; the folder's name is the class name."
        )
    found = f"one class only ({classes[0]})" if classes else "no pictures"
    return f"{folder}: {found}. A classifier needs two or more class folders with pictures."
