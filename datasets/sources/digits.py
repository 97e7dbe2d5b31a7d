"""scikit-learn's digits: 1,797 handwritten digits, 8x8, from its own package: no download.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import Dataset, Source

LEVELS = 16  # a pixel counts the set pixels of a 4x4 block
SOURCE = Source(
    name="digits",
    about="handwritten digits of scikit-learn, 1,797, 8x8, no download",
    credit="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998",
    licence="CC BY 4.0",
)


def load(folder: Path) -> Dataset:
    """pixels uint8 (1797, 8, 8), 0..16 stretched to 0..255; no published split."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Dataset(
        name=SOURCE.name,
        root=folder,
        paths=None,
        labels=found.target.astype(np.int32),
        classes=tuple("0123456789"),
        parts=None,
        pixels=np.round(found.images * (255 / LEVELS)).astype(np.uint8),
        strokes=8,
    )
