"""`--workers 2`: the same command in several processes, which MindSpore's `msrun` starts and brings together.

`msrun` starts a scheduler and the workers, each with `--run_distribute true`, and writes what they say into files. This
process shows what the first worker says, and when one fails its own error. It is awaited to the end: of msrun's faults
are kept away that it starts whatever `python` is found first, that its port is the same for everybody, that it leaves
workers behind when it is killed, and that it reports a worker that fails by a stack of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from datasets.base import InputError, MachineFault
from finetune.workers.share import STARTERS, WATCHED

OF_MSRUN = ("MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_TOPO_TIMEOUT", "MS_NODE_ID")
MEETING_SECONDS = 120  # until all workers are there
PATIENCE_SECONDS = 3  # for what should end by itself
LOOK_SECONDS = 0.1
OF_MINDSPORE = re.compile(r"\[\w+\] [A-Z_]+\(\d+,.*\n?")  # a line of its own log
FAILED = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")  # in msrun's own words
LAST_LINES = 15  # of the log of a worker that failed without words of ours


def start(arguments: list[str], workers: int) -> None:
    """Run `python -m finetune <arguments>` in so many processes, to the end.

    Raises:
        InputError: what a worker said was wrong.
        MachineFault: a worker failed otherwise, or was ended from outside.
    """
    if os.name != "posix":
        raise InputError("--workers: MindSpore's msrun does not run on Windows. Leave --workers out.")
    logs = Path(tempfile.mkdtemp(prefix="finetune-workers-"))
    msrun = subprocess.Popen(
        command(arguments, workers, logs),
        env=environment(logs),
        stdin=subprocess.PIPE,  # the workers inherit it, and end when it closes: `end_with_starter`
        stdout=(logs / "msrun.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in a terminal is for this process
    )
    try:
        follow(msrun, logs)
        end(msrun)
    except BaseException:
        end(msrun)
        shutil.rmtree(logs, ignore_errors=True)
        raise
    if msrun.returncode:
        complain(logs, workers)
    shutil.rmtree(logs, ignore_errors=True)


def command(arguments: list[str], workers: int, logs: Path) -> list[str]:
    flags = {
        "worker_num": workers,
        "local_worker_num": workers,
        "master_port": free_port(),
        "log_dir": logs,
        "cluster_time_out": MEETING_SECONDS,
        "join": True,  # or it is gone at once, with status 0
        "tail_worker_log": workers,  # of none: the program `tail` would lose the last lines
    }
    flags = [f"--{name}={value}" for name, value in flags.items()]
    worker = ["-m", "finetune", *arguments, "--run_distribute", "true"]
    return [sys.executable, "-m", "mindspore.parallel.cluster.run", *flags, "python", *worker]


def environment(logs: Path) -> dict[str, str]:
    """With this very Python as `python`, the only name that msrun takes."""
    python = logs / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o700)
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        WATCHED: "1",
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def follow(msrun: subprocess.Popen, logs: Path) -> None:
    """Print what the first worker says, until msrun ends or tells of a failure."""
    shown = 0
    while True:
        over = msrun.poll() is not None or FAILED.search(text_of(logs / "msrun.log"))
        shown += show_from(logs / "worker_0.log", shown)
        if over:
            return
        time.sleep(LOOK_SECONDS)


def show_from(log: Path, start: int) -> int:
    """Print the whole lines from this byte on. Returns how many bytes they are."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(start)
        lines, newline, _ = file.read().rpartition(b"\n")
    for line in lines.decode("utf-8", "replace").split("\n") if newline else ():
        if not (line.startswith("error: ") or OF_MINDSPORE.match(line)):  # errors are said at the end, once
            print(line, flush=True)
    return len(lines) + len(newline)


def end(msrun: subprocess.Popen) -> None:
    """Leave no process behind: the workers and the scheduler end as their standard input does."""
    msrun.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        msrun.wait(PATIENCE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(msrun.pid, signal.SIGKILL)  # msrun and the scheduler
    msrun.wait()


def complain(logs: Path, workers: int) -> None:
    """Raises what the worker that failed has said."""
    said = {rank: OF_MINDSPORE.sub("", text_of(logs / f"worker_{rank}.log")) for rank in range(workers)}
    for text in said.values():
        if found := re.findall(r"^error: (.*(?:\n.+)*)", text, re.MULTILINE):
            shutil.rmtree(logs, ignore_errors=True)
            raise InputError(found[-1])
    kept = f"What the workers said is kept in {logs}."
    dead = FAILED.search(text_of(logs / "msrun.log"))
    process, code = dead.groups() if dead else ("", "")
    rank = next((rank for rank, text in said.items() if f"process {process}\n" in text), None)
    if rank is not None and int(code) < 0:
        raise MachineFault(
            f"worker {rank} of {workers} was ended from outside by signal {-int(code)}, and the others with it. "
            f"Repeat the command; where memory is short, with fewer --workers. {kept}"
        )
    failed = next((rank for rank, text in said.items() if "Traceback" in text), rank)
    log = logs / ("msrun.log" if failed is None else f"worker_{failed}.log")
    last = "\n".join(text_of(log).rstrip().splitlines()[-LAST_LINES:])
    raise MachineFault(f"{log.stem} failed:\n{last}\n{kept}")


def text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def environment_alone() -> dict[str, str]:
    """For a command that a worker starts, which is none."""
    return {name: value for name, value in os.environ.items() if name not in (*STARTERS, *OF_MSRUN, WATCHED)}
