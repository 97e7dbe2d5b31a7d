"""Fashion-MNIST: 60,000 + 10,000 pictures of clothing, 28x28, light on black (Xiao, Rasul, Vollgraf, 2017).

The same files as MNIST's under the same names; in a folder of your own give it as `fashion_mnist`.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import Dataset, RemoteFile, Source
from datasets.sources.mnist import PARTS, find, load_idx

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SOURCE = Source(
    name="fashion_mnist",
    about="clothing, 60,000 + 10,000, 28x28",
    credit="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv:1708.07747",
    files=tuple(
        RemoteFile(f"{name}-ubyte.gz", f"{MIRROR}{name}-ubyte.gz", sha256, size)
        for name, sha256, size in (
            ("train-images-idx3", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
            ("train-labels-idx1", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
            ("t10k-images-idx3", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
            ("t10k-labels-idx1", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148),
        )
    ),
    licence="MIT",
)


def holds(folder: Path) -> bool:
    return find(folder, "t10k-images-idx3-ubyte") is not None


def load(folder: Path) -> Dataset:
    """pixels uint8 (70000, 28, 28), the training rows first. Raises InputError as `mnist.load`."""
    return load_idx(folder, SOURCE.name, CLASSES, PARTS)
