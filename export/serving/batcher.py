"""Workers that compute what is waiting together, so that a network is asked for batches under load.

A lone picture is computed at once; while all workers compute, the next batch gathers. Nothing waits for
a batch to fill up. A worker also decodes what it computes: between two threads a picture would wait its turn twice.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from export.predictors import Seen
from export.serving.uploads import Prepared


class Full(Exception):
    """As many pictures are waiting as may wait."""


class Batcher:
    """`prepare` decodes a file; `compute` takes uint8 (B, H, W, 3), B up to `largest`. Both are called by the worker
    threads only."""

    def __init__(
        self,
        prepare: Callable[[bytes], Prepared],
        compute: Callable[[np.ndarray], Seen],
        largest: int,
        waiting: int,
        workers: int = 1,
    ):
        self._prepare, self._compute, self._largest = prepare, compute, largest
        self._jobs: queue.Queue[tuple[bytes, Future] | None] = queue.Queue(waiting)
        self._closed = False
        self._workers = [threading.Thread(target=self._work, name=f"worker_{i}") for i in range(workers)]
        for worker in self._workers:
            worker.start()

    def submit(self, content: bytes) -> Future[Any]:
        """A file -> a future of (`Prepared`, what is `Seen` of it) or of what `prepare` raised.

        Raises:
            Full: or closed; ask again later.
        """
        if self._closed:
            raise Full
        future: Future = Future()
        try:
            self._jobs.put_nowait((content, future))
        except queue.Full:
            raise Full from None
        return future

    def close(self) -> None:
        """Compute what was accepted, then stop. Idempotent."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        while (jobs := self._take())[-1] is not None:
            self._answer(jobs)
        self._jobs.put(None)  # for the next worker
        if jobs[:-1]:
            self._answer(jobs[:-1])

    def _take(self) -> list:
        """At least one job, and a fair share of those that wait; a None at the end says that no more will come."""
        jobs = [self._jobs.get()]
        share = min(self._largest, 1 + self._jobs.qsize() // len(self._workers))
        while len(jobs) < share and jobs[-1] is not None:
            try:
                jobs.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return jobs

    def _answer(self, jobs: list) -> None:
        prepared, futures = [], []
        for content, future in jobs:
            if not future.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            try:
                prepared.append(self._prepare(content))
                futures.append(future)
            except BaseException as error:  # whoever waits must hear of it, and the worker must live on
                future.set_exception(error)
        if not futures:
            return
        try:
            seen = self._compute(np.stack([one.image for one in prepared]))
        except BaseException as error:
            for future in futures:
                future.set_exception(error)
            return
        for i, future in enumerate(futures):
            future.set_result((prepared[i], seen[i]))
