"""Files that appear whole or not at all, and are read with a sentence.

Every small file of a run, a bundle or the cache is written beside its place, put on disk, and renamed: after a kill or
on a full disk there is the old one, or none, never half of one.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

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
    """With its `digest`, so that a change is noticed when it is read."""
    facts = json.loads(json.dumps(facts))  # as it will be read: keys are text, tuples are lists
    write_text(path, json.dumps({**facts, "digest": digest(facts)}, ensure_ascii=False, indent=1))


def digest(facts: dict) -> str:
    """sha256 of the facts, whatever the order and the spacing of the JSON text; its own entry does not count."""
    rest = {key: value for key, value in facts.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


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


@contextlib.contextmanager
def one_at_a_time(mark: Path) -> Iterator[None]:
    """Only one process at once is in a block with this `mark`, a file that stays; others wait, and say so.

    The lock ends with its process, however that ends.
    """
    lock = FileLock(mark, mode=0o644)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting: another process is at work in {mark.parent}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_json(path: Path, again: str, needed: Mapping[str, type] | None = None) -> dict:
    """A JSON object. `again`: what makes the file anew; `needed`: entries without which it is of no use.

    Raises:
        InputError: damaged, or changed since it was written.
        OSError: not there, or a fault of the machine.
    """
    try:
        facts = json.loads(path.read_bytes().decode("utf-8"))
        if not isinstance(facts, dict):
            raise ValueError(f"a {type(facts).__name__} where an object was written")
        for key, kind in (needed or {}).items():
            if not isinstance(facts.get(key), kind):
                raise ValueError(f"no {key}" if key not in facts else f"{key} is a {type(facts[key]).__name__}")
        if facts.get("digest") != digest(facts):
            raise ValueError("changed since it was written, or written by an earlier version")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}). {again}") from error
    return facts


def read_csv(path: Path, columns: Mapping[str, type], again: str) -> list[dict]:
    """The rows of a CSV file with these columns, each value as its type; other columns stay text.

    Raises:
        InputError: damaged, or a column is missing.
        OSError: not there, or a fault of the machine.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))
        if not rows:
            raise ValueError("no rows")
        if not rows[0].keys() >= columns.keys():
            raise ValueError(f"no column {', '.join(sorted(columns.keys() - rows[0].keys()))}")
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("a row with more or fewer cells than the head")
        return [{**row, **{name: kind(row[name]) for name, kind in columns.items()}} for row in rows]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: damaged ({error}). {again}") from error
