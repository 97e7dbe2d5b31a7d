"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Count `total` things. Used as `with Progress("features", 1600, "pictures") as bar: bar.update(n)`."""

    def __init__(self, what: str, total: int, unit: str):
        self.what, self.total, self.unit = what, total, unit
        self.done, self.started = 0, time.monotonic()
        self.last_line = self.started
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if self.terminal:
            self.bar = tqdm(total=self.total, desc=self.what, unit=f" {self.unit}", file=sys.stderr)
        return self

    def __exit__(self, *_) -> None:
        if self.terminal:
            self.bar.close()

    def update(self, count: int) -> None:
        self.done += count
        if self.terminal:
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            rate = self.done / (now - self.started)
            print(f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.0f} a second", file=sys.stderr)
