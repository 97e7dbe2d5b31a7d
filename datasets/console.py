"""Printing that never costs the work: a console without the letters, or nobody who reads.

What a console cannot show comes out as a question mark; a pipe whose reader is gone, or an output that was closed,
swallows the rest. Files are always UTF-8 and whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def open_console() -> None:
    """Call it first in a command's main function."""
    _fill_closed()
    sys.stdout, sys.stderr = Console(sys.stdout), Console(sys.stderr)


def _fill_closed() -> None:
    """What was closed for this process (`>&-`) goes nowhere, and is not taken by the first file that is opened."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123


class Console:
    """A text stream that is not stopped by who reads it."""

    def __init__(self, stream):
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        self._do(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._do(self.stream.flush)

    def _do(self, action) -> None:
        try:
            action()
        except BrokenPipeError:
            self._to_nowhere()
        except OSError as error:
            if os.name != "nt":  # where a closed pipe is an invalid argument
                raise error
            self._to_nowhere()

    def _to_nowhere(self) -> None:
        """Also what is still in the buffer, and what other code writes there."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns side by side; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
