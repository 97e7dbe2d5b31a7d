"""A training step behind each cut, ours and PyTorch's in turns: equal rows, weights, batch, precision and threads.

    python -m benchmarks.steps --pretrain_ckpt MOBILENETV2.ckpt [--peer_python PYTHON_WITH_TORCH]

Both live side by side and take their turns of a few steps, one waiting while the other works: neither's threads may
spin meanwhile (OMP_WAIT_POLICY=passive for both). The first turns of each warm up and do not count. That the work is
equal is told by the losses, which must agree from the first step on; rounding leads them apart only slowly. Writes
nothing; prints a table of medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.steps.turns import PREFIX, WHOLE

CHECKOUT = Path(__file__).parents[2]
OURS, PEER = "ours, MindSpore", "PyTorch"
MODULES = {OURS: "benchmarks.steps.ours", PEER: "benchmarks.steps.pytorch"}
BATCHES = 8  # of rows that are there
WARM_UP = 2  # turns
LARGEST_DIFFERENCE, LATER = 0.02, 0.1  # of the losses of a turn, as a share: in the first turns, and later


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as place:
        shared = ["--pretrain_ckpt", given.pretrain_ckpt, "--place", place]
        rows = ["--rows", str(BATCHES * given.batch_size), "--cuts", *map(str, given.cuts)]
        subprocess.run([sys.executable, "-m", "benchmarks.steps.rows", *shared, *rows], cwd=CHECKOUT, check=True)
        print("| behind the cut | contestant | ms a step | ms of a core | to PyTorch: time | of a core |")
        print("|---|---|---|---|---|---|")
        for cut in given.cuts:
            print(table(cut, measure(cut, given, shared)), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__.split("\n")[0])
    parser.add_argument("--pretrain_ckpt", required=True, help="MobileNetV2 weights, a MindSpore CKPT")
    parser.add_argument("--cuts", type=int, nargs="+", default=[15, 14, WHOLE], help="numbers of blocks; 0: all")
    parser.add_argument("--peer_python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=15, help="of each, that count")
    parser.add_argument("--steps", type=int, default=4, help="a turn")
    return parser.parse_args()


def measure(cut: int, given: argparse.Namespace, shared: list) -> dict[str, dict[str, np.ndarray]]:
    """{contestant: {"seconds": (turns,), "cpu": (turns,)}}, a step."""
    options = ["--cut", cut, "--batch_size", given.batch_size, "--threads", given.threads]
    pythons = {OURS: sys.executable, PEER: given.peer_python}
    found = {name: [] for name in MODULES}
    with contextlib.ExitStack() as stack:
        living = {
            name: stack.enter_context(contestant([python, "-m", MODULES[name], *shared, *options]))
            for name, python in pythons.items()
        }
        for turn in range(WARM_UP + given.turns):
            for name, process in living.items():
                found[name].append(ask(process, turn * given.steps, given.steps))
            losses = [found[name][-1]["loss"] for name in living]
            allowed = LARGEST_DIFFERENCE if turn < WARM_UP else LATER
            if abs(losses[0] - losses[1]) > allowed * abs(losses[1]):
                sys.exit(f"block {cut}, turn {turn}: losses {losses}: this is not the same work")
            print(f"block {cut}, turn {turn}: {[found[name][-1] for name in living]}", file=sys.stderr, flush=True)
    return {
        name: {key: np.array([one[key] for one in turns[WARM_UP:]]) / given.steps for key in ("seconds", "cpu")}
        for name, turns in found.items()
    }


@contextlib.contextmanager
def contestant(command: list) -> Iterator[subprocess.Popen]:
    kept = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")}
    kept["OMP_WAIT_POLICY"] = "passive"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(list(map(str, command)), cwd=CHECKOUT, env=kept, encoding="utf-8", **pipes)
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def ask(process: subprocess.Popen, first: int, steps: int) -> dict:
    process.stdin.write(f"{first} {steps}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith(PREFIX):
            return json.loads(line.removeprefix(PREFIX))
    sys.exit(f"{process.args}: it has ended")


def table(cut: int, found: dict) -> str:
    """Medians; the ratio is the median of the turns', with the middle half of them."""
    what = "the whole network" if cut == WHOLE else f"block_{cut}"
    lines = []
    for name, taken in found.items():
        ratios = [against(taken[key] / found[PEER][key]) for key in ("seconds", "cpu")]
        times = [f"{1000 * np.median(taken[key]):.0f}" for key in ("seconds", "cpu")]
        lines.append(f"| {what} | {name} | {' | '.join([*times, *ratios])} |")
    return "\n".join(lines)


def against(ratios: np.ndarray) -> str:
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if low != high else f"{middle:.2f}"


if __name__ == "__main__":
    main()
