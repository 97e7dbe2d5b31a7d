"""The embedded sample set: cats and dogs, drawn; no download, the same bytes every time.

    python -m datasets draw FOLDER --per_class 200 --seed 0

Every picture is decided by (kind, seed, index). The kind only sets the odds of the cues in the table
below, and every option can occur in both kinds, so only the combination tells a cat from a dog.
`drawn_animal.py` draws an animal from its cues, with the canvas and camera of `drawn_brush.py`.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image
from tqdm import tqdm

from datasets.base import InputError
from datasets.drawn.animal import draw_animal
from datasets.files import one_at_a_time, write_text

VERSION = 2  # raise it when the same arguments draw other pictures
KINDS = ("cat", "dog")
MARK = "drawn.json"  # written last
SIGNATURE = b"drawn by datasets.drawn"  # how the JPEG comment of each of our pictures begins
LOCK = ".drawn.lock"
NOT_PICTURES = (MARK, "drawn.*.part", "features/*.npy", ".*", "Thumbs.db", "desktop.ini")  # may lie beside them

MOST_WORKERS = 8
WORTH_A_WORKER = 50  # pictures: a second of drawing, far longer than a process takes to start

# fmt: off
CUES = {  # cue: {option: (percent of the cats, percent of the dogs)}
    "head": {"round": (38, 20), "wide": (34, 8), "wedge": (20, 16), "long": (4, 30), "square": (4, 26)},
    "ears": {"pricked": (74, 14), "tall": (10, 18), "folded": (12, 24), "floppy": (4, 44)},
    "muzzle": {"short": (80, 10), "medium": (16, 40), "long": (4, 50)},
    "nose": {"small pink": (52, 4), "small dark": (36, 12), "large pink": (4, 12), "large dark": (8, 72)},
    "eyes": {"almond": (56, 12), "round": (34, 32), "small": (10, 56)},
    "pupils": {"slit": (56, 4), "oval": (22, 10), "round": (22, 86)},
    "iris": {"green": (34, 5), "gold": (34, 15), "blue": (18, 12), "brown": (9, 38), "dark": (5, 30)},
    "whiskers": {"none": (5, 56), "short": (25, 36), "long": (70, 8)},
    "tongue": {"in": (95, 60), "out": (5, 40)},
    "fur": {"black": (16, 14), "grey": (20, 9), "ginger": (18, 10), "cream": (9, 14), "brown": (13, 17),
            "golden": (7, 18), "white": (12, 10), "chocolate": (5, 8)},
    "pattern": {"plain": (18, 29), "tabby": (32, 4), "bib": (16, 20), "mask": (12, 16), "patches": (14, 14),
                "brows": (4, 11), "spots": (4, 6)},
}
# fmt: on

GLANCE = ("head", "ears", "muzzle", "nose", "eyes", "whiskers")  # what is seen from far away, and in a small picture
CLEAR = 8.0  # least log-odds of these cues together: a picture may have some odd ones, not all of them


def draw_dataset(folder: Path, per_class: int = 200, seed: int = 0) -> Path:
    """Write <folder>/{train,eval}/{cat,dog}/*.jpg, a quarter of each class for eval; return the folder.

    A finished set is left as it is, an unfinished one is completed, another set of ours is replaced.
    Raises:
        InputError: the folder holds files that were not drawn here (nothing is touched), or impossible numbers.
    """
    if per_class < 2 or seed < 0:
        raise InputError(f"per_class {per_class}, seed {seed}: per_class must be 2 or more, seed 0 or more.")
    folder = Path(folder)
    facts = json.dumps({"version": VERSION, "per_class": per_class, "seed": seed}) + "\n"
    plan = plan_files(folder, per_class, seed)
    if not is_finished(folder, plan, facts):
        list_drawn(folder)  # before anything is touched
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder / LOCK):
            complete(folder, plan, facts)
    return folder


def is_finished(folder: Path, plan: dict, facts: str) -> bool:
    mark = folder / MARK
    return mark.is_file() and mark.read_text("utf-8") == facts and not missing_of(plan)


def missing_of(plan: dict) -> list[Path]:
    return [path for path, arguments in plan.items() if read_comment(path) != sign(*arguments)]


def complete(folder: Path, plan: dict, facts: str) -> None:
    outdated, missing = list_drawn(folder) - plan.keys(), missing_of(plan)
    (folder / MARK).unlink(missing_ok=True)
    for path in outdated:
        path.unlink()
    tasks = [(folder, path, *plan[path]) for path in missing]
    with tqdm(total=len(tasks), desc=f"drawing {folder}", unit=" pictures", disable=None) as progress:
        for _ in on_all_cores(write_picture, tasks):
            progress.update()
    write_text(folder / MARK, facts)


def on_all_cores(function: Callable, tasks: list) -> Iterator:
    """function(task) of all tasks, by several processes where there are many: threads would wait for the GIL."""
    workers = min(os.cpu_count() or 1, MOST_WORKERS, len(tasks) // WORTH_A_WORKER)
    if workers < 2:
        yield from map(function, tasks)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy whatever threads are running
    ignored = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits, which ends the others
    with spawn.Pool(workers, signal.signal, ignored) as pool:
        yield from pool.imap_unordered(function, tasks, chunksize=8)


def plan_files(folder: Path, per_class: int, seed: int) -> dict[Path, tuple[str, int, int]]:
    """Each file of the set and the arguments of its picture: (kind, seed, index)."""
    train = per_class - (per_class + 2) // 4
    return {
        folder / split / kind / f"{kind}_{index:04d}.jpg": (kind, seed, index)
        for split, indices in (("train", range(train)), ("eval", range(train, per_class)))
        for kind in KINDS
        for index in indices
    }


def sign(kind: str, seed: int, index: int) -> bytes:
    return SIGNATURE + f", version {VERSION}: {kind}, seed {seed}, index {index}".encode()


def read_comment(path: Path) -> bytes:
    """The comment in a JPEG file; empty when there is none, or no picture at all."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("comment", b"")
    except OSError:
        return b""


def list_drawn(folder: Path) -> set[Path]:
    """The pictures in the folder that were drawn here. Raises InputError on any other file."""
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if not p.is_dir())
    pictures = {p for p in paths if not any(p.match(pattern) for pattern in NOT_PICTURES)}
    foreign = sorted(p for p in pictures if not read_comment(p).startswith(SIGNATURE))
    if foreign:
        raise InputError(
            f"cannot draw into {folder}: it holds {len(foreign)} files that were not drawn here, "
            f"the first is {foreign[0]}. Choose a new or empty folder, or move these files away."
        )
    return pictures


def write_picture(task: tuple[Path, Path, str, int, int]) -> None:
    """Draw one of `plan_files` into a file of this process, then rename it: it is there whole or not at all."""
    folder, path, kind, seed, index = task
    part = folder / f"drawn.{os.getpid()}.part"
    quality = np.random.default_rng([seed, index, KINDS.index(kind), 1]).integers(55, 95)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(kind, seed, index).save(part, "JPEG", quality=int(quality), comment=sign(kind, seed, index))
    part.replace(path)


def draw_picture(kind: str, seed: int, index: int) -> Image.Image:
    """One RGB picture, 192 to 240 pixels a side; a pure function of its arguments."""
    if kind not in KINDS:
        raise ValueError(f"cannot draw {kind!r}: choose one of {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, index, KINDS.index(kind)])
    return draw_animal(choose_cues(kind, rng), rng)


def choose_cues(kind: str, rng: Generator) -> dict[str, str]:
    """An option for each cue; chosen again until the whole is clearly of this kind."""
    own = KINDS.index(kind)
    while True:
        cues, log_odds = {}, 0.0
        for cue, options in CUES.items():
            percent = np.array(list(options.values()))
            pick = rng.choice(len(percent), p=percent[:, own] / 100)
            cues[cue] = list(options)[pick]
            log_odds += np.log(percent[pick, own] / percent[pick, 1 - own]) if cue in GLANCE else 0
        if log_odds >= CLEAR:
            return cues
