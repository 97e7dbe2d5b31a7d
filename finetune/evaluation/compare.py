"""One recipe in several variants, or several recipes, with the same seeds: one table, one figure.

python -m finetune compare finetune/configs/digits_bp.yaml --vary train.optimizer=adam,sgd --seeds 1,2,3
python -m finetune compare --recipes finetune/configs/designs/*.yaml --seeds 1,2,3

Each variant is an ordinary run in a process of its own, so that its memory is its own too. A run that is finished
already, with the same settings, is not repeated; what was run with others is left as it is.
"""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import write_csv
from finetune.config import Config, load_config
from finetune.config_values import flatten
from finetune.evaluation.significance import difference, read_right
from finetune.metrics import wilson_interval

TABLE, FIGURE = "comparison.csv", "comparison.png"
BASELINE = "plain"  # of several recipes the one of this name, else the first
WHERE = ("name", "runs_dir", "exist_ok")  # a run lies; all other settings say what it is


@dataclass(frozen=True)
class Variant:
    name: str
    recipe: str
    settings: dict[str, str]


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
    found = trained([Variant(value, recipe, {**flags, key: value}) for value in values], seeds, folder)
    rows = write_table(found, folder)
    draw(found, key, folder / FIGURE)
    show(rows, pairs_in_words(found, itertools.combinations(found, 2)), folder)
    return folder


def compare_recipes(recipes: list[str], seeds: list[int], flags: dict[str, str]) -> Path:
    """The same of several recipes: `<runs_dir>/<their folder>_on_<data set>/`.

    Raises:
        InputError: fewer than two, two of one name, a recipe that cannot be used, or a run that failed.
    """
    names = [Path(recipe).stem for recipe in recipes]
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"--recipes {' '.join(names)}: expected two or more, and each name once.")
    configs = [load_config(recipe, flags) for recipe in recipes]
    data = "_".join(dict.fromkeys(Path(config.data.dataset_path).name for config in configs))
    folder = Path(configs[0].runs_dir) / f"{Path(recipes[0]).resolve().parent.name}_on_{data}"
    found = trained([Variant(name, recipe, flags) for name, recipe in zip(names, recipes)], seeds, folder)
    rows = write_table(found, folder)
    draw_costs(rows, folder / FIGURE)
    first = BASELINE if BASELINE in found else names[0]
    show(rows, pairs_in_words(found, [(first, name) for name in names if name != first]), folder)
    return folder


def trained(variants: list[Variant], seeds: list[int], folder: Path) -> dict[str, list[Path]]:
    """The run folders of each variant, a seed each."""
    return {variant.name: [run_of(variant, seed, folder) for seed in seeds] for variant in variants}


def write_table(found: dict[str, list[Path]], folder: Path) -> list[dict]:
    rows = [row_of(name, runs) for name, runs in found.items()]
    write_csv(folder / TABLE, rows)
    return rows


def show(rows: list[dict], lines: list[str], folder: Path) -> None:
    print("\n".join([in_words(rows), *lines, f"table: {folder / TABLE}", f"figure: {folder / FIGURE}"]))


def run_of(variant: Variant, seed: int, folder: Path) -> Path:
    """The run folder of one variant and seed, trained where none with its settings is finished."""
    settings = {**variant.settings, "seed": seed}
    run, others = place_of(f"{variant.name}_seed{seed}", load_config(variant.recipe, settings), folder)
    if (run / "report.html").is_file():  # the last file of a run
        print(f"{variant.name}, seed {seed}: finished before, {run}", flush=True)
        return run
    print(f"{variant.name}, seed {seed}" + "".join(f"; {other}" for other in others), flush=True)
    settings |= {"runs_dir": folder, "name": run.name, "exist_ok": "true"}
    wanted = [word for name, given in settings.items() for word in ("--set", f"{name}={given}")]
    command = [sys.executable, "-m", "finetune", "train", variant.recipe, *wanted]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise InputError(f"{run}: this variant failed, see above and {run / 'log.txt'}.")
    return run


