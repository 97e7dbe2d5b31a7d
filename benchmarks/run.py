"""Our job and its peers on the same pictures, one after the other in turns, as a table of ratios.

    python -m benchmarks.run --dataset_path PICTURES --pretrain_ckpt MOBILENETV2.ckpt

Every contestant runs in a process of its own, builds and warms up its network outside of the measured
time, and gets the same folded weights. The table gives medians over the repeats and goes, with the
machine, into benchmarks/RESULTS.md. Peers come from benchmarks/requirements.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.tables import extraction_table, growth_table, head_table, machine, telephone_table, whole_table
from datasets.folder import load_folder

OURS = "benchmarks.ours"
EXTRACTION = {
    "ours, OpenVINO f32": (OURS, "--engine", "openvino"),
    "ours, OpenVINO bf16": (OURS, "--engine", "openvino", "--precision", "bf16"),
    "ours, MindSpore": (OURS, "--engine", "mindspore"),
    "ONNX Runtime, plain loop": ("benchmarks.peers.onnx_runtime",),
    "PyTorch": ("benchmarks.peers.pytorch",),
    "Keras": ("benchmarks.peers.keras_tensorflow",),
    "the zoo's way": ("benchmarks.peers.zoo", "--pictures", "16"),
    "decoding alone": (OURS, "--task", "decode"),
}
HEAD = {
    "ours, MindSpore": (OURS, "--task", "head"),
    "PyTorch": ("benchmarks.peers.pytorch", "--task", "head"),
    "scikit-learn LogisticRegression": ("benchmarks.peers.scikit_learn", "--task", "head"),
}
TELEPHONE = {name: EXTRACTION[name] for name in ("ours, OpenVINO f32", "ONNX Runtime, plain loop", "PyTorch", "Keras")}
TELEPHONE_PICTURES, TELEPHONE_SIZE = 200, (4000, 3000)
HEAD_REPEATS = 3  # for each of the others: it takes a fraction of a second, and varies more
GROWTH = (500, 1600, 5000, 20000)
CHECKOUT = Path(__file__).parents[1]


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as place:
        inputs = ["--dataset_path", given.dataset_path, "--pretrain_ckpt", given.pretrain_ckpt, "--place", place]
        start("benchmarks.weights", *inputs)
        sections = ["# Results", machine(given)]
        for part in given.parts:
            sections.append(PARTS[part](given, inputs, Path(place)))
            text = "\n\n".join(sections) + "\n"  # each when it is measured: what comes after may break
            Path(given.out).write_text(text, encoding="utf-8")
    print(text)


def extraction(given: argparse.Namespace, inputs: list, place: Path) -> str:
    runs = in_turns(EXTRACTION, [*inputs, "--pictures", str(given.pictures)], given.repeats)
    return extraction_table(runs, place)


def telephone(given: argparse.Namespace, inputs: list, place: Path) -> str:
    """Photographs of 12 megapixels; the others decode them as their users do."""
    with photographs(Path(given.dataset_path), place / "telephone") as folder:
        usual = [*inputs, "--dataset_path", folder, "--pictures", str(TELEPHONE_PICTURES), "--decoding", "usual"]
        return telephone_table(in_turns(TELEPHONE, usual, given.repeats), place)


def head(given: argparse.Namespace, inputs: list, place: Path) -> str:
    return head_table(in_turns(HEAD, inputs, HEAD_REPEATS * given.repeats))


def whole(given: argparse.Namespace, inputs: list, place: Path) -> str:
    return whole_table(whole_runs(given, inputs, place))


def growth(given: argparse.Namespace, inputs: list, place: Path) -> str:
    return growth_table(growth_runs(given, place))


PARTS = {"extract": extraction, "telephone": telephone, "head": head, "whole": whole, "growth": growth}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset_path", required=True, help="two classes of photographs, <root>/{train,eval}/<class>")
    parser.add_argument("--pretrain_ckpt", required=True, help="MobileNetV2 weights, a MindSpore CKPT")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=400, help="a contestant of the extraction")
    parser.add_argument("--growth", type=int, nargs="+", default=GROWTH, help="numbers of pictures")
    parser.add_argument("--out", default=str(Path(__file__).with_name("RESULTS.md")))
    return parser.parse_args()


def in_turns(contestants: dict, inputs: list, repeats: int) -> dict[str, list[dict]]:
    """{name: results}; the first repeat of all, then the second of all: what disturbs one disturbs all."""
    found = defaultdict(list)
    for repeat in range(repeats):
        for name, (module, *options) in contestants.items():
            result = start(module, *inputs, *options)
            print(f"{repeat + 1}/{repeats} {name}: {result}", flush=True)
            found[name].append(result)
    return found


def start(module: str, *options: str) -> dict:
    """Run a contestant; its numbers, with the seconds of the whole process, or {"error": last line}."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_v": "3"}
    kept = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")}
    started = time.perf_counter()
    command = [sys.executable, "-m", module, *map(str, options)]
    done = subprocess.run(command, cwd=CHECKOUT, env={**kept, **quiet}, capture_output=True, encoding="utf-8")
    seconds = time.perf_counter() - started
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {**(json.loads(results[-1][7:]) if results else {}), "process_seconds": seconds}


