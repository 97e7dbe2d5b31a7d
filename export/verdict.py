"""Is an exported file the trained network? Judged by its answers to the evaluation pictures, and shown as a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.manifest import FOLDED, read_manifest
from finetune.metrics import mcnemar_exact

# Largest difference of a probability to the CKPT's. MindSpore runs the same arithmetic from both files;
# ONNX Runtime adds in another order.
TOLERANCE = {".mindir": 1e-5, ".onnx": 1e-4, ".ms": 1e-4}
# MindSpore computes otherwise, too, where BatchNorm is folded into the convolutions, and adds in another order where
# the batch size is fixed to another one than ours.
OTHER_ARITHMETIC_TOLERANCE = 1e-4
NOVELTY_TOLERANCE = 1e-3  # as a share of it: a small difference of large squares, which loses digits of float32
LEAST_NOVELTY = 0.1
# To what evaluation wrote, by the precision of its features: computed in another batch, perhaps by another
# engine or on another day. Exported files always compute in f32; bf16 features moved probabilities by up to 0.05.
EVALUATION_TOLERANCE = {"f32": 1e-3, "bf16": 0.15}


def agree(exported: np.ndarray, reference: np.ndarray, tolerance: float) -> bool:
    """Probabilities (N, C) of the same classes, also where two classes are all but equally likely."""
    near = bool(np.abs(exported - reference).max() <= tolerance)  # False for NaN
    return near and np.array_equal(exported.argmax(1), reference.argmax(1))


def novelty_difference(reference: np.ndarray, exported: np.ndarray) -> float:
    """The largest of novelties (N,), as a share; near 0 as one of LEAST_NOVELTY."""
    return float((np.abs(exported - reference) / np.maximum(reference, LEAST_NOVELTY)).max())


def tolerance_of(model: Path) -> float:
    """By the suffix of an exported file and by what the manifest beside it says of it."""
    facts = read_manifest(model.parent)["models"][model.name]
    if model.suffix == ".mindir" and (facts["input"]["shape"][0] != -1 or facts.get("batchnorm") == FOLDED):
        return OTHER_ARITHMETIC_TOLERANCE
    return TOLERANCE[model.suffix]


def allowed_loss_of(model: Path) -> float | None:
    """Points of accuracy; None for a file in float, which must give the same classes."""
    return read_manifest(model.parent)["models"][model.name].get("allowed_loss_points")


def judge(
    reference,
    exported,
    in_second_batch,
    evaluated,
    labels,
    unreadable: int,
    tolerance: float,
    evaluation_tolerance: float,
    allowed_loss: float | None = None,
    novelty: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict:
    """Compare probabilities (N, C) of the CKPT, an exported file and the evaluation.

    `in_second_batch` are the first pictures again, in batches of another size. A file of less precision has other
    probabilities: where points of accuracy are `allowed_loss`, only its accuracy is judged. `novelty`: (N,) by the CKPT
    and by a file that tells it.
    """
    differences = {
        "to_ckpt": float(np.abs(exported - reference).max()),
        "to_ckpt_second_batch_size": float(np.abs(in_second_batch - reference[: len(in_second_batch)]).max(initial=0)),
        "to_evaluation": float(np.abs(exported - evaluated).max()),
    }
    tolerances = {
        "to_ckpt": tolerance,
        "to_ckpt_second_batch_size": tolerance,
        "to_evaluation": evaluation_tolerance,
    }
    if novelty is not None:
        differences["novelty_to_ckpt"] = novelty_difference(*novelty)
        tolerances["novelty_to_ckpt"] = NOVELTY_TOLERANCE
    same_class = int((exported.argmax(1) == reference.argmax(1)).sum())
    right, right_exported = reference.argmax(1) == labels, exported.argmax(1) == labels
    faults = []
    if not np.isfinite(exported).all():
        faults.append("the exported model gives values that are not numbers")
    if allowed_loss is None:
        for name, limit in tolerances.items():
            if not differences[name] <= limit:
                faults.append(f"difference {name} {differences[name]:.2e} is above {limit:.0e}")
        if same_class < len(reference):
            faults.append(f"another class than the CKPT on {len(reference) - same_class} of {len(reference)} pictures")
        less = {}
    else:
        only_ckpt, only_exported = int((right & ~right_exported).sum()), int((right_exported & ~right).sum())
        loss = 100 * (only_ckpt - only_exported) / len(reference)
        if loss > allowed_loss:
            faults.append(
                f"accuracy falls by {loss:.1f} points, allowed {allowed_loss:g} (--allowed_loss): {only_ckpt} pictures "
                f"are right by the CKPT only, {only_exported} by the file only"
            )
        tolerances = {}
        less = {
            "loss": {
                "points": loss,
                "allowed_points": allowed_loss,
                "only_ckpt": only_ckpt,
                "only_exported": only_exported,
                "mcnemar_p": mcnemar_exact(only_ckpt, only_exported),
            }
        }
    return {
        "equal": not faults,
        "faults": faults,
        "pictures": len(reference),
        "unreadable": unreadable,
        "same_class": same_class,
        "largest_difference": differences,
        "tolerance": tolerances,
        "accuracy": {"ckpt": float(right.mean()), "exported": float(right_exported.mean())},
        **less,
    }


def over_all(models: dict[str, dict]) -> dict:
    """The judgements of all files as one, by the worst of each number of those in float; the single ones stay below
    `models`."""
    each = list(models.values())
    in_float = [one for one in each if "loss" not in one]
    names = each[0]["largest_difference"]
    return {
        "equal": all(one["equal"] for one in in_float),
        "faults": [f"{name}: {fault}" for name, one in models.items() for fault in one["faults"]],
        "pictures": each[0]["pictures"],
        "unreadable": each[0]["unreadable"],
        "same_class": min(one["same_class"] for one in in_float),
        "largest_difference": {
            name: float(np.max([one["largest_difference"][name] for one in in_float])) for name in names
        },
        "accuracy": {
            "ckpt": each[0]["accuracy"]["ckpt"],
            "exported": min(one["accuracy"]["exported"] for one in in_float),
        },
        "models": models,
    }


def table(found: dict, folder: Path) -> str:
    """What parity.json and the manifest in `folder` say, a line a file."""
    models = read_manifest(folder)["models"]
    times = ["ms, 1 thread", "ms, all"] if any("milliseconds" in facts for facts in models.values()) else []
    rows = [["", "same class", "largest difference", "accuracy", "size", *times]]
    rows.append(["CKPT", "", "", f"{100 * found['accuracy']['ckpt']:.2f} %"])
    for name, one in found["models"].items():
        if name not in models:
            continue
        time = models[name].get("milliseconds")
        rows.append(
            [
                name,
                f"{one['same_class']}/{one['pictures']}",
                f"{one['largest_difference']['to_ckpt']:.1e}",
                f"{100 * one['accuracy']['exported']:.2f} %",
                f"{(folder / name).stat().st_size / 1e6:.2f} MB",
                *([f"{time['one_thread']:.1f}", f"{time['all_threads']:.1f}"] if time else []),
            ]
        )
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([f"{row[0]:{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:]))]) for row in rows
    )


def left_out(found: dict) -> list[str]:
    """Files of less precision that did not get their name, and why."""
    return [f"{name}: left out: {'; '.join(one['faults'])}" for name, one in found["models"].items() if one["faults"]]


def cost_line(folder: Path) -> str:
    """What one picture costs, as the manifest in `folder` says."""
    cost = read_manifest(folder)["cost"]
    line = f"{cost['parameters']:,} parameters, {cost['multiply_adds']:,} multiply-adds a picture"
    peak = cost.get("peak_activation_bytes")
    return f"{line}, {peak / 1e6:.1f} MB of activations at most" if peak else line