def place_of(name: str, wanted: Config, folder: Path) -> tuple[Path, list[str]]:
    """(`<folder>/<name>`, or the first `<name>-2` and so on that is free or has the wanted settings; of each folder
    before it, what is other there)."""
    run, others = folder / name, []
    while changed := changed_in(run, wanted):
        others.append(f"{run.name} has another {', '.join(changed)}")
        run = folder / f"{name}-{len(others) + 1}"
    return run, others


def changed_in(run: Path, wanted: Config) -> list[str]:
    """The settings in which a run differs from what is wanted; none where there is no run."""
    path = run / "config.yaml"
    if not path.is_file():
        return []
    try:
        found = flatten(asdict(load_config(str(path))))
    except InputError:  # damaged, or of a version with other settings
        return [path.name]
    return [key for key, value in flatten(asdict(wanted)).items() if key not in WHERE and found[key] != value]


def row_of(value: str, runs: list[Path]) -> dict:
    """Means over the seeds: accuracies in percent, the 95 % interval of their mean as the pictures leave it open, the
    lowest and highest seed; seconds of the training, and of an epoch of all members; what the network costs, see
    `finetune.training.cost`; largest memory of the process."""
    metrics = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in runs]
    accuracies = [100 * one["after"]["accuracy"] for one in metrics]
    pictures = metrics[0]["after"]["pictures"]
    low, high = wilson_interval(np.mean(accuracies) / 100 * pictures, pictures)
    members = load_config(str(runs[0] / "config.yaml")).train.members
    epochs = [np.mean(read_column(run / "results.csv", "seconds")) * members for run in runs]
    memory = [one["peak_memory_mb"] for one in metrics]
    return {
        "variant": value,
        "accuracy": f"{np.mean(accuracies):.2f}",
        "interval": f"{100 * low:.2f}..{100 * high:.2f}",
        "lowest": f"{min(accuracies):.2f}",
        "highest": f"{max(accuracies):.2f}",
        "seconds": f"{np.mean([one['seconds']['training'] for one in metrics]):.1f}",
        "epoch_s": f"{np.mean(epochs):.2f}",
        "parameters": metrics[0]["parameters"],
        "multiply_adds": metrics[0].get("multiply_adds", ""),
        "weights_kb": f"{metrics[0]['weights_bytes'] / 1000:.1f}" if "weights_bytes" in metrics[0] else "",
        "memory_mb": "" if None in memory else round(np.mean(memory)),
    }


def in_words(rows: list[dict]) -> str:
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in rows[0]}, *rows]
    return "\n".join("  ".join(f"{line[name]!s:>{width}}" for name, width in widths.items()) for line in lines)


def pairs_in_words(found: dict[str, list[Path]], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Of pairs of variants, whether they differ by more than chance on the pictures that both evaluated."""
    right = {value: [read_right(run) for run in runs] for value, runs in found.items()}
    return [f"{one} and {other}: {difference(right[one], right[other]).in_words(one, other)}" for one, other in pairs]


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


def draw_costs(rows: list[dict], path: Path) -> None:
    """Accuracy with its interval against the size of the weights and against the multiply-adds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    costs = {"weights_kb": "weights in kB", "multiply_adds": "multiply-adds a picture"}
    for axis, (column, label) in zip(figure.subplots(1, 2, sharey=True), costs.items()):
        known = sorted((row for row in rows if row[column] != ""), key=lambda row: float(row["accuracy"]))
        for number, row in enumerate(known):
            cost, accuracy = float(row[column]), float(row["accuracy"])
            low, high = map(float, row["interval"].split(".."))
            axis.errorbar(cost, accuracy, [[accuracy - low], [high - accuracy]], fmt="o", capsize=3)
            side, align = ((7, -3), "left") if number % 2 else ((-7, -3), "right")  # neighbours on different sides
            axis.annotate(row["variant"], (cost, accuracy), side, textcoords="offset points", ha=align, fontsize=8)
        axis.margins(x=0.15)
        axis.set(xlabel=label, xscale="log")
        axis.grid(alpha=0.25)
    figure.axes[0].set_ylabel("accuracy in %, 95 % interval")
    figure.savefig(path, dpi=110, facecolor="white")


def read_column(path: Path, name: str) -> list[float]:
    with path.open(encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]
