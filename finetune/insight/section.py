"""What report.html shows of insight: a piece of HTML that the report takes as it is."""

from __future__ import annotations

from finetune.run_folder import INSIGHT_SECTION

FILE = INSIGHT_SECTION.name


def html_of(found: dict) -> str:
    """Of what insight.json holds."""
    pieces = ["<h2>Insight</h2>"]
    if found["number"]:
        pieces.append(number(found["number"]))
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
    return f"<h3>The number</h3><p>{head}: each is judged by linear heads that have not seen it.</p>{table((), rows)}"


def table(head: tuple[str, ...], rows) -> str:
    """Cells are HTML already; wide ones are scrolled sideways."""
    lines = ["<tr>" + "".join(f"<th>{cell}" for cell in head)] if head else []
    lines += ["<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
