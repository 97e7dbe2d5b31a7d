"""Names from outside: which can be a class, and how any of them is shown in one line.

A class name goes into files that other programs read (labels.txt with a name a line, manifest.json, ONNX, the page), so
it must be text in one line. A file may be called whatever its disk allows.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from datasets.base import InputError

UNFIT = ("Cc", "Cs", "Zl", "Zp")  # Unicode: control characters, bytes that are no UTF-8, ends of lines and paragraphs


def shown(name: str) -> str:
    r"""In one line that can be printed and written: what is unfit comes out as an escape, \r or \udcd5."""
    return "".join(c.encode("unicode_escape").decode() if unfit(c) else c for c in name)


def unfit(character: str) -> bool:
    return unicodedata.category(character) in UNFIT


def check_class_name(folder: Path) -> None:
    """Raises InputError where the folder's name cannot be the name of a class."""
    found = [c for c in folder.name if unfit(c)]
    if found:
        foreign = any(unicodedata.category(c) == "Cs" for c in found)
        why = (
            "bytes that are no UTF-8, as from a zip of another system" if foreign else "a line end or control character"
        )
        raise InputError(
            f"{shown(str(folder))}: this name holds {why} ({shown(found[0])}), and a class cannot be called so. "
            "Rename the folder; the files in it may have any name."
        )
