"""All recipes from scratch over several seeds: the figures in their heads and in the README.

    python -m benchmarks.recipes --runs_dir runs/recipes      everything; a finished run is not repeated
    python -m benchmarks.recipes --recipes digits_bp xor_mlp --seeds 1 2 3
    python -m benchmarks.recipes --write                      also put the results into the heads of the recipes

The data sets are looked for as ever (DATASETS_PATH or `python -m datasets fetch`). Results are gathered into
<runs_dir>/RECIPES.md after each recipe.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

CHECKOUT = Path(__file__).parents[1]
CONFIGS = CHECKOUT / "finetune" / "configs"
NO_AUGMENTATION = ("train.augment.shift=0", "train.augment.rotate=0", "train.augment.zoom=0", "train.augment.elastic=0")
WIDE_WITH_DROPOUT = ("model.filters=20,50", "model.dropout=0.5", "train.epochs=12",
                     "train.optimizer=adam", "train.learning_rate=0.002", "train.weight_decay=0")  # fmt: skip
# Name -> (recipe, settings beside it, how many runs a seed). ORL: each of the ten rotations of the test picture.
RECIPES = {
    "xor_mlp": ("xor_mlp", (), 1),
    "digits_bp": ("digits_bp", (), 1),
    "orl_lenet": ("orl_lenet", (), 10),
    "mnist_lenet": ("mnist_lenet", (), 1),
    "mnist_lenet, not augmented": ("mnist_lenet", (*NO_AUGMENTATION, *WIDE_WITH_DROPOUT), 1),
    "mnist_dnn": ("mnist_dnn", (), 1),
    "mnist_dnn, no dropout": ("mnist_dnn", ("model.dropout=0",), 1),
    "mnist_dnn, no augmentation": ("mnist_dnn", NO_AUGMENTATION, 1),
    "mnist_dnn, L1": ("mnist_dnn", ("train.l1=0.000003",), 1),
    "mnist_dnn, L2": ("mnist_dnn", ("train.l2=0.00001",), 1),
    "mnist_mlp_shift": ("mnist_mlp_shift", (), 1),
    "arabic_lenet": ("arabic_lenet", (), 1),
    "orl_lenet_pgm": ("orl_lenet_pgm", (), 10),
}
XOR_SEEDS = range(1, 51)


def main() -> int:
    given = arguments()
    lines = ["| recipe | mean | lowest | highest | runs | seconds a run |", "|---|---|---|---|---|---|"]
    failed = False
    for name in given.recipes:
        recipe, settings, rotations = RECIPES[name]
        seeds = XOR_SEEDS if recipe == "xor_mlp" and not given.seeds else given.seeds or range(1, 6)
        found = []
        for seed in seeds:
            runs = [run_once(name, recipe, settings, seed, r, given) for r in range(rotations)]
            failed |= None in runs
            good = [run for run in runs if run]
            if good:  # one figure a seed: of ORL the mean of its rotations
                found.append({key: float(np.mean([run[key] for run in good])) for key in good[0]})
        if not found:
            continue
        accuracies = np.array([one["accuracy"] for one in found]) * 100
        seconds = np.median([one["seconds"] for one in found])
        lines.append(
            f"| {name} | {accuracies.mean():.2f} % | {accuracies.min():.2f} | {accuracies.max():.2f} | "
            f"{len(found)} x {rotations} | {seconds:.0f} |"
        )
        (Path(given.runs_dir) / "RECIPES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(lines[-1], flush=True)
        if given.write and not settings:
            write_head(CONFIGS / f"{recipe}.yaml", accuracies, seconds, rotations)
    return int(failed)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 1 to 5, for xor_mlp 1 to 50")
    parser.add_argument("--runs_dir", default="runs/recipes")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    parser.add_argument("--write", action="store_true", help="put the results into the heads of the recipes")
    return parser.parse_args()


def run_once(name: str, recipe: str, settings: tuple, seed: int, rotation: int, given: argparse.Namespace):
    """{"accuracy": 0..1, "seconds": of the training} of one run, or None if it failed; see its log."""
    folder = Path(given.runs_dir) / f"{name.replace(', ', '_').replace(' ', '_')}_seed{seed}_{rotation}"
    log = folder.with_suffix(".log")
    if not (folder / "report.html").is_file():  # the last file of a run
        folder.parent.mkdir(parents=True, exist_ok=True)
        wanted = [*settings, f"seed={seed}", f"runs_dir={given.runs_dir}", f"name={folder.name}", "exist_ok=true"]
        wanted += [f"threads={given.threads}"]
        if recipe.startswith("orl"):
            wanted.append(f"data.rotation={rotation}")
        command = [sys.executable, "-m", "finetune", "train", str(CONFIGS / f"{recipe}.yaml")]
        command += [word for setting in wanted for word in ("--set", setting)]
        started = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            status = subprocess.run(command, cwd=CHECKOUT, stdout=file, stderr=subprocess.STDOUT).returncode
        print(f"{folder.name}: {'failed, see ' + str(log) if status else 'done'}, "
              f"{time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
        if status:
            return None
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {"accuracy": metrics["after"]["accuracy"], "seconds": metrics["seconds"]["training"]}


def write_head(path: Path, accuracies: np.ndarray, seconds: float, rotations: int) -> None:
    """Replace the line that begins with "# Measured"."""
    of = f", {rotations} rotations each" if rotations > 1 else ""
    several = f"mean of {len(accuracies)} seeds{of} ({accuracies.min():.2f} to {accuracies.max():.2f})"
    measured = (
        f"# Measured: {accuracies.mean():.2f} %, {several if len(accuracies) > 1 else f'one seed{of}'}, "
        f"{seconds:.0f} s of training a run on 2 CPU cores."
    )
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [measured if line.startswith("# Measured") else line for line in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
