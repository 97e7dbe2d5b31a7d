"""Where answers fail: by class, by pair of classes, and on slices of pictures that nobody labelled.

The same of out-of-fold answers, which are many, and of a finished run's own on its evaluation pictures. A slice is
compared with the rest by Fisher's exact test, and said to differ where p is below CHANCE divided by the number of
slices that are looked at, of each kind of answers (Bonferroni): else one of six would be named for nothing in every
fourth report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import read_csv
from finetune.evaluation.significance import CHANCE
from finetune.metrics import fisher_exact, summarise, wilson_interval
from finetune.run_folder import again, read_json

LEAST = 10  # pictures of a slice that is shown, and of what it is compared with
PAIRS, EXAMPLES = 5, 3  # of the classes that are confused most often, and pictures of each
FIRST = 12  # of the surest wrong answers, in insight.json and the report


@dataclass(frozen=True)
class Answers:
    """Of N pictures, by something that has not seen them."""

    names: Sequence[str]  # N
    y: np.ndarray  # int (N,)
    probabilities: np.ndarray  # float (N, C)

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(1)

    def wrong(self) -> np.ndarray:
        """The rows of the wrong answers, the surest first."""
        rows = np.flatnonzero(self.predicted != self.y)
        return rows[np.argsort(-self.probabilities[rows].max(1), kind="stable")]


@dataclass(frozen=True)
class Slice:
    name: str
    pictures: int
    accuracy: float  # 0..1
    interval: tuple[float, float]  # 95 %, Wilson's
    rest: float  # accuracy on all others
    p: float  # Fisher's, alone
    differs: bool  # by more than chance, all slices considered

    to_dict = asdict

    def in_words(self) -> str:
        low, high = (100 * bound for bound in self.interval)
        verdict = "no more than chance may bring"
        if self.differs:
            verdict = f"{'worse' if self.accuracy < self.rest else 'better'} by more than chance"
        return (
            f"{self.name}: {100 * self.accuracy:.1f} % of {self.pictures} pictures ({low:.1f} to {high:.1f} %), the "
            f"rest {100 * self.rest:.1f} %; {verdict}"
        )


def read_answers(run: Path, classes: Sequence[str]) -> Answers | None:
    """Those of a finished run on its evaluation pictures; None where there are none, or classes came or went since.

    Raises:
        InputError: predictions.csv is damaged.
    """
    if not (run / "predictions.csv").is_file() or read_json(run, "split.json")["classes"] != list(classes):
        return None
    columns = {"path": str, "true": str, **{f"p_{name}": float for name in classes}}
    rows = read_csv(run / "predictions.csv", columns, again(run))
    if unknown := {row["true"] for row in rows} - set(classes):
        place = run / "predictions.csv"
        raise InputError(f"{place}: names a class {unknown.pop()!r} that the run does not have. {again(run)}")
    y = np.array([classes.index(row["true"]) for row in rows])
    return Answers([row["path"] for row in rows], y, np.array([[row[f"p_{name}"] for name in classes] for row in rows]))


def failures(
    answers: Answers, slices: Mapping[str, np.ndarray], classes: Sequence[str], known: np.ndarray | None = None
) -> dict:
    """For insight.json. `slices`: bool (N,) each, of the pictures that are `known`, bool (N,); the others are gone."""
    found = summarise(answers.probabilities, answers.y, tuple(classes))
    right = answers.predicted == answers.y
    known = np.ones(len(right), bool) if known is None else known
    slices = {name: there[known] for name, there in slices.items()}
    return {
        "pictures": len(right),
        "accuracy": found["accuracy"],
        "interval": found["interval"],
        "per_class": found["per_class"],
        "confused": confused(answers, classes),
        "slices": [{**one.to_dict(), "words": one.in_words()} for one in compared(right[known], slices)],
        "wrong": int((~right).sum()),
        "surest": surest(answers, classes)[:FIRST],
    }


def confused(answers: Answers, classes: Sequence[str]) -> list[dict]:
    """The pairs of classes of which one is most often taken for the other, with the surest such pictures."""
    rows_of: dict[tuple[int, int], list[int]] = {}
    for row in answers.wrong():
        rows_of.setdefault((int(answers.y[row]), int(answers.predicted[row])), []).append(row)
    most = sorted(rows_of.items(), key=lambda item: -len(item[1]))[:PAIRS]
    return [
        {
            "true": classes[true],
            "predicted": classes[predicted],
            "pictures": len(rows),
            "share": len(rows) / int((answers.y == true).sum()),  # of those of the true class
            "examples": [answers.names[row] for row in rows[:EXAMPLES]],
        }
        for (true, predicted), rows in most
    ]


def compared(right: np.ndarray, slices: Mapping[str, np.ndarray]) -> list[Slice]:
    """Each slice that is large enough, and whose rest is, with that rest; the worst first."""
    large = {name: there for name, there in slices.items() if min(there.sum(), (~there).sum()) >= LEAST}
    found = []
    for name, there in large.items():
        inside, outside = right[there], right[~there]
        hits, count = int(inside.sum()), len(inside)
        p = fisher_exact(hits, count, int(outside.sum()), len(outside))
        interval = tuple(wilson_interval(hits, count))
        differs = p < CHANCE / len(large)
        found.append(Slice(name, count, hits / count, interval, float(outside.mean()), p, differs))
    return sorted(found, key=lambda one: one.accuracy)


def surest(answers: Answers, classes: Sequence[str]) -> list[tuple[str, str, str, float]]:
    """(name, true class, predicted class, confidence) of the wrong answers, the surest first."""
    p, said = answers.probabilities.max(1), answers.predicted
    return [
        (answers.names[row], classes[answers.y[row]], classes[said[row]], round(float(p[row]), 4))
        for row in answers.wrong()
    ]
