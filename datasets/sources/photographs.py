"""Published folders of photographs: only their facts differ, so that they are one table.

They are unpacked into <cache_dir>/<name>/pictures and loaded like a folder of your own. None was downloaded here: sizes
and sums are those that are published with them, or by TensorFlow Datasets.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import UNPACKED, Dataset, InputError, RemoteFile, Source
from datasets.folder import load_folder
from datasets.listing import find_pictures
from datasets.sources.archives import UNFINISHED

MINDSPORE = "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/"
BEANS = "https://storage.googleapis.com/ibeans/"
PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"


def photographs(
    name: str, about: str, credit: str, files: tuple[RemoteFile, ...], licence: str = "not stated"
) -> Source:
    return Source(name, about, credit, files, licence, unpacked=True)


def archive(url: str, sha256: str = "", size: int = 0, mirrors: tuple[str, ...] = ()) -> RemoteFile:
    return RemoteFile(url.rpartition("/")[2], url, sha256, size, mirrors)


SOURCES = (
    photographs(
        "cats_vs_dogs",
        "cats and dogs, 2,000 + 1,000",
        "Microsoft Research, Asirra; filtered by Google",
        (archive("https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip", size=68_606_236),),
        "research use",
    ),
    photographs(
        "cats_vs_dogs_full",
        "cats and dogs, 25,000, of which 1,738 are damaged",
        "Microsoft Research, Asirra",
        (
            archive(
                "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
                "kagglecatsanddogs_5340.zip",
                "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
            ),
        ),
        "research use",
    ),
    photographs(
        "clothing",
        "ten kinds of clothing, 3,068 + 341 + 372",
        "A. Grigorev: clothing-dataset-small",
        (archive("https://github.com/alexeygrigorev/clothing-dataset-small/archive/refs/heads/master.zip"),),
        "CC0 1.0",
    ),
    photographs(
        "flowers",
        "five kinds of flowers, 3,670",
        "The TensorFlow team: flower_photos",
        (
            archive(
                "http://download.tensorflow.org/example_images/flower_photos.tgz",
                "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
                228_813_984,
                ("https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",),
            ),
        ),
        "CC BY 2.0",
    ),
    photographs(
        "beans",
        "leaves of beans, healthy and ill, 1,034 + 133 + 128",
        "Makerere AI Lab: iBean",
        tuple(
            archive(f"{BEANS}{part}.zip", sha256, size)
            for part, sha256, size in (
                ("train", "284fe8456ce20687f4367ae7ad94a64577e7f9fde2c2c6b1c74340ab5dc82715", 143_812_152),
                ("validation", "90b7aa1c26d91d9afff07a30bbc67a5ea34f1f1397f068d8675be09d7d0c602d", 18_504_213),
                ("test", "ca67b15d960d1e2fd9d23fd8498ce86818ead90755c630a43baf19ec4af09312", 17_708_541),
            )
        ),
        "MIT",
    ),
    photographs(
        "oxford_pets",
        "37 breeds of cats and dogs, 7,349",
        "O. Parkhi, A. Vedaldi, A. Zisserman, C. Jawahar: Cats and Dogs, 2012",
        (
            archive(
                f"{PETS}images.tar.gz",
                "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                791_918_971,
            ),
        ),
        "CC BY-SA 4.0",
    ),
    photographs(
        "canidae",
        "wolves and dogs of the MindSpore course",
        "MindSpore",
        (archive(f"{MINDSPORE}intermediate/Canidae_data.zip"),),
    ),
    photographs(
        "dogcroissants",
        "dogs and croissants of the MindSpore course",
        "MindSpore",
        (archive(f"{MINDSPORE}beginner/DogCroissants.zip"),),
    ),
)
BY_NAME = {source.name: source for source in SOURCES}


def holds(folder: Path) -> bool:
    return root_of(folder) is not None


def load(name: str, folder: Path) -> Dataset:
    """The pictures of a set that was fetched, or put, into `folder`. Raises InputError as `datasets.folder`."""
    root = root_of(folder) or folder
    return load_breeds(root) if name == "oxford_pets" else load_folder(root)


def root_of(folder: Path) -> Path | None:
    """Where the pictures begin: in what was unpacked, or in the folder itself, where somebody put them.

    None where there are none, or only a download.
    """
    if (folder / UNPACKED).is_dir():
        return descend(folder / UNPACKED)
    inner = folder.iterdir() if folder.is_dir() and folder.name in BY_NAME else ()
    return folder if any(path.is_dir() and not path.name.endswith(UNFINISHED) for path in inner) else None


def descend(folder: Path) -> Path:
    """Through folders that hold nothing but one other: archives differ in how many they put around their pictures."""
    while True:
        inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        if len(inner) != 1 or any(path.suffix.lower() in (".jpg", ".jpeg", ".png") for path in folder.iterdir()):
            return folder
        (folder,) = inner


def load_breeds(folder: Path) -> Dataset:
    """Oxford's pictures lie in one folder, and the name of a file says the breed: Abyssinian_12.jpg.

    Raises:
        InputError: no such files.
    """
    paths = find_pictures(folder)
    breeds = [path.stem.rpartition("_")[0].replace("_", " ").lower() for path in paths]
    classes = tuple(sorted(set(breeds)))
    if len(classes) < 2 or "" in classes:
        raise InputError(f"{folder}: no files like Abyssinian_1.jpg. Fetch them: python -m datasets fetch oxford_pets")
    labels = np.array([classes.index(breed) for breed in breeds], np.int32)
    return Dataset("oxford_pets", folder, tuple(paths), labels, classes, parts=None)
