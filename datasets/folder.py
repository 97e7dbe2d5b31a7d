"""Pictures in folders, a folder a class.

Two layouts are understood; names of parts are compared without regard to case:

    <root>/train/<class>/*  with  <root>/{eval,val,valid,validation,validation_preprocess,test}/<class>/*
    <root>/<class>/*        without a published split

With both a validation and a test folder, the first chooses the best epoch and the second evaluates.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from datasets.base import Dataset, InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
TRAIN_FOLDERS = ("train", "training")
VALID_FOLDERS = ("val", "valid", "validation", "validation_preprocess")
EVAL_FOLDERS = ("eval", "test")
VIEWS_FOLDER = "features"  # where finetune puts the .npy views; never a class


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path; hidden files and folders are passed over."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))]
        found += [path for name in names if is_picture(path := Path(parent, name))]
    return sorted(found)


def load_folder(root: Path) -> Dataset:
    """Read the names (not the pixels) of a folder dataset.

    Raises:
        InputError: no such folder, no pictures, fewer than two classes, an empty class folder, or
            classes that differ between the parts.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. --dataset_path takes a folder of pictures, a folder a class.")
    part_folders = _part_folders(root)
    if part_folders:
        per_part = {part: _classes_of(folder) for part, folder in part_folders.items()}
        _check_same_classes(part_folders, per_part)
    else:
        per_part = {None: _classes_of(root)}
    classes = tuple(sorted(next(iter(per_part.values()))))
    if len(classes) < 2:
        raise InputError(_too_few_classes(root, part_folders.get("train", root), classes))

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
    )


def _part_folders(root: Path) -> dict[str, Path]:
    """{"train": ..., "valid": ..., "eval": ...} as far as they are there; {} for the flat layout."""
    by_name = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}

    def first(names):
        return next((by_name[name] for name in names if name in by_name), None)

    train, valid, evaluation = first(TRAIN_FOLDERS), first(VALID_FOLDERS), first(EVAL_FOLDERS)
    if train is None:
        return {}
    if evaluation is None:
        valid, evaluation = None, valid
    if evaluation is None:
        raise InputError(
            f"{root}: there is {train.name}/ but nothing to evaluate on. Put pictures into one of "
            f"{', '.join(EVAL_FOLDERS + VALID_FOLDERS)}, or give {train} as the dataset: "
            "a part of it is then held out."
        )
    folders = {"train": train, "valid": valid, "eval": evaluation}
    return {part: folder for part, folder in folders.items() if folder is not None}


def _classes_of(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its pictures, for each folder below `folder`."""
    by_class = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith((".", "__")):
            continue
        pictures = find_pictures(path)
        if not pictures and path.name == VIEWS_FOLDER:
            continue
        by_class[path.name] = pictures
    empty = [name for name, pictures in by_class.items() if not pictures]
    if by_class and len(empty) == len(by_class):
        raise InputError(f"{folder}: no pictures found below it. Known are {', '.join(SUFFIXES)}.")
    if empty:
        raise InputError(
            f"{folder / empty[0]}: no pictures in this class folder. "
            f"Add some ({', '.join(SUFFIXES)}), or remove the folder."
        )
    return by_class


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
    loose = sum(1 for path in folder.iterdir() if is_picture(path))
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
