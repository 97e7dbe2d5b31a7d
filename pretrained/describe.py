"""What `python -m pretrained` says of weight files, and the conversion to a CKPT; without MindSpore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from datasets.base import InputError
from datasets.files import replace_file, write_text
from pretrained.catalog import CATALOG, EMBEDDED, EMBEDDED_FILE
from pretrained.facts import FACTS, find_facts, shown
from pretrained.files import FOLDER, SUFFIXES, facts_file, file_sha256, find_weights, name_of_file
from pretrained.formats import ckpt
from pretrained.formats.read import read_weights
from pretrained.recognise import recognise

CKPT = SUFFIXES[0]


def inspect(given: str) -> Iterator[str]:
    """Lines on a weight file: scheme, width, parameters, each fact with its origin, what is left out, sha256."""
    path = find_weights(given)
    file = read_weights(path)
    found = recognise(path, file.arrays)
    facts = find_facts(path, file, found)
    yield f"file          {path}"
    yield f"format        {file.file_format}, {len(file.arrays)} arrays, {path.stat().st_size:,} bytes"
    yield f"sha256        {file_sha256(path)}"
    yield f"names         {found.scheme.name}" + (f", behind {found.prefix!r}" if found.prefix else "")
    yield f"parameters    {sum(array.size for array in found.arrays.values()):,} of the backbone"
    for what, count in found.left_out.items():
        yield f"left out      {count} of {what}"
    for name in FACTS:
        yield f"{name:13} {shown(facts.record, name)}  ({facts.origins[name]})"
    yield f"BatchNorm     {'folded into the convolutions' if found.folded else 'as trained'}"
    yield f"source        {facts.record.source}"
    yield f"licence       {facts.record.licence}"


def convert(given: str, target: Path) -> Path:
    """Write the backbone as a CKPT with the zoo's names, and its record as <target>.yaml.

    Raises:
        InputError: the file cannot be used, or the target is no new .ckpt file.
    """
    if target.suffix != CKPT or target.exists():
        raise InputError(f"{target}: give the path of a new {CKPT} file.")
    path = find_weights(given)
    file = read_weights(path)
    found = recognise(path, file.arrays)
    record = find_facts(path, file, found).record
    missing = set(found.scheme.table().values()) - set(found.arrays)
    unexpected = set(found.arrays) - set(found.scheme.table().values())
    if missing or unexpected:
        raise InputError(
            f"{path}: not a whole MobileNetV2: {len(missing)} parameters are missing, {len(unexpected)} are of no "
            f"place in it, as {sorted(missing | unexpected)[0]}."
        )
    replace_file(target, lambda out: ckpt.write(out, found.arrays))
    stated = replace(record, name=target.stem, url=None, mirrors=(), bytes=0, sha256=file_sha256(target))
    write_text(facts_file(target), yaml.safe_dump(stated.to_dict(), sort_keys=False, allow_unicode=True))
    return target


def table() -> Iterator[tuple[str, ...]]:
    """The catalog as rows: name, network, published accuracy, licence, and whether it is here."""
    yield "name", "width", "pixels", "ImageNet top-1", "licence", "here"
    for record in CATALOG:
        top_1 = f"{record.top_1:.1f} %" if record.top_1 else "-"
        licence = record.licence.partition(";")[0]
        yield record.name, str(record.width), str(record.image.size[0]), top_1, licence, where(record)


def where(record) -> str:
    if record is EMBEDDED:
        return EMBEDDED_FILE.name
    if not record.url:
        return "not published"
    path = FOLDER / record.name / name_of_file(record)
    return str(path) if path.is_file() else "-"
