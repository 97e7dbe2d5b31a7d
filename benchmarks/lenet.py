"""An epoch of LeNet-5 on MNIST: ours against PyTorch's, in turns, equal batch, precision, threads and rows.

    python -m benchmarks.lenet --dataset_path MNIST_FOLDER [--peer_python PYTHON_WITH_TORCH]

The first epoch of each warms up and does not count. Writes nothing; prints a table of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

CHECKOUT = Path(__file__).parents[1]
OURS, PEER = "ours, MindSpore", "PyTorch"


def main() -> None:
    given = arguments()
    if given.contestant:
        seconds = {OURS: ours, PEER: pytorch}[given.contestant](given)
        print("RESULT " + json.dumps(seconds))
        return
    found: dict[str, list[float]] = {OURS: [], PEER: []}
    for repeat in range(given.repeats):
        for name, python in ((OURS, sys.executable), (PEER, given.peer_python)):
            command = [python, "-m", "benchmarks.lenet", *sys.argv[1:], "--contestant", name]
            kept = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")}
            done = subprocess.run(command, cwd=CHECKOUT, env=kept, capture_output=True, encoding="utf-8")
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            found[name] += json.loads(done.stdout.split("RESULT ")[-1])
            print(f"{repeat + 1}/{given.repeats} {name}: {found[name]}", flush=True)
    peer = float(np.median(found[PEER]))
    what = f"LeNet-5, {given.rows} rows, batch {given.batch_size}, f32, {given.threads} threads"
    print(f"\n| {what} | seconds an epoch | to PyTorch |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {np.median(seconds):.2f} | {np.median(seconds) / peer:.2f} |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lenet", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset_path", type=Path, required=True, help="the folder of MNIST's IDX files")
    parser.add_argument("--peer_python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--rows", type=int, default=60000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3, help="of each process; the first does not count")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contestant", choices=[OURS, PEER], help=argparse.SUPPRESS)
    return parser.parse_args()


def rows(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """x float32 (N, 1, 28, 28), y int32 (N,)."""
    from datasets.sources import mnist

    dataset = mnist.load(given.dataset_path)
    pixels = dataset.pixels[: given.rows, None].astype(np.float32)
    return (pixels / 255 - np.float32(0.1307)) / np.float32(0.3081), dataset.labels[: given.rows]


def ours(given: argparse.Namespace) -> list[float]:
    """Seconds of each counted epoch of `finetune.training.trainer.Trainer.fit`."""
    from finetune.device import init_device

    init_device("CPU", threads=given.threads)
    from finetune.config import ModelConfig, TrainConfig
    from finetune.training.networks import from_scratch
    from finetune.training.trainer import Trainer

    x, y = rows(given)
    config = TrainConfig(epochs=given.epochs, batch_size=given.batch_size, l2=0.0, patience=0)
    network = from_scratch(ModelConfig(), (1, 28, 28), 10, seed=1)
    fitted = Trainer(network, (x, y), (x[:0], y[:0]), config, 10, seed=1).fit(on_epoch=lambda line: None)
    return [row.seconds for row in fitted.history[1:]]


def pytorch(given: argparse.Namespace) -> list[float]:
    """The same network, optimizer and order of work, as PyTorch's tutorials write it, rows in memory."""
    import torch
    from torch import nn

    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    x, y = (torch.from_numpy(values) for values in rows(given))
    y = y.long()
    network = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2, bias=False), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5, bias=False), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    loss_of = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(given.epochs):
        started = time.perf_counter()
        order = torch.randperm(len(x))
        loss_sum, correct = 0.0, 0
        for start in range(0, len(x), given.batch_size):
            batch = order[start : start + given.batch_size]
            optimizer.zero_grad()
            logits = network(x[batch])
            loss = loss_of(logits, y[batch])
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            correct += (logits.argmax(1) == y[batch]).sum().item()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


if __name__ == "__main__":
    main()
