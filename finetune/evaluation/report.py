"""report.html from the files of a run folder, with its figures. No MindSpore, no window.

python -m finetune report runs/cats_vs_dogs
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from datasets.files import read_csv, write_text
from finetune.evaluation import figures
from finetune.evaluation.summary import fresh, learnt, rows_of
from finetune.run_folder import INSIGHT_SECTION, again, evaluation_pictures, read_json

SAID, SURENESS = ("true", "predicted", "before_predicted"), ("confidence", "before_confidence")  # of predictions.csv
CURVES = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")  # of results.csv


def write(run: Path) -> Path:
    """Draw all figures of a run, then the page that shows them."""
    metrics = read_json(run, "metrics.json")
    pictures = evaluation_pictures(run)
    answers = read_csv(run / "predictions.csv", dict.fromkeys(SAID, str) | dict.fromkeys(SURENESS, float), again(run))
    predictions = [{**row, "picture": one} for row, one in zip(answers, pictures)]
    history = read_csv(run / "results.csv", {"epoch": int, **dict.fromkeys(CURVES, float)}, again(run))
    names = figures.draw(run / "figures", metrics, predictions, history)
    page = run / "report.html"
    write_text(page, _page(run, metrics, names))
    return page


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


def _page(run: Path, metrics: dict, names: Sequence[str]) -> str:
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
    for name in names:
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
