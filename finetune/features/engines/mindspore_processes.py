"""MindSpore on the CPU as a few processes side by side, for when no faster engine is there.

Two processes of one thread each compute about 1.5 to 2 times as many pictures as one of two threads,
whose kernels are too short to share. This module is imported by the new processes before they know how
many threads they may use, and therefore imports MindSpore in functions only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pretrained.weights import Backbone

MOST_PROCESSES = 4  # of 0.5 GB each


class MindSporeProcesses:
    """uint8 pictures (B, H, W, 3) -> pooled features float32 (B, D), or the input (B, C, H', W') of block `cut`; the
    processes start at the first call."""

    name = "mindspore"
    numeric_class = "f32"

    def __init__(self, backbone: Backbone, threads: int, cut: int | None = None):
        from finetune.features.engines.mindspore import MindSporeEngine

        self.batch_size = MindSporeEngine.batch_size
        self.backbone, self.threads, self.cut = backbone, threads, cut
        self.idle: queue.SimpleQueue[Connection] | None = None
        self.starting = threading.Lock()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with self.starting:
            if self.idle is None:
                self.idle = self._start()
        connection = self.idle.get()
        try:
            connection.send(images)
            return connection.recv()
        except (EOFError, ConnectionError) as error:
            raise OSError("a process of the engine mindspore has ended") from error
        finally:
            self.idle.put(connection)

    def _start(self) -> queue.SimpleQueue[Connection]:
        from pretrained.fold import fold

        count = min(self.threads, MOST_PROCESSES)
        spawn = multiprocessing.get_context("spawn")
        idle = queue.SimpleQueue()
        blocks = fold(self.backbone.network)[: self.cut]
        for number in range(count):
            here, there = spawn.Pipe()
            spawn.Process(target=serve, args=(there, self.threads // count, number, count), daemon=True).start()
            there.close()
            here.send((blocks, self.backbone.record, self.cut is None))
            idle.put(here)
        return idle


def serve(connection: Connection, threads: int, number: int, count: int) -> None:
    """The life of one process: get the folded weights, then pictures in, features out, until nobody is there."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::count][:threads])

    from finetune.device import init_device

    init_device("CPU", threads=threads)

    import mindspore as ms

    from datasets.image import normalise
    from finetune.features.engines.mindspore import MindSporeEngine, fill_up
    from pretrained.fold import FoldedMobileNetV2

    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        blocks, record, pooled = connection.recv()
        network = FoldedMobileNetV2(blocks, record.pad_mode, pooled, record.mirror_mean, record.beside_last)
        while True:
            images = connection.recv()
            batch = ms.Tensor(normalise(fill_up(images, MindSporeEngine.batch_size), record.image))
            connection.send(network(batch).asnumpy()[: len(images)])
