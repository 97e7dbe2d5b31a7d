"""Which pictures to look at, and to label next, of a folder without labels.

python -m finetune insight runs/cats_vs_dogs --unlabelled new_pictures

The least sure answer comes first. What is unlike the training pictures is a list of its own, for another question:
whether it belongs here at all. Labelled first, the most novel pictures taught a head less than pictures at random
(`python -m benchmarks.insight.unlabelled`).
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import write_csv, write_text
from datasets.listing import Listing, passed_over_lines
from finetune.config import Config
from finetune.device import Device
from finetune.evaluation.calibrate import temper
from finetune.features.cache import extract
from finetune.features.engines.choose import choose_engine
from finetune.insight import sheet
from finetune.insight.novelty import THRESHOLD, Novelty, columns, load_novelty
from finetune.run_folder import read_json
from finetune.trained import load_trained
from finetune.training.predictor import Predictor

NAME = "unlabelled"  # .csv and .html, in insight/ of the run folder
SHOWN = 48  # pictures of each sheet

log = logging.getLogger("finetune")


def show(run: Path, folder: Path, config: Config, device: Device) -> int:
    """Write unlabelled.csv, all pictures, and unlabelled.html, the heads of both lists. Returns how many pictures were
    left out.

    Raises:
        InputError: no finished run on a backbone, no such folder, or no picture in it that can be read.
    """
    if not folder.is_dir():
        raise InputError(f"--unlabelled {folder}: no such folder. Give a folder of pictures; subfolders are searched.")
    fitted = read_json(run, "metrics.json").get("confidence")
    trained = load_trained(run)
    if trained.backbone is None:
        raise InputError(f"{run}: trained from scratch. --unlabelled wants a run on a backbone.")
    listing = Listing(folder)
    paths = listing.pictures(folder)
    for line in passed_over_lines(listing.counted(), folder):
        log.info(line)
    engine = choose_engine(trained.backbone, device, config)
    found = extract(paths, trained.backbone, engine, config.cache_dir, device.threads) if paths else None
    if found is None or not found.readable.any():
        raise InputError(f"--unlabelled {folder}: none of the {len(paths)} pictures below it can be read.")
    for path, reason in found.damaged.items():
        log.warning("left out: %s: %s", path, reason)
    x, paths = found.rows[found.readable], [path for path, good in zip(paths, found.readable) if good]
    probabilities = temper(Predictor(trained.head)(x), fitted["temperature"] if fitted else 1.0)
    lines = ranked([str(path) for path in paths], trained.classes, probabilities, load_novelty(run), x)
    place = run / "insight"
    place.mkdir(exist_ok=True)
    write_csv(place / f"{NAME}.csv", lines)
    write_text(place / f"{NAME}.html", page_of(lines, folder))
    unlike = sum(line.get("unlike") == "yes" for line in lines)
    said = f"{unlike} of them unlike the training pictures"
    if "unlike" not in lines[0]:
        said = "whether they are unlike the training pictures is not known of this run"
    log.info("unlabelled: %d pictures, %s", len(lines), said)
    log.info("unlabelled: %s", place / f"{NAME}.html")
    return len(found.damaged)


def ranked(
    names: list[str], classes: tuple[str, ...], probabilities: np.ndarray, novelty: Novelty | None, x: np.ndarray
) -> list[dict]:
    """A line a picture of probabilities (N, C) and features x (N, D), the least sure first; without `novelty` its
    columns are lacking."""
    confidence = probabilities.max(1)
    order = np.argsort(confidence, kind="stable")
    lines = []
    for place, row in enumerate(order, 1):
        said = {"predicted": classes[probabilities[row].argmax()], "confidence": f"{confidence[row]:.6f}"}
        lines.append({"path": names[row], "rank": place, **said})
    if novelty is None:
        return lines
    distances = novelty(x)[order]
    novelty_rank = np.empty(len(order), int)
    novelty_rank[np.argsort(-distances, kind="stable")] = np.arange(1, len(order) + 1)
    for line, distance, place in zip(lines, distances, novelty_rank.tolist()):
        line |= {**columns(distance, THRESHOLD), "novelty_rank": place}
    return lines


def page_of(lines: list[dict], folder: Path) -> str:
    def pictures(some: list[dict]) -> list[tuple[Path, tuple[str, ...]]]:
        found = []
        for line in some[:SHOWN]:
            words = f"{line['predicted']}? {100 * float(line['confidence']):.0f} %"
            words += ", unlike" if line.get("unlike") == "yes" else ""
            found.append((Path(line["path"]), (words, Path(line["path"]).relative_to(folder).as_posix())))
        return found

    sections = [("The least sure answers first.", pictures(lines))]
    unlike = sorted((line for line in lines if line.get("unlike") == "yes"), key=lambda line: line["novelty_rank"])
    if unlike:
        text = f"Unlike the training pictures, the farthest first ({len(unlike)}): do they belong here?"
        sections.append((text, pictures(unlike)))
    return sheet.page("Pictures without labels", *sections)
