"""All that insight says of one set of rows, in order; written to `insight/` in a run folder.

insight.json has the numbers, section.html what report.html shows of them; copies.csv and labels.csv are whole lists, of
which labels.html shows the head as pictures, as failures.html does of the wrong answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Dataset, Split
from datasets.files import write_csv, write_json, write_text
from finetune.config import Config
from finetune.evaluation.significance import read_right
from finetune.features.cache import Features
from finetune.features.looks import Looks, look
from finetune.insight import copies, section, sheet
from finetune.insight.curve import learning_curve
from finetune.insight.failures import Answers, failures, read_answers, surest
from finetune.insight.folds import cross_validate
from finetune.insight.labels import SEEDS, STIFFER, Ranked, doubtful

FOLDER = "insight"
SHOWN = 60  # pictures of a sheet
WHOSE = {"out_of_fold": "out-of-fold answers", "evaluation": "the run's answers on its evaluation pictures"}

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Rows:
    """The usable pictures of a data set: N rows in its order."""

    x: np.ndarray  # float32 (N, D)
    y: np.ndarray  # int32 (N,)
    classes: tuple[str, ...]
    names: Sequence[str]  # N, relative to the root
    paths: Sequence[Path]  # N
    keys: Sequence[bytes]  # N sha256
    parts: np.ndarray  # N of train, valid, eval
    groups: np.ndarray | None  # int (N,), see data.group_by

    def facts(self) -> list[tuple[str, str, str]]:
        """N (name, class, part)."""
        return [(name, self.classes[y], str(part)) for name, y, part in zip(self.names, self.y, self.parts)]


def rows_of(dataset: Dataset, found: Features, split: Split, groups: np.ndarray | None) -> Rows:
    rows = np.sort(np.concatenate(list(vars(split).values())))
    parts = np.empty(len(dataset), "U5")
    for part, its_rows in vars(split).items():
        parts[its_rows] = part
    names, paths, keys = zip(*((dataset.picture_name(row), dataset.paths[row], found.keys[row]) for row in rows))
    groups = None if groups is None else groups[rows]
    return Rows(found.rows[rows], dataset.labels[rows], dataset.classes, names, paths, keys, parts[rows], groups)


def study(rows: Rows, config: Config, run: Path) -> dict:
    """Write `<run>/insight/` and return what insight.json holds."""
    started = time.perf_counter()
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    found: dict = {"pictures": len(rows.y), "number": None, "labels": None, "curve": None, "failures": {}}
    settings = config.insight
    those, deal = (rows.x, rows.y, len(rows.classes)), (rows.groups, config.seed)
    judged = cross_validate(*those, config.train.l2, settings.folds, settings.seeds, *deal)
    answers = {}
    if judged is None:
        log.warning("insight: %s has one picture or group only: no folds. Add some, or leave it out", smallest(rows))
    else:
        number, probabilities = judged
        answers["out_of_fold"] = Answers(rows.names, rows.y, probabilities)
        found["number"] = {**number.to_dict(), "blocks_trained": config.model.cut is not None}
        log.info("insight: %s", number.in_words())
        if number.folds < settings.folds:
            log.warning(
                "insight: %d folds instead of %d, as %s has no more pictures or groups. Add some, or leave it out",
                *(number.folds, settings.folds, smallest(rows)),
            )
        if config.model.cut is not None:
            log.info("insight: that is of linear heads on the given backbone; blocks that were trained are not judged")
        _, probabilities = cross_validate(*those, STIFFER * config.train.l2, settings.folds, SEEDS, *deal)
        found["labels"] = look_at_labels(rows, doubtful(probabilities, rows.y), folder)
    if of_the_run := read_answers(run, rows.classes):
        answers["evaluation"] = of_the_run
    pairs = copies.proposed(rows.x, rows.keys)
    looks = look(rows.paths, pairs.rows())
    found["failures"] = look_at_failures(rows, answers, looks, folder)
    if curve := learning_curve(*those, config.train.l2, config.seed):
        found["curve"] = {**curve.to_dict(), "words": curve.in_words()}
        log.info("insight: %s", curve.in_words())
    found["copies"] = look_for_copies(rows, pairs, looks, run)
    write_json(folder / "insight.json", found)
    write_text(folder / section.FILE, section.html_of(found, dict(zip(rows.names, rows.paths))))
    log.info("insight: %.1f s", time.perf_counter() - started)
    return found


def smallest(rows: Rows) -> str:
    """The class with the fewest pictures or groups, in quotes."""
    units = np.arange(len(rows.y)) if rows.groups is None else rows.groups
    counts = [len(np.unique(units[rows.y == label])) for label in range(len(rows.classes))]
    return repr(rows.classes[int(np.argmin(counts))])


def look_for_copies(rows: Rows, pairs: copies.Proposed, looks: Looks, run: Path) -> dict:
    """copies.csv, and the accuracy of the run on the evaluation pictures that have no copy among the others."""
    found = copies.find(pairs, rows.paths, looks, rows.facts())
    (run / FOLDER / "copies.csv").unlink(missing_ok=True)
    if found:
        write_csv(run / FOLDER / "copies.csv", [copy.to_dict() for copy in found])
    leaks, two_labels = [copy for copy in found if copy.leaks], [copy for copy in found if copy.two_labels]
    without = copies.accuracy_without(found, read_right(run)) if leaks and (run / "predictions.csv").is_file() else None
    log.info("insight: %d pairs of copies, %d of them under two labels", len(found), len(two_labels))
    if leaks:
        rest = ""
        if without:
            now, before = 100 * without["accuracy"], 100 * without["accuracy_of_all"]
            rest = f"; on the {without['pictures']} pictures without a copy it is {now:.1f} % instead of {before:.1f} %"
        log.warning(
            "insight: %d pair(s) of copies lie on both sides of the split, as %s and %s: the accuracy is too high%s. "
            "--group_by duplicates keeps them on one",
            *(len(leaks), leaks[0].first, leaks[0].second, rest),
        )
    return {
        "pairs": len(found),
        "two_labels": [[copy.first, copy.second] for copy in two_labels],
        "both_sides": [[copy.first, copy.second] for copy in leaks],
        "without": without,
    }


def look_at_failures(rows: Rows, answers: dict[str, Answers], looks: Looks, folder: Path) -> dict:
    """Of out-of-fold answers and of the run's; failures.html shows the surest mistakes of the first that are there."""
    if not answers:
        return {}
    row_of = {name: row for row, name in enumerate(rows.names)}
    found = {}
    for kind, its in answers.items():
        places = np.array([row_of.get(name, -1) for name in its.names])  # -1: gone since the run
        there = {name: inside[places] for name, inside in looks.slices.items()}
        found[kind] = failures(its, there, rows.classes, known=places >= 0)
        for one in found[kind]["slices"]:
            if one["differs"]:
                log.warning("insight: %s, %s", WHOSE[kind], one["words"])
    kind, its = next(iter(answers.items()))
    pictures = [
        (rows.paths[row_of[name]], (section.mistaken(true, said, p), name))
        for name, true, said, p in surest(its, rows.classes)[:SHOWN]
        if name in row_of
    ]
    text = f"Of {WHOSE[kind]}: the class, the answer and how sure it was, the surest first. Some labels may be wrong."
    write_text(folder / "failures.html", sheet.page("Mistakes", (text, pictures)))
    log.info("insight: %d of %d answers are wrong: %s", found[kind]["wrong"], len(its.y), folder / "failures.html")
    return found


