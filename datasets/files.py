"""Files that appear whole or not at all, and are read with a sentence.

Every small file of a run, a bundle or the cache is written beside its place, put on disk, and renamed: after a kill or
on a full disk there is the old one, or none, never half of one.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from datasets.base import InputError


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, put it on disk, and rename it to `path`."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")  # as short as can be: the name may have the longest length
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:  # how NumPy says that not all bytes could be written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8, with the same line ends on every system. Bytes of a file name that are no UTF-8 become escapes (\\udc..),
    which JSON reads back."""
    replace_file(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def write_json(path: Path, facts: dict) -> None:
    write_text(path, json.dumps(facts, ensure_ascii=False, indent=1))


def write_csv(path: Path, rows: Iterable[Mapping]) -> None:
    """At least one row; the keys of the first are the head."""
    rows = list(rows)
    lines = _Lines()
    writer = csv.DictWriter(lines, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "".join(lines))


class _Lines(list):
    """What `csv` writes, kept in memory."""

    def write(self, line: str) -> None:
        self.append(line)


def read_json(path: Path, again: str) -> dict:
    """A JSON object. `again`: what makes the file anew.

    Raises:
        InputError: damaged, or something else than an object.
        OSError: not there, or a fault of the machine.
    """
    try:
        facts = json.loads(path.read_bytes().decode("utf-8"))
        if not isinstance(facts, dict):
            raise ValueError(f"a {type(facts).__name__} where an object was written")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}). {again}") from error
    return facts
