"""What report.html shows of insight: a piece of HTML that the report takes as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path

from finetune.features.looks import SLICES
from finetune.insight import sheet
from finetune.run_folder import INSIGHT_SECTION

FILE = INSIGHT_SECTION.name
LINES = 20  # of a list
TITLES = {"out_of_fold": "out of fold", "evaluation": "evaluation pictures"}


def html_of(found: dict, paths: Mapping[str, Path]) -> str:
    """Of what insight.json holds; `paths` are where the pictures lie, by name."""
    pieces = [f"<style>{sheet.STYLE}</style><h2>Insight</h2>"]
    if found["number"]:
        pieces.append(number(found["number"]))
    for kind, its in found["failures"].items():
        pieces.append(failures(kind, its, paths))
    if found["labels"]:
        pieces.append(labels(found["labels"], paths))
    if found["curve"]:
        pieces.append(curve(found["curve"]))
    pieces.append(copies(found["copies"]))
    return "".join(pieces)


def number(found: dict) -> str:
    folds = found["fold_accuracies"]
    low, high = found["interval"]
    rows = (
        ("accuracy", percent(found["accuracy"])),
        ("95 % interval", f"{percent(low)} to {percent(high)}"),
        ("single folds", f"{percent(min(folds))} to {percent(max(folds))}"),
        ("nearest class mean", percent(found["nearest_class_mean"])),
        ("most frequent class", percent(found["majority_class"])),
    )
    head = f"{found['folds']} folds x {found['seeds']} seeds, {found['pictures']} pictures"
    on = ", on the given backbone: what was trained of it is not judged" if found.get("blocks_trained") else ""
    return f"<h3>The number</h3><p>{head}: each is judged by linear heads that have not seen it{on}.</p>{table(rows)}"


def failures(kind: str, found: dict, paths: Mapping[str, Path]) -> str:
    """By class only out of fold: of the evaluation pictures the report has that table."""
    by = ", by the mean of all seeds' probabilities" if kind == "out_of_fold" else ""
    pieces = [f"<h3>Where it fails, {TITLES[kind]}</h3><p>{found['wrong']} of {found['pictures']} are wrong{by}.</p>"]
    if kind == "out_of_fold":
        rows = [
            (html.escape(name), str(its["pictures"]), *(percent(its[key]) for key in ("precision", "recall", "f1")))
            for name, its in found["per_class"].items()
        ]
        pieces.append(table(rows, ("class", "pictures", "precision", "recall", "F1")))
    if found["confused"]:
        rows, examples = [], []
        for pair in found["confused"]:
            true, said = pair["true"], pair["predicted"]
            other = f'<span class="name">{html.escape(said)}</span>'
            rows.append((html.escape(true), other, str(pair["pictures"]), percent(pair["share"])))
            examples += [(paths[name], (mistaken(true, said), name)) for name in pair["examples"] if name in paths]
        head = ("class", "taken for", "pictures", "of its class")
        pieces.append(f"<h4>Confused most often</h4>{table(rows, head)}{sheet.sheet(examples)}")
    if found["slices"]:
        rows = [slice_row(its) for its in found["slices"]]
        head = ("pictures that are", "", "how many", "accuracy", "95 % interval", "the rest", "differs")
        pieces.append(f"<h4>Slices that nobody labelled</h4>{table(rows, head)}")
    if kind == "out_of_fold" and found["surest"]:
        shown = ((paths[name], (mistaken(true, said, p), name)) for name, true, said, p in found["surest"])
        pieces.append(f"<h4>The surest mistakes</h4><p>failures.html has more.</p>{sheet.sheet(shown)}")
    return "".join(pieces)


def slice_row(its: dict) -> tuple[str, ...]:
    low, high = map(percent, its["interval"])
    verdict = "no more than chance"
    if its["differs"]:
        verdict = f"<b>{'worse' if its['accuracy'] < its['rest'] else 'better'}, more than chance</b>"
    figures = (str(its["pictures"]), percent(its["accuracy"]), f"{low} to {high}", percent(its["rest"]))
    return its["name"], SLICES[its["name"]], *figures, verdict


def mistaken(true: str, said: str, p: float | None = None) -> str:
    return f"{true}, taken for {said}" + ("" if p is None else f", {100 * p:.0f} %")


def labels(found: dict, paths: Mapping[str, Path]) -> str:
    text = f"{found['suspects']} labels are worth a look; labels.csv ranks all of them, for --exclude."
    if not found["suspects"]:
        return f"<h3>Labels</h3><p>{text}</p>"
    shown = found["first"][: found["suspects"]]
    pictures = ((paths[name], (f"{label}? {better}", name)) for name, label, better in shown)
    return f"<h3>Labels</h3><p>{text}</p>{sheet.sheet(pictures)}"


def curve(found: dict) -> str:
    sizes, accuracies = found["sizes"], found["accuracies"]
    rows = [(str(size), percent(accuracy)) for size, accuracy in zip(sizes, accuracies)]
    words = found["words"]
    return (
        f"<h3>More pictures?</h3><p>{words[0].upper()}{words[1:]}.</p>{table(rows, ('training pictures', 'accuracy'))}"
    )


def copies(found: dict) -> str:
    where = "; copies.csv has them" if found["pairs"] else ""
    pieces = [f"<h3>Copies</h3><p>{found['pairs']} pairs of exact or near copies{where}.</p>"]
    if found["without"]:
        rest = found["without"]
        pieces.append(
            f"<p>On the {rest['pictures']} evaluation pictures without a copy elsewhere the accuracy is "
            f"{percent(rest['accuracy'])} instead of {percent(rest['accuracy_of_all'])}.</p>"
        )
    for title, pairs in (
        ("Under two labels", found["two_labels"]),
        ("On both sides of the split", found["both_sides"]),
    ):
        if pairs:
            lines = [" and ".join(pair) for pair in pairs[:LINES]]
            lines += [f"... and {len(pairs) - LINES} more"] if len(pairs) > LINES else []
            pieces.append(f"<h4>{title}</h4><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>")
    return "".join(pieces)


def table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    """Cells are HTML already; a wide table is scrolled sideways."""
    lines = ["<tr>" + "".join(f"<th>{cell}" for cell in head)] if head else []
    lines += ["<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
