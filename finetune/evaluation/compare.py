"""One recipe in several variants with the same seeds: one table, one figure.

python -m finetune compare finetune/configs/digits_bp.yaml --vary train.optimizer=adam,sgd --seeds 1,2,3

Each variant is an ordinary run in a process of its own, so that its memory is its own too. A run that is finished
already is not repeated.
"""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import write_csv
from finetune.config import load_config
from finetune.evaluation.significance import difference, read_right

TABLE, FIGURE = "comparison.csv", "comparison.png"


def compare(recipe: str, vary: str, seeds: list[int], flags: dict[str, str]) -> Path:
    """Train, write `<runs_dir>/<recipe>_by_<setting>/` and print the table. Returns the folder.

    `vary` is "section.key=value,value"; `flags` are settings that all variants share.

    Raises:
        InputError: an unknown setting, a value that it cannot have, or a run that failed.
    """
    key, equals, text = vary.partition("=")
    values = [value for value in text.split(",") if value]
    if not equals or len(values) < 2:
        raise InputError(f"--vary {vary}: expected KEY=VALUE,VALUE, as in --vary train.optimizer=adam,sgd.")
    for value in values:  # all of them before the first is trained
        config = load_config(recipe, {**flags, key: value})
    folder = Path(config.runs_dir) / f"{Path(recipe).stem}_by_{key.split('.')[-1]}"
    found = {value: [run_of(recipe, key, value, seed, flags, folder) for seed in seeds] for value in values}
    rows = [row_of(value, runs) for value, runs in found.items()]
    write_csv(folder / TABLE, rows)
    draw(found, key, folder / FIGURE)
    print(in_words(rows))
    for line in pairs_in_words(found):
        print(line)
    print(f"table: {folder / TABLE}\nfigure: {folder / FIGURE}")
    return folder


def run_of(recipe: str, key: str, value: str, seed: int, flags: dict[str, str], folder: Path) -> Path:
    """The run folder of one variant and seed, trained where it is not there."""
    run = folder / f"{value}_seed{seed}"
    if not (run / "report.html").is_file():  # the last file of a run
        print(f"{key}={value}, seed {seed}", flush=True)
        settings = {**flags, key: value, "seed": seed, "runs_dir": folder, "name": run.name, "exist_ok": "true"}
        wanted = [word for name, given in settings.items() for word in ("--set", f"{name}={given}")]
        done = subprocess.run([sys.executable, "-m", "finetune", "train", recipe, *wanted], stdout=subprocess.DEVNULL)
        if done.returncode:
            raise InputError(f"{run}: this variant failed, see above and {run / 'log.txt'}.")
    return run


def row_of(value: str, runs: list[Path]) -> dict:
    """Means over the seeds: accuracies in percent, seconds of the training, largest memory of the process."""
    metrics = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in runs]
    accuracies = [100 * one["after"]["accuracy"] for one in metrics]
    memory = [one["peak_memory_mb"] for one in metrics]
    return {
        "variant": value,
        "accuracy": f"{np.mean(accuracies):.2f}",
        "lowest": f"{min(accuracies):.2f}",
        "highest": f"{max(accuracies):.2f}",
        "seconds": f"{np.mean([one['seconds']['training'] for one in metrics]):.1f}",
        "parameters": metrics[0]["parameters"],
        "memory_mb": "" if None in memory else round(np.mean(memory)),
    }


def in_words(rows: list[dict]) -> str:
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in rows[0]}, *rows]
    return "\n".join("  ".join(f"{line[name]!s:>{width}}" for name, width in widths.items()) for line in lines)


def pairs_in_words(found: dict[str, list[Path]]) -> list[str]:
    """Of each pair of variants, whether they differ by more than chance on the pictures that both evaluated."""
    right = {value: [read_right(run) for run in runs] for value, runs in found.items()}
    return [
        f"{one} and {other}: {difference(right[one], right[other]).in_words(one, other)}"
        for one, other in itertools.combinations(right, 2)
    ]


def draw(found: dict[str, list[Path]], key: str, path: Path) -> None:
    """Loss and accuracy against epochs, the mean of the seeds and their range, a colour a variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    for axis, column in zip(figure.subplots(1, 2), ("train_loss", "valid_accuracy")):
        for value, runs in found.items():
            curves = [read_column(run / "results.csv", column) for run in runs]
            epochs = min(map(len, curves))  # early stopping may end them at different ones
            values = np.stack([curve[:epochs] for curve in curves])
            if np.isfinite(values).all():
                (line,) = axis.plot(range(1, epochs + 1), values.mean(0), label=value)
                axis.fill_between(range(1, epochs + 1), values.min(0), values.max(0), color=line.get_color(), alpha=0.2)
        axis.set(xlabel="epoch", ylabel=column.replace("_", " "))
        axis.grid(alpha=0.25)
    figure.suptitle(f"{key}: mean and range of {len(next(iter(found.values())))} seed(s)")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110, facecolor="white")


def read_column(path: Path, name: str) -> list[float]:
    with path.open(encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]
