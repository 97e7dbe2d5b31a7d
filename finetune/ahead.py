"""Commands started ahead of their turn: they import what they need while this process trains.

A training keeps little more than one core busy, and importing MindSpore or matplotlib takes seconds. Such a command is
given "-" for the run folder, and reads the folder's name from standard input when it is ready.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path


class Ahead:
    """`python -m PACKAGE ... -`, which ends without a word where this process ends before it has told the name."""

    def __init__(self, *command: str, **options):
        self.command, self.options = (sys.executable, "-m", *command), options
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        # A session of its own: Ctrl-C in a terminal is for this process.
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, start_new_session=True, **self.options)

    def tell(self, folder: Path) -> None:
        with contextlib.suppress(BrokenPipeError), self.process.stdin as told:  # it has failed: `wait` says so
            told.write(os.fsencode(folder))

    def wait(self) -> bool:
        """Whether it has done its work."""
        try:
            return self.process.wait() == 0
        except BaseException:  # Ctrl-C
            self.process.terminate()
            raise


def named(run: Path) -> Path:
    """The folder that a command was given, or is told on standard input; ends where nobody is left to tell it."""
    if run != Path("-"):
        return run
    name = sys.stdin.buffer.read()
    if not name:
        sys.exit(1)  # who started it has said why
    return Path(os.fsdecode(name))
