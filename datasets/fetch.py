"""Download published files: resumable, checked by sha256, and whole or not there.

    python -m datasets fetch mnist

A file grows as <name>.part beside its place. A broken download goes on from there with an HTTP Range request, and only
a file of the right sha256 gets its name.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from datasets.base import InputError, RemoteFile, Source
from datasets.progress import Progress

PIECE_BYTES = 1 << 16
TIMEOUT_SECONDS = 30
PARTIAL, RANGE_NOT_SATISFIABLE = 206, 416  # HTTP status


def fetch(source: Source, folder: Path) -> list[Path]:
    """Download what is missing of a source into `folder`; the paths of all its files.

    Raises:
        InputError: there is nothing to download, the server cannot be reached, or what it sends is another file.
    """
    if not source.files:
        raise InputError(f"{source.name}: comes with its package, there is nothing to fetch.")
    folder.mkdir(parents=True, exist_ok=True)
    return [fetch_file(file, folder) for file in source.files]


def fetch_file(file: RemoteFile, folder: Path) -> Path:
    """One file, whole and checked. One that is there with the right sha256 is left alone.

    Raises:
        InputError: as `fetch`.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file() and sha256_of(path) == file.sha256:
        return path
    if part.is_file() and part.stat().st_size > file.bytes:
        part.unlink()  # not of this file
    try:
        if not part.is_file() or part.stat().st_size < file.bytes:
            download(file, part)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        kept = part.stat().st_size if part.is_file() else 0
        raise InputError(
            f"{file.url}: {getattr(error, 'reason', None) or error}. {kept:,} of {file.bytes:,} bytes are kept; the "
            f"same command goes on from there. Or put the file into {folder} yourself."
        ) from error
    found = sha256_of(part)
    if found != file.sha256:
        part.unlink()
        raise InputError(
            f"{file.url}: sent a file with sha256 {found}, expected {file.sha256}. "
            "Try again; if it stays so, the published file was changed or something on the way replaces it."
        )
    part.replace(path)
    return path


def download(file: RemoteFile, part: Path) -> None:
    """Append to `part` what is still missing; begin anew where the server does not know ranges."""
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()
        raise
    with answer, Progress(file.name, file.bytes, "bytes") as bar:
        resumed = answer.status == PARTIAL
        if resumed:
            bar.update(done)
        with part.open("ab" if resumed else "wb") as target:
            while piece := answer.read(PIECE_BYTES):
                target.write(piece)
                bar.update(len(piece))
    if part.stat().st_size < file.bytes:  # a read of pieces does not notice
        raise ConnectionError("the connection ended early")


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