def look_at_labels(rows: Rows, ranked: Ranked, folder: Path) -> dict:
    """labels.csv ranks all pictures, the most doubtful label first; labels.html shows the first of them."""
    facts = rows.facts()
    lines = [
        {
            "path": facts[row][0],
            "label": facts[row][1],
            "fits_better": rows.classes[ranked.better[row]],
            "probability": f"{ranked.probability[row]:.4f}",
            "suspect": "yes" if ranked.suspect[row] else "no",
            "part": facts[row][2],
        }
        for row in ranked.order
    ]
    write_csv(folder / "labels.csv", lines)
    shown = [row for row in ranked.order if ranked.suspect[row]][:SHOWN]
    pictures = [
        (rows.paths[row], (f"{rows.classes[rows.y[row]]}? {rows.classes[ranked.better[row]]}", rows.names[row]))
        for row in shown
    ]
    text = "The label, the class that fits better, and the file. The whole list is labels.csv."
    write_text(folder / "labels.html", sheet.page("Labels to look at", (text, pictures)))
    count = int(ranked.suspect.sum())
    log.info("insight: %d of %d labels are worth a look: %s", count, len(lines), folder / "labels.html")
    return {"suspects": count, "first": [[line["path"], line["label"], line["fits_better"]] for line in lines[:12]]}
