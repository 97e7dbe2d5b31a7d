"""Download published files: from the first mirror that has them, resumable, checked, and whole or not there.

    python -m datasets fetch mnist

A file grows as <name>.part beside its place; <name>.part.json says of which address and version the part is. A broken
download goes on from there with an HTTP Range request, and only a file of the right sha256 gets its name. Where no
sha256 is published, that of the first download is kept as <name>.sha256 and holds from then on. Proxies are those of
the environment (HTTPS_PROXY, NO_PROXY and their like).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from datasets.base import InputError, MachineFault, RemoteFile, Source
from datasets.files import one_at_a_time, write_text
from datasets.progress import Progress

log = logging.getLogger("datasets")

PIECE_BYTES = 1 << 16
TIMEOUT_SECONDS = 30  # of standstill
PARTIAL, RANGE_NOT_SATISFIABLE = 206, 416  # HTTP status
SHA256_DIGITS = 64
LOCK = ".fetch.lock"


class OtherFile(Exception):
    """What a server sends is not the published file."""


def fetch(source: Source, folder: Path) -> list[Path]:
    """Download what is missing of a source into `folder`; the paths of all its files.

    Raises:
        InputError: there is nothing to download.
        MachineFault: no server can be reached, all send another file, or the disk is too small.
    """
    if not source.files:
        raise InputError(f"{source.name}: comes with its package, there is nothing to fetch.")
    return [fetch_file(file, folder) for file in source.files]


def fetch_file(file: RemoteFile, folder: Path) -> Path:
    """One file, whole and checked. One that is there with the right sha256 is left alone.

    Raises:
        MachineFault: as `fetch`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / file.name, Part(folder / f"{file.name}.part")
    with one_at_a_time(folder / LOCK):
        wanted = known_sha256(file, path)
        if path.is_file() and (not wanted or sha256_of(path).startswith(wanted)):
            return path
        failures = []
        for url in (file.url, *file.mirrors):
            try:
                download(url, part, file.bytes, resumable=len(wanted) == SHA256_DIGITS)
                found = sha256_of(part.path)
                if not found.startswith(wanted):
                    raise OtherFile(f"sent a file with sha256 {found}, expected {wanted}")
            except OtherFile as error:
                part.remove()
                failures.append(f"{url}: {error}")
            except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
                failures.append(f"{url}: {getattr(error, 'reason', None) or error}")
            else:
                break
        else:
            raise MachineFault(not_fetched(file, path, part, failures))
        if len(wanted) < SHA256_DIGITS:
            log.warning("%s: no sha256 is published; that of this download holds from now on: %s", file.name, found)
            write_text(record_of(path), f"{found}  {file.name}\n")
        part.path.replace(path)
        part.remove()
        return path


def record_of(path: Path) -> Path:
    """Where the sha256 of a first download is kept, as `sha256sum -c` reads it."""
    return path.with_name(path.name + ".sha256")


def known_sha256(file: RemoteFile, path: Path) -> str:
    """Published, or kept from the first download, or the beginning that is known; empty where there is none."""
    if len(file.sha256) < SHA256_DIGITS and record_of(path).is_file():
        kept = record_of(path).read_text(encoding="utf-8").partition(" ")[0]
        if kept.startswith(file.sha256):
            return kept
    return file.sha256


def not_fetched(file: RemoteFile, path: Path, part: Part, failures: list[str]) -> str:
    kept = f"{part.bytes:,} bytes are kept, and the same command goes on from there. " if part.bytes else ""
    lines = "\n  ".join(failures)
    return (
        f"{file.name} could not be fetched:\n  {lines}\n{kept}Try again later, set HTTPS_PROXY where there is a proxy, "
        f"or get the file from one of these addresses in another way and put it there: {path}"
    )


@dataclass(frozen=True)
class Part:
    """The beginning of a file, and of which one."""

    path: Path

    @property
    def _facts(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, url: str) -> str | None:
        """What the server called the version that this is a part of; None where it is of another address."""
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
            return facts["version"] if facts["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, url: str, version: str) -> None:
        write_text(self._facts, json.dumps({"url": url, "version": version}))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)


def download(url: str, part: Part, wanted_bytes: int, resumable: bool) -> None:
    """Append to the part what is still missing; begin anew where that is not sure to fit.

    It fits where the server says that its version is the same, or where the sha256 of the whole decides in the end.
    """
    version = part.version(url)
    if (wanted_bytes and part.bytes > wanted_bytes) or not (resumable or version):
        part.remove()
    if wanted_bytes and part.bytes == wanted_bytes:
        return
    headers = {"Range": f"bytes={part.bytes}-"} if part.bytes else {}
    if headers and version:
        headers["If-Range"] = version
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE or not part.bytes:
            raise
        part.remove()  # it is longer than the file
        return download(url, part, wanted_bytes, resumable)
    with answer:
        resumed = answer.status == PARTIAL
        if not resumed:
            part.remove()
        rest = int(answer.headers.get("Content-Length") or 0)
        whole = part.bytes + rest if rest else wanted_bytes
        if wanted_bytes and rest and whole != wanted_bytes:
            raise OtherFile(f"sends {whole:,} bytes, {wanted_bytes:,} expected")
        check_space(part.path, rest)
        part.begin(url, answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        with part.path.open("ab") as target, Progress(part.path.stem, whole, "bytes") as bar:
            bar.update(part.bytes)
            while piece := answer.read(PIECE_BYTES):
                target.write(piece)
                bar.update(len(piece))
                if wanted_bytes and target.tell() > wanted_bytes:
                    raise OtherFile(f"sends more than the {wanted_bytes:,} bytes expected")
    if part.bytes < whole:  # a read of pieces does not notice
        raise ConnectionError("the connection ended early")


def check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise MachineFault(
            f"{path.parent}: {needed:,} bytes are needed for {path.stem}, and {free:,} are free. Make room, or choose "
            "another disk with --cache_dir."
        )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
