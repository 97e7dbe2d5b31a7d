"""What the page says about the model: measured accuracy, confusion, and what it got wrong.

A bundle knows its accuracy from its manifest; the rest is in the run folder, where there is one.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.base import InputError
from datasets.decoding.decode import decode
from export.serving.model import Served
from export.serving.refusal import Refusal
from finetune.evaluation.calibrate import temper
from finetune.run_folder import read_json

MISTAKES = 60  # shown, the most certain first
THUMBNAIL = 320  # pixels of the longer side


class Card:
    """`facts` is what GET /card answers."""

    def __init__(self, served: Served, limits: dict):
        self.mistakes = find_mistakes(served) if served.run else []
        metrics = read_json(served.run, "metrics.json")["after"] if served.run else {}
        self.facts = {
            "name": served.manifest["name"],
            "created": served.manifest["created"],
            "classes": list(served.classes),
            "measured": served.manifest["measured"],
            "confidence": served.confidence,
            "tells_novelty": served.novelty_threshold is not None,
            "confusion": metrics.get("confusion"),  # rows: true, columns: predicted; None for a bundle
            "mistakes": served.run
            and [
                {"number": number, **{key: row[key] for key in ("true", "predicted", "confidence", "name", "there")}}
                for number, row in enumerate(self.mistakes[:MISTAKES])
            ],
            "mistakes_in_all": served.run and len(self.mistakes),
            "served_from": served.source,
            "runtime": served.runtime,
            "no_maps": served.no_maps,
            "weights": served.manifest["weights"],
            "limits": limits,
        }

    def thumbnail(self, number: int) -> bytes:
        """A small JPEG of one of the pictures it got wrong.

        Raises:
            Refusal: no such picture, or it cannot be read any more.
        """
        if not 0 <= number < len(self.mistakes[:MISTAKES]):
            raise Refusal(404, "not_found", "There is no such picture.")
        try:
            picture = decode(self.mistakes[number]["path"].read_bytes(), THUMBNAIL).picture
        except Exception as error:  # gone, or no picture any more
            raise Refusal(404, "not_found", "This picture is not where it was any more.") from error
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=85)
        return content.getvalue()


def find_mistakes(served: Served) -> list[dict]:
    """Rows of the run's predictions.csv whose prediction is wrong, the most certain first."""
    root = Path(read_json(served.run, "split.json")["root"])
    path = served.run / "predictions.csv"
    temperature = served.confidence["temperature"] if served.confidence else 1.0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            wrong = [row for row in csv.DictReader(file) if row["true"] != row["predicted"]]
        found = [
            {
                "name": row["path"],
                "path": root / row["path"],
                "true": row["true"],
                "predicted": row["predicted"],
                "confidence": certainty([float(row[f"p_{name}"]) for name in served.classes], temperature),
                "there": (root / row["path"]).is_file(),
            }
            for row in wrong
        ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error}). Evaluate the run again: python -m finetune run") from error
    return sorted(found, key=lambda row: -row["confidence"])


def certainty(probabilities: list[float], temperature: float) -> float:
    return float(temper(np.array([probabilities]), temperature).max())
