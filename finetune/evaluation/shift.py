"""How well do trained networks stand shifted pictures? Accuracy against shift, a curve a run.

python -m finetune shift runs/mnist_mlp_shift runs/mnist_lenet

A dense layer has weights for places; a convolution with pooling has them for shapes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import write_csv
from datasets.image import ImageSpec, load_images, normalise
from finetune.run_folder import evaluation_pictures, read_json

PIXELS = 4


def show(runs: list[Path], pixels: int = PIXELS) -> Path:
    """Evaluate each run on its evaluation pictures, shifted by -pixels ... pixels; print a table, write it and a figure
    into the first run. Returns the path of the figure.

    Raises:
        InputError: not a finished run, or one on a backbone.
    """
    shifts = list(range(-pixels, pixels + 1))
    curves = {run.resolve().name: curve(run, shifts) for run in runs}
    rows = [{"shift": shift, **{name: f"{values[i]:.4f}" for name, values in curves.items()}} for i, shift in
            enumerate(shifts)]  # fmt: skip
    write_csv(runs[0] / "figures" / "shift.csv", rows)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    path = runs[0] / "figures" / "shift.png"
    draw(shifts, curves, path)
    print(f"figure: {path}")
    return path


def curve(run: Path, shifts: list[int]) -> list[float]:
    """The accuracy at each shift: the mean of moving all pictures sideways and of moving them up or down."""
    from finetune.trained import load_trained
    from finetune.training.predictor import Predictor

    trained = load_trained(run)
    if trained.backbone is not None:
        raise InputError(f"{run}: on a backbone. Give a run from scratch, as of `python -m finetune run mnist_lenet`.")
    split = read_json(run, "split.json")
    labels = np.array([split["classes"].index(name) for name in split["eval"].values()])
    images, _ = load_images(evaluation_pictures(run), trained.image)
    predictor = Predictor(trained.network)

    def accuracy(moved: np.ndarray, spec: ImageSpec) -> float:
        return float((predictor(normalise(moved, spec)).argmax(1) == labels).mean())

    return [
        float(np.mean([accuracy(shifted(images, shift, axis), trained.image) for axis in (1, 2)])) for shift in shifts
    ]


def shifted(images: np.ndarray, shift: int, axis: int) -> np.ndarray:
    """uint8 (N, H, W, channels) moved along an axis; what comes in is the edge again."""
    size = images.shape[axis]
    return images.take((np.arange(size) - shift).clip(0, size - 1), axis=axis)


def draw(shifts: list[int], curves: dict[str, list[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, values in curves.items():
        axis.plot(shifts, 100 * np.array(values), marker="o", label=name)
    axis.set(xlabel="shift in pixels", ylabel="accuracy in %", title="Shifted evaluation pictures", ylim=(0, 101))
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110, facecolor="white")
