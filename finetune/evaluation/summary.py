"""The numbers of a run as a table for the terminal, and what its rows are called there and in the report."""

from __future__ import annotations

ROWS = {  # of the accuracy table: key in metrics.json -> label; {} is what was trained, the head or the network
    "majority_class": "always the most frequent class",
    "nearest_class_mean": "nearest class mean",
    "before": "before: fresh {}",
    "after": "after: trained {}",
}


def summary(metrics: dict) -> str:
    lines = [f"{metrics['after']['pictures']:>5} evaluation pictures         accuracy   95 % interval"]
    for key, label in ROWS.items():
        low, high = (100 * bound for bound in metrics[key]["interval"])
        lines.append(
            f"{label.format(trained(metrics)):32} {100 * metrics[key]['accuracy']:7.1f} %   {low:.1f} to {high:.1f} %"
        )
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in metrics["seconds"].items())
    return "\n".join(["", *lines, "", f"seconds: {phases}"])


def trained(metrics: dict) -> str:
    """What was trained: the head on a backbone, or the network."""
    return metrics.get("trained", "head")
