"""`--on ray` under kill -9: who is killed, when, and what comes of it.

    python -m benchmarks.growth.on_ray [--moments 5]    prints a Markdown table; Linux, with requirements-ray.txt

A cluster of two "machines" of one core each runs on this one. `python -m finetune features --on ray` computes the drawn
pictures with an empty cache. Once there are workers, and again when this and that share of the rows is in the store, is
killed:

a worker     the process of one actor
all workers  at once
a machine    the raylet of the second one; its workers end with it
the driver   the command itself; then the same command is given again

The rows must have the bytes of a run without Ray, every array of the store must be whole, and no worker may be left.
The exit status is 1 where that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults import LEFT_SECONDS, MARK, finish, has, in_words, started, table
from datasets.drawn.sample import KINDS as KINDS_OF_PICTURES

KINDS = ("a worker", "all workers", "a machine", "the driver")
WORKER, RAYLET = "ray::Worker", "raylet/raylet"  # in their command lines
HANG_SECONDS = 600
SHARES = 0, 0.8  # of the rows, at the first and the last moment


class Cluster:
    """Two machines of one core, as Ray sees them. Its processes are known by a mark in their environment."""

    def __init__(self, place: Path):
        self.place, self.mark = place, uuid.uuid4().hex
        with socket.socket() as one:
            one.bind(("", 0))
            self.port = one.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.start("--head", f"--port={self.port}", f"--temp-dir={place}", "--include-dashboard=false")
        self.head = self.processes(RAYLET)
        self.join()

    def start(self, *words: str) -> None:
        command = [Path(sys.executable).with_name("ray"), "start", "--num-cpus=1", "--disable-usage-stats", *words]
        # Until then it finds the token that Ray made for the head by itself.
        given = {**os.environ, MARK: self.mark, "RAY_AUTH_MODE": "token"}
        given.pop("RAY_ADDRESS", None)
        subprocess.run(command, env=given, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def join(self) -> None:
        """The second machine, where it is not there."""
        if not self.second():
            self.start(f"--address={self.address}")

    def second(self) -> list[int]:
        return [process for process in self.processes(RAYLET) if process not in self.head]

    def processes(self, name: str = "") -> list[int]:
        """Those with `name` in their command line."""
        marked = [path.parent for path in Path("/proc").glob("[0-9]*/environ") if has(path, self.mark)]
        found = []
        for folder in marked:
            with contextlib.suppress(OSError):
                if name.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def kill(self, kind: str) -> int:
        """How many processes it were."""
        found = self.second() if kind == "a machine" else self.processes(WORKER)
        return kill(found[:1] if kind == "a worker" else found)


def kill(processes: list[int]) -> int:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(processes)


def main() -> int:
    parser = argparse.ArgumentParser(description="`--on ray` under kill -9.")
    parser.add_argument("--moments", type=int, default=5, help="of each kind (5)")
    parser.add_argument("--per_class", type=int, default=500, help="drawn pictures (500)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder) / "ray")
        try:
            rows = list(kills(given, Path(folder), cluster))
        finally:
            kill(cluster.processes())
    print(table(rows))
    return any(set(row[3:]) != {f"{given.moments} ended right"} for row in rows[1:])


def kills(given: argparse.Namespace, place: Path, cluster: Cluster) -> Iterator[tuple]:
    pictures = place / "pictures"
    command = ["finetune", "features", "--dataset_path", pictures, "--cache_dir", place / "cache"]
    ended(finish(["datasets", "draw", pictures, "--per_class", given.per_class]))
    ended(finish(command))
    wanted = rows_of(place)
    os.environ |= {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "token"}
    command += ["--on", "ray", "--threads", "1"]
    ended(finish(command))
    ended("" if rows_of(place) == wanted else "other rows")

    rows = given.per_class * len(KINDS_OF_PICTURES)
    yield "killed", "with rows in the store", "of so many", "outcome"
    for kind in KINDS:
        counts, found = [], Counter()
        for share in np.linspace(*SHARES, given.moments):
            cluster.join()
            with started(command) as process:
                while process.poll() is None and not (cluster.processes(WORKER) and stored(place) >= share * rows):
                    time.sleep(0.02)
                counts.append(stored(place))
                if process.poll() is not None:
                    found["was faster"] += 1
                elif kind == "the driver":
                    os.killpg(process.pid, signal.SIGKILL)
                elif not cluster.kill(kind):
                    found["nobody there"] += 1
                _, said = process.communicate(timeout=HANG_SECONDS)
            wrong = "" if process.returncode == 0 else said.decode(errors="replace").strip()[-200:] or "no word"
            if kind == "the driver":
                wrong = finish(command)
            found[wrong or outcome(place, wanted, cluster)] += 1
            shutil.rmtree(place / "cache", ignore_errors=True)
            print(f"{kind}, {counts[-1]} rows: {in_words(found)}", file=sys.stderr, flush=True)
        yield kind, ", ".join(map(str, counts)), rows, in_words(found)


def stored(place: Path) -> int:
    """Rows of finished chunks."""
    sizes = []
    for file in (place / "cache").rglob("*.keys.npy"):
        with contextlib.suppress(FileNotFoundError):  # merged meanwhile
            sizes.append((file.stat().st_size - 128) // 32)
    return sum(sizes)


def ended(wrong: str) -> None:
    if wrong:
        raise SystemExit(f"before anything was killed: {wrong}")


def outcome(place: Path, wanted: str, cluster: Cluster) -> str:
    for file in (place / "cache").rglob("*.npy"):
        np.load(file)
    until = time.monotonic() + LEFT_SECONDS
    while (count := len(cluster.processes(WORKER))) and time.monotonic() < until:
        time.sleep(0.2)
    if count:
        return f"{count} workers left"
    return "ended right" if rows_of(place) == wanted else "WRONG TAKEN FOR RIGHT"


def rows_of(place: Path) -> str:
    """What the command has written, which is taken away for the next."""
    files = [place / "pictures" / "features" / f"{part}_feature.npy" for part in ("train", "eval")]
    found = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    shutil.rmtree(files[0].parent)
    shutil.rmtree(place / "cache", ignore_errors=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
