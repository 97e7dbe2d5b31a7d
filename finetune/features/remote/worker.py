"""What a Ray actor does: one engine, which computes ranges of pictures into the feature store on shared storage.

It begins with what the driver sends: the arrays of the backbone and the store. Pictures and store are read and written
here, under the same paths as there. Rows are keyed by content: one that is computed twice does no harm.
"""

from __future__ import annotations

import logging
import math
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.base import InputError, MachineFault
from finetune.config import Config
from finetune.features.remote.ranges import Range
from finetune.features.views import Views
from finetune.storage.store import FeatureStore

if TYPE_CHECKING:
    from pretrained.record import WeightsRecord


@dataclass(frozen=True)
class Job:
    """What is the same for all workers of a command."""

    make_engine: Callable  # (backbone, device, config, cut) -> an engine of that machine
    config: Config  # without machines: a worker computes itself
    platform: str
    cores: int
    cut: int | None
    record: WeightsRecord
    digest: str
    folded: bool
    views: Views
    store: FeatureStore
    mark: Path  # a file in the store: whether both see the same


@dataclass
class Answer:
    """What came of a range."""

    computed: int
    keys: dict[int, bytes]  # row -> sha256 of a file that was changed since it was looked up
    damaged: dict  # as `finetune.features.compute`
    said: list[tuple[int, str]] = field(default_factory=list)  # level, line of the log


class Worker:
    """Lives in a process of its own. What its methods raise is an InputError or an OSError that names the machine."""

    def begin(self, job: Job, arrays: dict[str, np.ndarray]) -> None:
        """Load the backbone; the engine compiles it at the first pictures."""
        if not job.mark.exists():
            raise MachineFault(
                f"on {socket.gethostname()}: {job.mark.parent} is not the folder of the machine where the command was "
                "given. Pictures, cache and checkout must lie on storage that all machines see under the same paths; "
                "choose the cache with --cache_dir."
            )
        from finetune.device import init_device

        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        device = init_device(job.platform, 0, job.cores, job.config.seed)  # Ray shows each worker its own GPU only
        for number, handler in handlers.items():  # Ray ends its workers by them
            signal.signal(number, handler)
        self.lines = Lines()
        log = logging.getLogger("finetune")
        log.setLevel(logging.INFO)
        log.addHandler(self.lines)
        self.job, self.threads = job, device.threads
        self.engine = job.make_engine(backbone_of(job, arrays), device, job.config, job.cut)
        self.store = job.store
        self.store.many = math.inf  # the driver merges: its lock need not hold between machines

    def compute(self, piece: Range) -> Answer:
        from finetune.features.compute import compute

        keys, damaged, job = dict(piece.keys), {}, self.job
        facts = keys, job.views, job.record.image, self.engine, self.store, damaged, self.threads
        try:
            computed = compute(piece.wanted, piece.paths, *facts)
        except InputError as error:
            raise type(error)(f"on {socket.gethostname()}: {error}") from error
        changed = {row: key for row, key in keys.items() if key != piece.keys[row]}
        return Answer(computed, changed, damaged, self.lines.taken())


class Lines(logging.Handler):
    """Keeps what the log says until the driver gets it."""

    def __init__(self):
        super().__init__()
        self.kept: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[int, str]]:
        kept, self.kept = self.kept, []
        return kept


def backbone_of(job: Job, arrays: dict[str, np.ndarray]):
    """The Backbone of the driver, of its arrays: its file need not be here."""
    from pretrained.weights import Backbone, freeze, load_strict, network_of

    network = network_of(job.record)
    load_strict(network, arrays, Path("backbone"), "")
    freeze(network)
    return Backbone(network, job.record, "", "", job.digest, Path("backbone"), job.folded)
