"""Pictures in folders, a folder a class.

Two layouts are understood; names of parts are compared without regard to case:

    <root>/train/<class>/*  with  <root>/{eval,val,valid,validation,validation_preprocess,test}/<class>/*
    <root>/<class>/*        without a published split

With both a validation and a test folder, the first chooses the best epoch and the second evaluates. A folder that holds
pictures and no folders of pictures is a class, whatever its name. Pictures deeper below a class are of that class.
Links are followed.

What is not used is counted, by folder and reason, in `Dataset.passed_over`.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError
from datasets.decoding.formats import KNOWN_AS
from datasets.listing import Listing, entries, is_picture
from datasets.names import check_class_name, shown

TRAIN_FOLDERS = ("train", "training")
VALID_FOLDERS = ("val", "valid", "validation", "validation_preprocess")
EVAL_FOLDERS = ("eval", "test")
PART_FOLDERS = TRAIN_FOLDERS + VALID_FOLDERS + EVAL_FOLDERS
VIEWS_FOLDER = "features"  # where finetune puts the .npy views; never a class unless it holds pictures


def load_folder(root: Path, least_classes: int = 2) -> Dataset:
    """Read the names (not the pixels) of a folder dataset.

    Raises:
        InputError: no such folder, no pictures, fewer classes, an empty class folder, a class name that is no line of
            text, classes that differ between the parts, or a folder that cannot be listed.
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
        name=shown(root.resolve().name),
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
        check_class_name(path)
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