def whole_runs(given: argparse.Namespace, inputs: list, place: Path) -> dict[str, list[dict]]:
    """From starting the process to its end: cold with nothing cached, warm with all features cached."""
    pytorch = ("benchmarks.peers.pytorch", *inputs, "--pictures", "1000000", "--task")
    found = defaultdict(list)
    for repeat in range(given.repeats):
        ours = ("finetune", "{}", "--dataset_path", given.dataset_path, "--pretrain_ckpt", given.pretrain_ckpt,
                "--set", "data.views=false", "--runs_dir", str(place / f"runs{repeat}"),
                "--cache_dir", str(place / f"cache{repeat}"))  # fmt: skip
        for name, command in {
            "cold: ours, to a verified MindIR": [part.replace("{}", "run") for part in ours],
            "cold: PyTorch, to a trained head": (*pytorch, "cold"),
            "warm: ours, to a trained head and report": [part.replace("{}", "train") for part in ours],
            "warm: PyTorch, to a trained head": (*pytorch, "warm"),
        }.items():
            result = start(*command)
            print(f"{repeat + 1}/{given.repeats} {name}: {result}", flush=True)
            found[name].append(result)
    return found


def growth_runs(given: argparse.Namespace, place: Path) -> dict[int, dict]:
    """`python -m finetune features` on ever more pictures; each is a new file for the cache."""
    found = {}
    for count in given.growth:
        with repeated(Path(given.dataset_path), count, place / f"pictures{count}") as folder:
            found[count] = start("benchmarks.measured", "features", "--dataset_path", folder, "--pretrain_ckpt",
                                 given.pretrain_ckpt, "--cache_dir", place / f"grown{count}")  # fmt: skip
            print(f"growth {count}: {found[count]}", flush=True)
    return found


@contextlib.contextmanager
def photographs(root: Path, folder: Path):
    """A folder of large JPEG files: those of `root` enlarged and given a sensor's noise."""
    dataset = load_folder(root)
    rng = np.random.default_rng(0)
    for i, row in enumerate(rng.permutation(len(dataset))[:TELEPHONE_PICTURES]):
        path = folder / "train" / dataset.classes[dataset.labels[row]] / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(dataset.paths[row]) as picture:
            large = np.asarray(ImageOps.fit(picture.convert("RGB"), TELEPHONE_SIZE, Image.Resampling.BICUBIC))
        noise = rng.normal(0, 3, large.shape[:2]).astype(np.int16)[..., None]
        Image.fromarray((large + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)  # nearly 2 MB
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def repeated(root: Path, count: int, folder: Path):
    """A folder of `count` pictures: those of `root` again and again, with a number behind the end of each
    file, which decoders ignore, so that no two have the same bytes."""
    dataset = load_folder(root)
    order = np.random.default_rng(0).permutation(len(dataset))  # all parts and classes from the start
    for i in range(count):
        row = order[i % len(dataset)]
        part = dataset.parts[row] if dataset.parts else "train"
        name = dataset.classes[dataset.labels[row]]
        path = folder / part / name / f"{i:06d}{dataset.paths[row].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dataset.paths[row].read_bytes() + i.to_bytes(8, "little"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
