"""The answers of the exported files and of the trained network to the real evaluation pictures, to be compared.

The exported files are run by a fresh process that knows the files and their manifest only. Three answers
are compared a picture and file: the file's, the CKPT's, and what evaluation wrote to predictions.csv.

The CKPT's backbone is computed by the engine that computes features, where there is one beside MindSpore: another
program, by other arithmetic. Where it and a file do not agree, MindSpore itself is asked.
"""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.image import ImageSpec, load_images
from export.predictors import BATCH_SIZE, CkptByEngine, CkptPredictor, Seen, load_predictor, together
from export.verdict import (
    EVALUATION_TOLERANCE,
    NOVELTY_TOLERANCE,
    agree,
    allowed_loss_of,
    judge,
    novelty_difference,
    over_all,
    tolerance_of,
)
from finetune import run_folder
from finetune.config import load_config
from finetune.device import init_device, usable_cores
from finetune.run_folder import read_json

SECOND_BATCH_SIZE = 3  # a graph that has another batch size baked in than its manifest says fails here
PICTURES_AT_ONCE = 64 * BATCH_SIZE  # in memory


@contextlib.contextmanager
def fresh_process(threads: int) -> Iterator[ProcessPoolExecutor]:
    """A process that knows nothing of this one; it imports MindSpore while others still write the files."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(warm_up, half_of(threads))
        yield process


def warm_up(threads: int) -> None:
    init_device("CPU", threads=threads)


@dataclass(frozen=True)
class Answers:
    """What is said of all N evaluation pictures of a run, of each exported file a list entry."""

    reference: Seen  # by the CKPT
    reference_by: str  # the engine that computed its backbone
    exported: list[Seen]
    in_second_batch: list[Seen]  # of the first n pictures again, in batches of another size
    readable: np.ndarray  # bool (N,)


class Ckpt:
    """The trained network of a run, rebuilt from its CKPT, and its answers to all N evaluation pictures.

    Its features are computed from now on in a thread, which uses no MindSpore, while the files are written.
    """

    def __init__(self, run: Path, suffixes: Collection[str], threads: int):
        """`suffixes`: of the files. Only one that MindSpore runs can confirm the engine's answers."""
        self.run = run
        self.by_engine = ckpt_by_engine(run, threads) if ".mindir" in suffixes else None
        if self.by_engine:
            thread = ThreadPoolExecutor(1)
            self.features = thread.submit(features_of, evaluation_pictures(run)[0], self.by_engine)
            thread.shutdown(wait=False)

    @property
    def engine(self) -> str:
        return self.by_engine.engine.name if self.by_engine else "mindspore"

    def answers(self) -> tuple[Seen, np.ndarray]:
        """What it says of the pictures, and bool (N,): which of them can be read."""
        if not self.by_engine:
            return self.by_mindspore()
        features, readable = self.features.result()
        return self.by_engine.look(features), readable

    def by_mindspore(self) -> tuple[Seen, np.ndarray]:
        self.by_engine = None
        paths = evaluation_pictures(self.run)[0]
        (seen,), readable = predict_with([CkptPredictor(self.run)], paths, BATCH_SIZE)
        return seen, readable


def ckpt_by_engine(run: Path, threads: int) -> CkptByEngine | None:
    """None where there is no such engine, the run did without, or it has no backbone."""
    from finetune.features.engines.choose import choose_name  # imports MindSpore: not before the device is ready

    config = load_config(str(run / "config.yaml"))
    if config.model.backbone is None or "mindspore" in (config.engine, choose_name("CPU", "auto", "f32")):
        return None
    try:
        return CkptByEngine(run, threads or usable_cores())
    except (ImportError, RuntimeError):
        return None


def ask(
    ckpt: Ckpt, models: Sequence[Path], threads: int, process: ProcessPoolExecutor, key: bytes | None = None
) -> Answers:
    """Run all evaluation pictures through CKPT and models; `process` is a `fresh_process`.

    Both sides may compute at the same time by MindSpore, so each has half of the threads.

    Raises:
        InputError: no evaluation picture can be read, or the run is not finished.
    """
    paths, _, split = evaluation_pictures(ckpt.run)
    answer = process.submit(predict_files, models, paths, half_of(threads), key)
    reference, readable = ckpt.answers()
    exported, in_second_batch = answer.result()
    if not readable.any():
        raise InputError(
            f"{split['root']}: none of the evaluation pictures of {ckpt.run} can be read there any more. "
            "Put them back, or repeat the run with pictures that are there."
        )
    pairs = [(model, one) for model, one in zip(models, exported) if allowed_loss_of(model) is None]
    if ckpt.by_engine and not all(same(one[readable], reference[readable], tolerance_of(m)) for m, one in pairs):
        reference, readable = ckpt.by_mindspore()
    return Answers(reference, ckpt.engine, exported, in_second_batch, readable)


