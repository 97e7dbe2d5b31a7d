"""Workers that compute what is waiting together, so that a network is asked for batches under load.

A lone picture is computed at once; while all workers compute, the next batch gathers. Nothing waits for
a batch to fill up.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from export.served import Answers


class Full(Exception):
    """As many pictures are waiting as may wait."""


class Batcher:
    """`compute` takes uint8 (B, H, W, 3), B up to `largest`; it is called by the worker threads only."""

    def __init__(self, compute: Callable[[np.ndarray], Answers], largest: int, waiting: int, workers: int = 1):
        self._compute, self._largest = compute, largest
        self._jobs: queue.Queue[tuple[np.ndarray, Future] | None] = queue.Queue(waiting)
        self._closed = False
        self._workers = [threading.Thread(target=self._work, name=f"worker_{i}") for i in range(workers)]
        for worker in self._workers:
            worker.start()

    def submit(self, image: np.ndarray) -> Future[Any]:
        """uint8 (H, W, 3) -> a future of (probabilities (C,), maps (C, H', W') or None).

        Raises:
            Full: or closed; ask again later.
        """
        if self._closed:
            raise Full
        future: Future = Future()
        try:
            self._jobs.put_nowait((image, future))
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
        """At least one job; a None at the end says that no more will come."""
        jobs = [self._jobs.get()]
        while len(jobs) < self._largest and jobs[-1] is not None:
            try:
                jobs.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return jobs

    def _answer(self, jobs: list) -> None:
        futures = [future for _, future in jobs]
        try:
            probabilities, maps = self._compute(np.stack([image for image, _ in jobs]))
            results = [(p, None if maps is None else maps[i]) for i, p in enumerate(probabilities)]
        except BaseException as error:  # whoever waits must hear of it, and the worker must live on
            for future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results):
            if future.set_running_or_notify_cancel():
                future.set_result(result)
