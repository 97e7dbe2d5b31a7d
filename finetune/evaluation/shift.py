"""How well do trained networks stand shifted pictures? Accuracy against shift, a curve a run.

python -m finetune shift runs/mnist_mlp_shift runs/mnist_lenet
python -m finetune shift runs/mnist_mlp_shift runs/mnist_lenet --average 1

The second shows the runs one picture besides: the average of all evaluation pictures of a class, shifted sideways.

A dense layer has weights for places; a convolution with pooling has them for shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import write_csv
from datasets.image import load_images, normalise
from finetune.run_folder import evaluation_pictures, read_json

PIXELS = 4
AVERAGE_PIXELS = 3  # what the average picture is shifted by at most


@dataclass(frozen=True)
class Said:
    """What a run says of one picture at each shift."""

    answers: list[str]  # a class a shift
    confidences: np.ndarray  # of the answer
    of_true: np.ndarray  # the probability of the class that it is


def show(runs: list[Path], pixels: int = PIXELS, average: str | None = None) -> Path:
    """Evaluate each run on its evaluation pictures, shifted by -pixels ... pixels; print a table, write it and a figure
    into the first run. With the name of a class in `average` it also has what each says of that class's average
    picture. Returns the path of the figure.

    Raises:
        InputError: not a finished run, one on a backbone, or no such class.
    """
    shifts = list(range(-pixels, pixels + 1))
    opened = {run.resolve().name: Opened(run) for run in runs}
    shown, said = None, {}
    if average is not None:
        near = list(range(-AVERAGE_PIXELS, AVERAGE_PIXELS + 1))
        shown = next(iter(opened.values())).average(average, near)
        said = {name: run.say(run.average(average, near), average) for name, run in opened.items()}
        for name, one in said.items():
            print(f"average {average} by {name}: {in_words(near, one)}")
    curves = {name: run.curve(shifts) for name, run in opened.items()}
    rows = [{"shift": shift, **{name: f"{values[i]:.4f}" for name, values in curves.items()}} for i, shift in
            enumerate(shifts)]  # fmt: skip
    write_csv(runs[0] / "figures" / "shift.csv", rows)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    path = runs[0] / "figures" / "shift.png"
    draw(shifts, curves, path, average, shown, said)
    print(f"figure: {path}")
    return path


class Opened:
    """A run from scratch, its network and its N evaluation pictures."""

    def __init__(self, run: Path):
        from finetune.trained import load_trained
        from finetune.training.predictor import Predictor

        trained = load_trained(run)
        if trained.backbone is not None:
            raise InputError(
                f"{run}: on a backbone. Give a run from scratch, as of `python -m finetune run mnist_lenet`."
            )
        split = read_json(run, "split.json")
        self.run, self.classes, self.spec = run, split["classes"], trained.image
        self.labels = np.array([self.classes.index(name) for name in split["eval"].values()])
        self.images, _ = load_images(evaluation_pictures(run), trained.image)
        self.predictor = Predictor(trained.network)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        return self.predictor(normalise(images, self.spec))

    def curve(self, shifts: list[int]) -> list[float]:
        """The accuracy at each shift: the mean of moving all pictures sideways and of moving them up or down."""

        def accuracy(moved: np.ndarray) -> float:
            return float((self.probabilities(moved).argmax(1) == self.labels).mean())

        return [float(np.mean([accuracy(shifted(self.images, shift, axis)) for axis in (1, 2)])) for shift in shifts]

    def average(self, name: str, shifts: list[int]) -> np.ndarray:
        """uint8 (shifts, H, W, channels): the mean of the class's evaluation pictures, at each shift to the right."""
        if name not in self.classes:
            raise InputError(f"--average {name}: no class of {self.run}. It knows {', '.join(self.classes)}.")
        mean = self.images[self.labels == self.classes.index(name)].mean(0, keepdims=True).round().astype(np.uint8)
        return np.concatenate([shifted(mean, shift, axis=2) for shift in shifts])

    def say(self, images: np.ndarray, name: str) -> Said:
        found = self.probabilities(images)
        answers = [self.classes[row] for row in found.argmax(1)]
        return Said(answers, found.max(1), found[:, self.classes.index(name)])


def in_words(shifts: list[int], said: Said) -> str:
    """As "-1: 1 (99.2 %), 0: 1 (99.9 %)"."""
    rows = zip(shifts, said.answers, said.confidences)
    return ", ".join(f"{shift:+d}: {answer} ({100 * confidence:.1f} %)" for shift, answer, confidence in rows)


def shifted(images: np.ndarray, shift: int, axis: int) -> np.ndarray:
    """uint8 (N, H, W, channels) moved along an axis; what comes in is the edge again."""
    size = images.shape[axis]
    return images.take((np.arange(size) - shift).clip(0, size - 1), axis=axis)


def draw(
    shifts: list[int],
    curves: dict[str, list[float]],
    path: Path,
    average: str | None = None,
    shown: np.ndarray | None = None,
    said: dict[str, Said] | None = None,
) -> None:
    """The curves; with `said` beside them the average picture at each shift, and below it what each run says of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14 if said else 7, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2) if said else (figure, None)
    axis = left.subplots()
    for name, values in curves.items():
        axis.plot(shifts, 100 * np.array(values), marker="o", label=name)
    axis.set(xlabel="shift in pixels", ylabel="accuracy in %", title="Shifted evaluation pictures", ylim=(0, 101))
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    if said:
        draw_average(right, average, shown, said)
    figure.savefig(path, dpi=110, facecolor="white")


def draw_average(figure, average: str, shown: np.ndarray, said: dict[str, Said]) -> None:
    near = range(-(len(shown) // 2), len(shown) // 2 + 1)
    grid = figure.add_gridspec(2, len(shown), height_ratios=(1, 3))
    figure.suptitle(f"The average {average}, shifted")
    for column, picture in enumerate(shown):
        axis = figure.add_subplot(grid[0, column])
        axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255)
        axis.set_axis_off()
    axis = figure.add_subplot(grid[1, :])
    for number, (name, one) in enumerate(said.items()):
        (line,) = axis.plot(near, 100 * one.of_true, marker="o", label=name)
        for shift, answer, sure in zip(near, one.answers, one.confidences):
            height = 98 + 9 * (len(said) - number)  # a line of answers a run, above the curves
            axis.text(shift, height, f"{answer} {100 * sure:.0f} %", ha="center", color=line.get_color(), fontsize=8)
    axis.set(xlabel="shift in pixels", ylim=(-5, 108 + 9 * len(said)), yticks=range(0, 101, 20))
    axis.set_ylabel(f"probability of {average} in %; above, the answers")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