def same(exported: Seen, reference: Seen, tolerance: float) -> bool:
    novelty = novelty_of(reference, exported)
    near = novelty is None or novelty_difference(*novelty) <= NOVELTY_TOLERANCE
    return agree(exported.probabilities, reference.probabilities, tolerance) and bool(near)


def novelty_of(reference: Seen, exported: Seen) -> tuple[np.ndarray, np.ndarray] | None:
    """None where the file does not tell it, or the run cannot any more."""
    pair = reference.novelty, exported.novelty
    return None if pair[0] is None or pair[1] is None else pair


def compare(run: Path, models: Sequence[Path], answers: Answers) -> dict:
    """The judgement for parity.json."""
    _, labels, split = evaluation_pictures(run)
    readable = answers.readable
    evaluated = read_probabilities(run, split["classes"])
    precision = load_config(str(run / "config.yaml")).precision
    found = {}
    reference = answers.reference[readable]
    for model, exported, in_second_batch in zip(models, answers.exported, answers.in_second_batch):
        exported = exported[readable]
        found[model.name] = judge(
            reference.probabilities,
            exported.probabilities,
            in_second_batch.probabilities[readable[: len(in_second_batch.probabilities)]],
            evaluated[readable],
            labels[readable],
            int((~readable).sum()),
            tolerance_of(model),
            EVALUATION_TOLERANCE[precision],
            allowed_loss_of(model),
            novelty_of(reference, exported),
        )
    return {"ckpt_by": answers.reference_by, **over_all(found)}


def half_of(threads: int) -> int:
    """0 stands for all cores."""
    return max(1, (threads or usable_cores()) // 2)


def evaluation_pictures(run: Path) -> tuple[list[Path] | np.ndarray, np.ndarray, dict]:
    """(N paths or an array of N pictures, N labels, what split.json says)."""
    split = read_json(run, "split.json")
    labels = [split["classes"].index(name) for name in split["eval"].values()]
    return run_folder.evaluation_pictures(run), np.array(labels), split


def predict_files(
    models: Sequence[Path], paths: Sequence[Path] | np.ndarray, threads: int, key: bytes | None = None
) -> tuple[list[Seen], list[Seen]]:
    """What exported models say on the CPU, one each, and of the first pictures in other batches."""
    predictors = [load_predictor(model, threads, key) for model in models]
    return (
        predict_with(predictors, paths, BATCH_SIZE)[0],
        predict_with(predictors, paths[:BATCH_SIZE], SECOND_BATCH_SIZE)[0],
    )


def predict_with(
    predictors: Sequence, paths: Sequence[Path] | np.ndarray, batch_size: int
) -> tuple[list[Seen], np.ndarray]:
    """The same with predictors that are loaded already."""
    pieces, readable = [[] for _ in predictors], []
    for images, good in in_pieces(paths, predictors[0].image):
        readable += good
        for piece, predictor in zip(pieces, predictors):
            piece.append(predictor.look(images, batch_size))
    return [together(piece) for piece in pieces], np.array(readable)


def features_of(paths: Sequence[Path] | np.ndarray, ckpt: CkptByEngine) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D), and bool (N,): which pictures can be read."""
    found = [(ckpt(images), good) for images, good in in_pieces(paths, ckpt.image)]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([good for _, good in found])


def in_pieces(paths: Sequence[Path] | np.ndarray, image: ImageSpec) -> Iterator[tuple[np.ndarray, list[bool]]]:
    """(pictures, which of them can be read), as many at a time as memory should hold."""
    for start in range(0, len(paths), PICTURES_AT_ONCE):
        chunk = paths[start : start + PICTURES_AT_ONCE]
        images, damaged = load_images(chunk, image)
        yield images, [row not in damaged for row in range(len(chunk))]


def read_probabilities(run: Path, classes: list[str]) -> np.ndarray:
    """float (N, C) as evaluation wrote them to predictions.csv."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return np.array([[float(row[f"p_{name}"]) for name in classes] for row in csv.DictReader(file)])
