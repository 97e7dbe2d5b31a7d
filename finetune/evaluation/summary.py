"""The numbers of a run as a table for the terminal, and what its rows are called there and in the report."""

from __future__ import annotations

ROWS = {  # of the accuracy table: key in metrics.json -> label
    "majority_class": "always the most frequent class",
    "nearest_class_mean": "nearest class mean",
    "before": "before: {fresh}",
    "linear_head": "linear head",
    "after": "after: {learnt}",
}


def summary(metrics: dict) -> str:
    lines = [f"{metrics['after']['pictures']:>5} evaluation pictures         accuracy   95 % interval"]
    for key, label in rows_of(metrics).items():
        low, high = (100 * bound for bound in metrics[key]["interval"])
        lines.append(f"{label:32} {100 * metrics[key]['accuracy']:7.1f} %   {low:.1f} to {high:.1f} %")
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in metrics["seconds"].items())
    return "\n".join(["", *lines, "", f"seconds: {phases}"])


def no_better_than(metrics: dict) -> str | None:
    """A warning where training has bought nothing; None where it has, or where the means of the classes are as good
    within the interval: good features leave little to learn."""
    after, majority, nearest = (metrics[key] for key in ("after", "majority_class", "nearest_class_mean"))
    good = after["accuracy"] > majority["accuracy"] and nearest["accuracy"] <= after["interval"][1]
    if good or after["accuracy"] == 1:
        return None
    best = max(("majority_class", "nearest_class_mean"), key=lambda key: metrics[key]["accuracy"])
    reached = f"{ROWS[best]} ({100 * metrics[best]['accuracy']:.1f} %)"
    settings = "train.tail" if "linear_head" in metrics else "train"
    remedy = (
        f"Look at figures/curves.png: where the loss jumps or rises, lower {settings}.learning_rate; where it still "
        f"falls, raise {settings}.epochs; and look whether the labels are right."
    )
    if metrics.get("head") and "linear_head" not in metrics:  # solved for: there is no rate and no epoch
        remedy = "Look whether the labels are right, and whether more pictures would help: python -m finetune insight."
    return f"warning: the {learnt(metrics)} is not better than {reached}. {remedy}"


def rows_of(metrics: dict) -> dict[str, str]:
    """Key in metrics.json -> label, of the rows that this run has."""
    words = {"fresh": fresh(metrics), "learnt": learnt(metrics)}
    return {key: label.format(**words) for key, label in ROWS.items() if key in metrics}


def fresh(metrics: dict) -> str:
    """What "before" is of: the head on a backbone, or the network."""
    return f"fresh {metrics.get('trained', 'head')}"


def learnt(metrics: dict) -> str:
    """What "after" is of."""
    return "fine-tuned network" if "linear_head" in metrics else f"trained {metrics.get('trained', 'head')}"
