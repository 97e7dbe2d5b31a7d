"""What survives what: kills, full disks and damaged files, as a table.

    python -m benchmarks.faults                       all parts; about an hour on two cores
    python -m benchmarks.faults --parts mutations --mutations 200

kills        draw, run and export are killed (kill -9, the whole group) at moments drawn by the seed. The same command
             must then end right, with the same bytes of predictions.csv, and no process may be left.
disks        The same run with runs and cache on a small tmpfs that fills up, at sizes up to what it needs; then the
             disk is made larger and the same command must end right. Needs Linux and root.
mutations    So many damaged files for each reader; see `mutations.py`.

The table goes into benchmarks/RESULTS-faults.md. The exit status is 1 where a traceback, a hang, a process that was
left, or something wrong that was taken for right was found.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.mutations import outcomes
from benchmarks.readers import READERS

CHECKOUT = Path(__file__).parents[1]
RESULTS = CHECKOUT / "benchmarks" / "RESULTS-faults.md"
MARK = "FAULTS_MARK"  # in the environment of what we start: how its children are found
HANG_SECONDS = 300
LEFT_SECONDS = 15  # which a child may take to notice that its parent is gone
FAULTS = ("TRACEBACK", "hang", "died", "WRONG", "left")


def main() -> int:
    given = arguments()
    bad = False
    with tempfile.TemporaryDirectory() as place:
        for part in given.parts:
            rows = []
            for row in PARTS[part](given, Path(place, part)):
                print(" | ".join(map(str, row)), flush=True)
                rows.append(row)
                bad |= any(word in str(cell) for cell in row[1:] for word in FAULTS)
            write(part, table(rows), given.seed)
    return 1 if bad else 0


def write(part: str, rows: str, seed: int) -> None:
    """Put the table of one part in the place of its last one."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# What survives what\n"
    head, *sections = text.split("\n## ")
    kept = [section for section in sections if not section.lower().startswith(part)]
    command = f"`python -m benchmarks.faults --parts {part} --seed {seed}`, on {platform.system()}."
    sections = sorted([*kept, f"{part.capitalize()}\n\n{command}\n\n{rows}\n"])
    RESULTS.write_text("\n## ".join([head, *sections]), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kills, full disks, damaged files: what survives what.")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--moments", type=int, default=20, help="kills of each command, and sizes of the disk (20)")
    parser.add_argument("--mutations", type=int, default=2000, help="damaged files for each reader (2000)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def table(rows: list[tuple]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def mutations(given: argparse.Namespace, place: Path) -> Iterator[tuple]:
    yield "reader", "damaged files", "outcomes"
    for name in READERS:
        found = outcomes(name, given.mutations, given.seed, place)
        shutil.rmtree(place, ignore_errors=True)
        yield name, given.mutations, in_words(found)


def in_words(found: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in found.most_common())


def commands(place: Path) -> dict[str, list[str]]:
    """Each with everything that it writes below `place`."""
    run = ["finetune", "run", "--dataset_path", place / "pictures", "--epochs", 3, "--name", "run", "--exist_ok"]
    return {
        "draw": ["datasets", "draw", place / "pictures", "--per_class", 40],
        "run": [*run, "--runs_dir", place / "runs", "--cache_dir", place / "cache", "--set", "data.views=false"],
        "export": ["export", place / "runs" / "run", "--file_format", "MINDIR", "ONNX"],
    }


@contextlib.contextmanager
def started(command: list) -> Iterator[subprocess.Popen]:
    """In a group of its own; afterwards nothing of it may be left, which `left` tells by the mark."""
    mark = uuid.uuid4().hex
    words = [sys.executable, "-m", *map(str, command)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, cwd=CHECKOUT, env={**os.environ, MARK: mark}, start_new_session=True, **pipes)
    process.mark = mark
    yield process


def left(mark: str) -> int:
    """Processes with the mark that are still there after LEFT_SECONDS."""
    until = time.monotonic() + LEFT_SECONDS
    while (count := sum(has(path, mark) for path in Path("/proc").glob("[0-9]*/environ"))) and time.monotonic() < until:
        time.sleep(0.2)
    return count


def has(environ: Path, mark: str) -> bool:
    try:
        return mark.encode() in environ.read_bytes()
    except OSError:  # it has ended, or is not ours
        return False


def finish(command: list) -> str:
    """Run it to its end; what is wrong with that, or nothing."""
    with started(command) as process:
        try:
            _, said = process.communicate(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "hang"
    text = said.decode(errors="replace")
    if "Traceback" in text:
        return f"TRACEBACK {text.strip().splitlines()[-1][:80]}"
    return "" if process.returncode == 0 else f"refused in words: {text.strip().splitlines()[-1][:60]}"


def bytes_of(place: Path, command: str) -> str:
    """What must come out the same: of the pictures, or of the answers."""
    files = sorted((place / "pictures").rglob("*.jpg")) if command == "draw" else [place / "runs/run/predictions.csv"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def kills(given: argparse.Namespace, place: Path) -> Iterator[tuple]:
    rng = np.random.default_rng(given.seed)
    yield "command", "killed at (seconds)", "outcomes of the same command again"
    for name in ("draw", "run", "export"):
        base = place / name / "base"
        base.mkdir(parents=True)
        for earlier, command in commands(base).items():
            began = time.monotonic()
            if wrong := finish(command):
                raise SystemExit(f"{earlier}: {wrong}")
            seconds = time.monotonic() - began
            if earlier == name:
                break
        wanted, found = bytes_of(base, name), Counter()
        moments = np.sort(rng.uniform(0, seconds, given.moments))
        for number, moment in enumerate(moments):
            here = place / name / str(number)
            if name == "draw":
                here.mkdir()
            else:
                shutil.copytree(base, here)
                shutil.rmtree(here / "runs" / "run" / "export" if name == "export" else here / "runs")
                if name == "run":
                    shutil.rmtree(here / "cache")
            command = commands(here)[name]
            with started(command) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moment)
                with contextlib.suppress(ProcessLookupError):  # it was faster than at first
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            if count := left(process.mark):
                found[f"{count} processes left"] += 1
            wrong = finish(command)
            if not wrong and name != "draw":
                wrong = finish(["export", "verify", here / "runs" / "run"])
            right = "ended right" if bytes_of(here, name) == wanted else "WRONG TAKEN FOR RIGHT"
            found[wrong or right] += 1
            shutil.rmtree(here)
        yield name, f"{moments[0]:.1f} to {moments[-1]:.1f}", in_words(found)


def disks(given: argparse.Namespace, place: Path) -> Iterator[tuple]:
    yield "command", "disk", "on the full disk", "the same command on a larger one"
    if sys.platform != "linux" or os.geteuid() != 0:
        yield "run", "not tried", "needs Linux and root", ""
        return
    place.mkdir()
    base = place / "base"
    base.mkdir()
    for name in ("draw", "run"):
        finish(commands(base)[name])
    wanted = bytes_of(base, "run")
    needed = sum(path.stat().st_size for path in base.rglob("*") if path.is_file() and "pictures" not in path.parts)
    first, second = Counter(), Counter()
    for number in range(given.moments):
        here = place / str(number)
        here.mkdir()
        size = max(4096, round(needed * (number + 1) / given.moments))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", here], check=True)
        try:
            command = commands(here)["run"]
            command[3] = base / "pictures"
            first[(finish(command) or "ended right").partition(":")[0]] += 1
            subprocess.run(["mount", "-o", f"remount,size={4 * needed}", here], check=True)
            wrong = finish(command) or finish(["export", "verify", here / "runs" / "run"])
            second[wrong or ("ended right" if bytes_of(here, "run") == wanted else "WRONG TAKEN FOR RIGHT")] += 1
        finally:
            subprocess.run(["umount", "-l", here], check=True)
    sizes = f"{needed / given.moments / 1e6:.1f} to {needed / 1e6:.1f} MB"
    yield "run", sizes, in_words(first), in_words(second)


PARTS = {"kills": kills, "disks": disks, "mutations": mutations}

if __name__ == "__main__":
    sys.exit(main())
