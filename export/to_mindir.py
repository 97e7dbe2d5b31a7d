"""Write the trained network as MindIR: normalised float32 (B, 3, H, W) -> probabilities (B, C)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms

from finetune.networks import Probabilities
from finetune.trained import Trained


def write_mindir(trained: Trained, path: Path) -> None:
    """Export with a dynamic batch: `nn.GraphCell` runs the file with any number of pictures."""
    network = Probabilities(trained.network)
    network.set_train(False)
    inputs = ms.Tensor(shape=[None, 3, *trained.image.size], dtype=ms.float32)
    with working_in(path.parent):  # ms.export refuses names with spaces or Chinese characters
        ms.export(network, inputs, file_name=path.name, file_format="MINDIR")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)  # MindSpore writes 0400


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
