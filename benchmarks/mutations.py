"""Damaged files for each reader of `readers.py`: what does it make of them?

Readers run in a process of their own, because a parser in C can take its process with it, or never come back.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.readers import READERS

HANG_SECONDS = 60
PIECES = (*(bytes([letter]) for letter in b'"{}[]:,\n\xff\0'), b"null", b"-1", b"1e999", b"NaN", b"9" * 400, b"- ")


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One of the ways in which files are damaged, never the same bytes."""
    size = len(content)
    at, other = sorted(rng.integers(0, size + 1, 2))
    found = [
        lambda: content[:at],  # a copy that ended early
        lambda: content[:at] + bytes([content[at % size] ^ 1 << rng.integers(8)]) + content[at + 1 :],  # a bit
        lambda: content[:at] + rng.bytes(1) + content[at + 1 :],
        lambda: content[:at] + bytes(other - at) + content[other:],  # a hole of a full disk
        lambda: content[:at] + content[other:],
        lambda: content[:at] + content[at:other] * 2 + content[other:],
        lambda: content[:at] + PIECES[rng.integers(len(PIECES))] + content[at:],
        lambda: content[:at] + PIECES[rng.integers(len(PIECES))] + content[other:],
    ][rng.integers(8)]()
    return found if found != content else content + b"\0"


def outcomes(name: str, count: int, seed: int, place: Path) -> Counter[str]:
    """What became of `count` damaged files of the reader `name`; a traceback is an outcome with its error."""
    found, first = Counter(), 0
    context = multiprocessing.get_context("spawn")
    while first < count:
        here, there = context.Pipe()
        folder = place / f"{name}_{first}"
        folder.mkdir(parents=True)
        process = context.Process(target=work, args=(there, name, range(first, count), seed, folder), daemon=True)
        process.start()
        there.close()
        while first < count:
            try:
                if not here.poll(HANG_SECONDS):
                    found[f"hang ({first})"] += 1
                    break
                found[here.recv()] += 1
            except EOFError:
                found[f"died ({first})"] += 1
                break
            first += 1
        else:
            process.join()
            break
        first += 1
        process.kill()
    return found


def work(pipe, name: str, numbers: range, seed: int, folder: Path) -> None:
    from datasets.base import InputError
    from datasets.decoding.formats import DamagedPicture

    logging.disable(logging.CRITICAL)
    reader = READERS[name]
    target = reader.prepare(folder)
    content = target.read_bytes()
    good = reader.read(folder)
    for number in numbers:
        if target.parent.is_dir():
            target.unlink(missing_ok=True)
        target.write_bytes(damaged(content, np.random.default_rng([seed, number])))
        try:
            same = reader.read(folder) == good
            outcome = "as before" if same else "WRONG TAKEN FOR RIGHT" if reader.checked else "another value"
        except (InputError, DamagedPicture):
            outcome = "refused in words"
        except Exception as error:
            outcome = f"TRACEBACK {type(error).__name__}: {str(error)[:80]} ({number})"
        pipe.send(outcome)
