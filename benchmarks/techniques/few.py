"""With few pictures a class, is any recipe worse than the linear head?

    python -m benchmarks.techniques.few --dataset_path PICTURES --pretrain_ckpt MOBILENETV2_1.0.ckpt

For each seed other pictures are drawn of each class (so many of the smallest, the same share of the others), a tenth of
them to validate; each recipe learns from the same ones, and is judged by all evaluation pictures. Prints the mean
difference to the linear head, in points, with its 95 % interval over the seeds (Student's t).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from datasets.load import load

CHECKOUT = Path(__file__).parents[2]
RECIPES = {
    "train.head=auto": ["--set", "train.head=auto"],
    "--recipe strong_head": ["--recipe", "strong_head"],
    "--recipe best": ["--recipe", "best"],
    "--recipe best, train.head=auto": ["--recipe", "best", "--set", "train.head=auto"],
}
LINEAR = "linear head"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.techniques.few", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset_path", required=True, help="photographs, <root>/train/<class> among them")
    parser.add_argument("--pretrain_ckpt", required=True, help="weights for 224 pixels, which the recipes are for")
    parser.add_argument("--cache_dir", default="cache", help="where computed features are kept")
    parser.add_argument("--pictures", type=int, default=20, help="a class, to train and to validate: 20")
    parser.add_argument("--seeds", type=int, default=5, help="5")
    given = parser.parse_args()
    dataset = load(given.dataset_path, given.cache_dir)
    if dataset.parts is None:
        parser.error(f"--dataset_path {given.dataset_path}: photographs in train/ and eval/ are wanted")
    smallest = np.bincount(dataset.labels[np.array(dataset.parts) == "train"]).min()
    if given.pictures > smallest or given.seeds < 2:
        parser.error(f"--pictures: the smallest class has {smallest}; --seeds: 2 or more give an interval")
    common = ["--dataset_path", given.dataset_path, "--set", f"data.fraction={given.pictures / smallest}"]
    common += ["--pretrain_ckpt", given.pretrain_ckpt, "--cache_dir", given.cache_dir]
    found = {name: [] for name in (LINEAR, *RECIPES)}
    for seed in range(1, given.seeds + 1):
        for name in found:
            found[name].append(accuracy([*common, *RECIPES.get(name, []), "--seed", str(seed)]))
            print(f"seed {seed}, {name}: {found[name][-1]:.1f} %", file=sys.stderr, flush=True)
    print("| recipe | evaluation pictures, mean (range) | to the linear head |\n|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {np.mean(values):.1f} % ({min(values):.1f} to {max(values):.1f}) |", end=" ")
        print("|" if name == LINEAR else f"{difference(values, found[LINEAR])} |")


def accuracy(arguments: list[str]) -> float:
    """In percent, after a run."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "finetune", "train", *arguments, "--runs_dir", runs, "--name", "few"]
        command += ["--set", "data.views=false"]
        subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
        return 100 * json.loads(Path(runs, "few", "metrics.json").read_text(encoding="utf-8"))["after"]["accuracy"]


def difference(values: list[float], others: list[float]) -> str:
    """ "+1.2 (-0.3 to +2.7)": of pairs."""
    from scipy.stats import t

    pairs = np.subtract(values, others)
    half = t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
    return f"{pairs.mean():+.1f} ({pairs.mean() - half:+.1f} to {pairs.mean() + half:+.1f})"


if __name__ == "__main__":
    main()
