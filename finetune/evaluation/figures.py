"""The figures of a run, as PNG files in its folder. No window."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from datasets.decoding.decode import decode
from datasets.decoding.formats import DamagedPicture
from datasets.decoding.values import to_rgb
from datasets.files import replace_file
from finetune.evaluation.summary import fresh, learnt

GRID_PICTURES = 8
GRID_SEED = 0
GREEN, RED, BLUE, GREY = "#1a7f37", "#cf222e", "#0969da", "#6e7781"

# Class names may be Chinese: the first of these that is installed draws what DejaVu Sans lacks.
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB",
             "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "Arial Unicode MS")  # fmt: skip


def draw(folder: Path, metrics: dict, predictions: Sequence[dict], history: Sequence[dict]) -> list[str]:
    """Write all figures that a run has, and return their names in the order of the report.

    Args:
        predictions: rows of predictions.csv, each with its `picture`, a file or uint8 (H, W, channels).
        history: rows of results.csv.
    """
    folder.mkdir(exist_ok=True)
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *[name for name in CJK_FONTS if name in installed][:1]]
    with (
        matplotlib.rc_context(
            {
                "font.family": fonts,
                "font.size": 10,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "text.parse_math": False,  # a class may be called A$$AP
            }
        ),
        one_line_of_missing_letters(),
    ):
        names = short_names(metrics["classes"])
        figures = {"before_after": draw_before_after(predictions, metrics, names)}
        (folder / "curves.png").unlink(missing_ok=True)
        if not metrics.get("head") or "linear_head" in metrics:  # a head that was solved for has no curve
            figures["curves"] = draw_curves(history, metrics["best_epoch"])
        figures["confusion"] = draw_confusion(np.array(metrics["after"]["confusion"]), list(names.values()))
        wrong = [row for row in predictions if row["predicted"] != row["true"]]
        if wrong:
            figures["mistakes"] = draw_mistakes(wrong, names)
        for name, figure in figures.items():
            save(figure, folder / f"{name}.png")
    return list(figures)


def save(figure: Figure, path: Path) -> None:
    compression = {"compress_level": 1}  # photographs: 11 % larger than by 6, in half the time
    settings = {"dpi": 110, "bbox_inches": "tight", "facecolor": "white", "pil_kwargs": compression}
    replace_file(path, lambda file: figure.savefig(file, format="png", **settings))


@contextlib.contextmanager
def one_line_of_missing_letters() -> Iterator[None]:
    """Matplotlib warns of each letter that no font has; one sentence is enough. Other warnings pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = {str(one.message) for one in caught if str(one.message).startswith("Glyph ")}
    if missing:
        print(f"figures: no installed font has {len(missing)} letters of the class names: boxes.", file=sys.stderr)
    for one in caught:
        if str(one.message) not in missing:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def draw_before_after(predictions: Sequence[dict], metrics: dict, names: dict[str, str]) -> Figure:
    """The same seeded evaluation pictures twice: above as the fresh head sees them, below the trained one."""
    count = min(GRID_PICTURES, len(predictions))
    chosen = np.random.default_rng(GRID_SEED).permutation(len(predictions))[:count]
    rows = [predictions[i] for i in sorted(chosen)]
    figure = Figure(figsize=(2.2 * count, 6.6), layout="constrained")
    panels = figure.subfigures(2, 1)
    for panel, title, key, prefix in (
        (panels[0], f"Before: {fresh(metrics)}", "before", "before_"),
        (panels[1], f"After: {learnt(metrics)}", "after", ""),
    ):
        accuracy = 100 * metrics[key]["accuracy"]
        panel.suptitle(f"{title}, {accuracy:.1f} % of {metrics[key]['pictures']} right", fontsize=18, fontweight="bold")
        for axis, row in zip(panel.subplots(1, count, squeeze=False).ravel(), rows):
            draw_picture(axis, row, prefix, names)
    return figure


def draw_mistakes(wrong: Sequence[dict], names: dict[str, str]) -> Figure:
    """The wrong answers of the trained head, the surest first."""
    shown = sorted(wrong, key=lambda row: -float(row["confidence"]))[:GRID_PICTURES]
    figure = Figure(figsize=(max(2.2 * len(shown), 4), 3.3), layout="constrained")
    figure.suptitle(f"{len(shown)} of {len(wrong)} wrong answers, the surest first", fontsize=18, fontweight="bold")
    for axis, row in zip(figure.subplots(1, len(shown), squeeze=False).ravel(), shown):
        draw_picture(axis, row, "", names)
    return figure


def draw_picture(axis, row: dict, prefix: str, names: dict[str, str]) -> None:
    """One picture with a green or red frame; below it what was said, how surely, and what is true."""
    predicted, confidence = row[f"{prefix}predicted"], row[f"{prefix}confidence"]
    colour = GREEN if predicted == row["true"] else RED
    axis.imshow(_square(row["picture"]))
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=4)
    said = f"{names[predicted]} {100 * confidence:.0f} %"
    axis.set_xlabel(f"{said}\ntrue: {names[row['true']]}", color=colour, fontsize=14)


def draw_curves(history: Sequence[dict], best_epoch: int) -> Figure:
    """Loss and accuracy against epochs, with the epoch whose weights were kept."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 3.6))
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        for part, label, colour in (("train", "training", BLUE), ("valid", "validation", "#bc4c00")):
            values = np.array([row[f"{part}_{name}"] for row in history])
            if np.isfinite(values).any():
                axis.plot(epochs, values, color=colour, label=label, marker="o", markersize=3)
        axis.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        axis.set(xlabel="epoch", ylabel=name, title=name.capitalize())
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
    figure.tight_layout()
    return figure


def draw_confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """counts (C, C), rows are the true classes; the colour is the share of the row."""
    size = max(3.6, 0.55 * len(classes) + 1.8)
    figure = Figure(figsize=(size + 0.8, size))
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes))
    turned = {"rotation": 45, "ha": "right"} if len(classes) > 3 else {}
    axis.set_xticks(ticks, classes, **turned)
    axis.set_yticks(ticks, classes)
    axis.set(xlabel="predicted", ylabel="true", title="Confusion, evaluation pictures")
    if len(classes) <= 30:
        for i in ticks:
            for j in ticks:
                if counts[i, j]:
                    colour = "white" if shares[i, j] > 0.5 else "black"
                    axis.text(j, i, counts[i, j], ha="center", va="center", color=colour)
    figure.colorbar(image, label="share of the true class", fraction=0.046, pad=0.04)
    return figure


def _square(source: Path | np.ndarray, side: int = 220) -> np.ndarray:
    """A small square view of a picture; grey where the file has gone since."""
    try:
        if isinstance(source, np.ndarray):
            picture = to_rgb(Image.fromarray(source.squeeze(-1) if source.shape[-1] == 1 else source))
        else:
            picture = decode(source.read_bytes(), side).picture
    except (OSError, DamagedPicture):
        return np.full((side, side, 3), 200, np.uint8)
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    box = (left, top, left + short, top + short)
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, box=box))


def short_names(classes: Sequence[str], letters: int = 18) -> dict[str, str]:
    """Class name -> what stands in a figure: the middle of a long one is left out, and no two become alike."""
    plain = [" ".join(name.replace("_", " ").split()) or name for name in classes]
    if len(set(plain)) < len(plain):
        plain = list(classes)
    while True:
        head = letters // 2
        short = [name if len(name) <= letters else f"{name[:head]}…{name[head + 1 - letters :]}" for name in plain]
        if len(set(short)) == len(short) or letters > max(map(len, plain)):
            return dict(zip(classes, short))
        letters += 4
