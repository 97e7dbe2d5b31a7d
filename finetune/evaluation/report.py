"""Figures and report.html from the files of a run folder. No MindSpore, no window.

python -m finetune report runs/cats_vs_dogs
"""

from __future__ import annotations

import base64
import contextlib
import html
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
from datasets.files import read_csv, replace_file, write_text
from finetune.evaluation.summary import fresh, learnt, rows_of
from finetune.run_folder import INSIGHT_SECTION, again, evaluation_pictures, read_json

GRID_PICTURES = 8
GRID_SEED = 0
SAID, SURENESS = ("true", "predicted", "before_predicted"), ("confidence", "before_confidence")  # of predictions.csv
CURVES = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")  # of results.csv
GREEN, RED, BLUE, GREY = "#1a7f37", "#cf222e", "#0969da", "#6e7781"

# Class names may be Chinese: the first of these that is installed draws what DejaVu Sans lacks.
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB",
             "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "Arial Unicode MS")  # fmt: skip


def write(run: Path) -> Path:
    """Draw all figures of a run, then the page that shows them."""
    metrics = read_json(run, "metrics.json")
    pictures = evaluation_pictures(run)
    answers = read_csv(run / "predictions.csv", dict.fromkeys(SAID, str) | dict.fromkeys(SURENESS, float), again(run))
    predictions = [{**row, "picture": one} for row, one in zip(answers, pictures)]
    history = read_csv(run / "results.csv", {"epoch": int, **dict.fromkeys(CURVES, float)}, again(run))
    (run / "figures").mkdir(exist_ok=True)
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
        (run / "figures" / "curves.png").unlink(missing_ok=True)
        if not metrics.get("head") or "linear_head" in metrics:  # a head that was solved for has no curve
            figures["curves"] = draw_curves(history, metrics["best_epoch"])
        figures["confusion"] = draw_confusion(np.array(metrics["after"]["confusion"]), list(names.values()))
        wrong = [row for row in predictions if row["predicted"] != row["true"]]
        if wrong:
            figures["mistakes"] = draw_mistakes(wrong, names)
        for name, figure in figures.items():
            save(figure, run / "figures" / f"{name}.png")
    page = run / "report.html"
    write_text(page, _page(run, metrics, list(figures)))
    return page


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


STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, "Noto Sans SC", sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } .quiet { opacity: .7; margin-top: 0; }
.numbers { display: flex; gap: 3rem; flex-wrap: wrap; margin: 1.5rem 0; }
.numbers b { font-size: 2.4rem; display: block; line-height: 1.1; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .3rem .9rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid #8884; }
td:first-child, li, .name { overflow-wrap: anywhere; } td:first-child { min-width: 6.5rem; }
.name { display: inline-block; min-width: 5rem; }
@media (max-width: 30rem) {
  th, td { padding: .3rem .25rem; font-size: .85rem; } td:first-child { min-width: 5rem; }
}
.scroll { overflow-x: auto; } img { max-width: 100%; background: white; border-radius: 6px; }
img.row { min-width: 48rem; }
"""

LINES = 50  # of a list
CAPTIONS = {
    "before_after": "The same evaluation pictures before and after",
    "curves": "Training",
    "confusion": "What is taken for what",
    "mistakes": "What it got wrong",
}


def _page(run: Path, metrics: dict, figures: Sequence[str]) -> str:
    """One file with everything in it, so that it can be mailed."""
    before, after = metrics["before"], metrics["after"]
    low, high = (100 * bound for bound in after["interval"])
    sections = [f"<h1>{html.escape(run.resolve().name)}</h1>"]
    sections.append(f'<p class="quiet">{after["pictures"]} evaluation pictures, {len(metrics["classes"])} classes</p>')
    sections += [f'<p class="quiet">{line}</p>' for line in _chosen(metrics)]
    numbers = [("before", before, fresh(metrics))]
    if "linear_head" in metrics:
        chance = f"McNemar's test between the last two: p = {metrics['mcnemar_p']:.2g}"
        numbers.append(("linear head", metrics["linear_head"], chance))
    numbers.append(("after", after, f"{learnt(metrics)}, 95 % interval {low:.1f} to {high:.1f} %"))
    columns = "".join(f"<div>{name}<b>{100 * one['accuracy']:.1f} %</b>{what}</div>" for name, one, what in numbers)
    sections.append(f'<div class="numbers">{columns}</div>')
    for name in figures:
        data = base64.b64encode((run / "figures" / f"{name}.png").read_bytes()).decode("ascii")
        caption = CAPTIONS[name]
        kind = "square" if name == "confusion" else "row"  # a row is scrolled sideways on a narrow screen
        image = f'<img class="{kind}" alt="{caption}" src="data:image/png;base64,{data}">'
        sections.append(f'<h2>{caption}</h2><div class="scroll">{image}</div>')
    sections.append(_accuracy_table(metrics) + _class_table(after))
    if (run / INSIGHT_SECTION).is_file():
        sections.append((run / INSIGHT_SECTION).read_text(encoding="utf-8"))
    sections += [_list(title, lines) for title, lines in _findings(metrics).items() if lines]
    title = html.escape(f"{run.resolve().name}: {100 * after['accuracy']:.1f} %")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><body>{''.join(sections)}</body></html>\n"
    )


FITS = {  # data.fit
    "crop": "the middle of each picture",
    "whole": "all of each picture, squashed into it",
    "letterbox": "all of each picture, in its own shape, with a margin",
}


def _chosen(metrics: dict) -> list[str]:
    """What was trained, where it is not what a run does unasked. Runs of earlier versions say less."""
    lines, head, image = [], metrics.get("head"), metrics.get("image")
    if head:
        found = "there was nothing to choose by"
        if head["accuracy"] is not None:
            found = (
                f"chosen by cross-validation on the training pictures, {100 * head['accuracy']:.1f} % right out of fold"
            )
        what = "Head that the blocks' training began with" if "linear_head" in metrics else "Head"
        lines.append(f"{what}: {head['kind']}, strength {head['strength']:g}; {found}")
    if image:
        height, width = image["size"]
        lines.append(f"The network sees {width} x {height} pixels: {FITS[image['fit']]}")
    if metrics.get("mirror_mean"):
        lines.append("Features are the mean of those of a picture and of its mirror image")
    if metrics.get("beside_last"):
        blocks = ", ".join(f"block_{number}" for number in metrics["beside_last"])
        lines.append(f"The head also sees the pooled maps of {blocks}")
    return lines


def _findings(metrics: dict) -> dict[str, list[str]]:
    """What there is to say of the pictures: heading -> lines. Runs of earlier versions know the damaged ones only."""
    return {
        "Damaged pictures, left out": [f"{path}: {why}" for path, why in metrics["damaged"].items()],
        "Passed over": [
            f"{place}: {', '.join(f'{count} {what}' for what, count in counts.items())}"
            for place, counts in metrics.get("passed_over", {}).items()
        ],
        "Odd pictures": [
            f"{name}: {count} pictures show {tone}"
            for name, tones in metrics.get("tones", {}).items()
            for tone, count in tones.items()
        ],
        "One picture under two labels": [" and ".join(pair) for pair in metrics.get("two_labels", [])],
        "Evaluation pictures that also train": [" is also ".join(pair[::-1]) for pair in metrics.get("both_parts", [])],
    }


def _list(title: str, lines: list[str]) -> str:
    shown = [*lines[:LINES], f"... and {len(lines) - LINES} more: metrics.json"] if len(lines) > LINES else lines
    return f"<h2>{title}</h2><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in shown)}</ul>"


def _accuracy_table(metrics: dict) -> str:
    rows = "".join(
        f"<tr><td>{label}<td>{100 * metrics[key]['accuracy']:.1f} %"
        f"<td>{100 * metrics[key]['interval'][0]:.1f} to {100 * metrics[key]['interval'][1]:.1f} %"
        for key, label in rows_of(metrics).items()
    )
    return f"<h2>Accuracy</h2><table><tr><th><th>accuracy<th>95 % interval{rows}</table>"


def _class_table(after: dict) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{found['pictures']}"
        + "".join(f"<td>{100 * found[key]:.1f} %" for key in ("precision", "recall", "f1"))
        for name, found in after["per_class"].items()
    )
    head = "<tr><th>class<th>pictures<th>precision<th>recall<th>F1"
    return f'<h2>Classes</h2><div class="scroll"><table>{head}{rows}</table></div>'
