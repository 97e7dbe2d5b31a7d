"""Are the exported files the trained network? Compared on the real evaluation pictures, and judged.

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
from datasets.image import load_images
from export.manifest import FOLDED, read_manifest
from export.predictors import BATCH_SIZE, CkptByEngine, CkptPredictor, load_predictor
from finetune import run_folder
from finetune.config import load_config
from finetune.device import init_device, usable_cores
from finetune.run_folder import read_json

# Largest difference of a probability to the CKPT's. MindSpore runs the same arithmetic from both files;
# ONNX Runtime adds in another order.
TOLERANCE = {".mindir": 1e-5, ".onnx": 1e-4}
# MindSpore computes otherwise, too, where BatchNorm is folded into the convolutions, and adds in another order where
# the batch size is fixed to another one than ours.
OTHER_ARITHMETIC_TOLERANCE = 1e-4
# To what evaluation wrote, by the precision of its features: computed in another batch, perhaps by another
# engine or on another day. Exported files always compute in f32; bf16 features moved probabilities by up to 0.05.
EVALUATION_TOLERANCE = {"f32": 1e-3, "bf16": 0.15}

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
    """Probabilities of all N evaluation pictures of a run, of each exported file a list entry."""

    reference: np.ndarray  # (N, C), the CKPT's
    reference_by: str  # the engine that computed its backbone
    exported: list[np.ndarray]  # (N, C)
    in_second_batch: list[np.ndarray]  # (n, C), of the first pictures again, in batches of another size
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
            self.features = thread.submit(predict_with, [self.by_engine], evaluation_pictures(run)[0], BATCH_SIZE)
            thread.shutdown(wait=False)

    @property
    def engine(self) -> str:
        return self.by_engine.engine.name if self.by_engine else "mindspore"

    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, C), and bool (N,): which pictures can be read."""
        if not self.by_engine:
            return self.by_mindspore()
        (features,), readable = self.features.result()
        return self.by_engine.head(features), readable

    def by_mindspore(self) -> tuple[np.ndarray, np.ndarray]:
        self.by_engine = None
        paths = evaluation_pictures(self.run)[0]
        (probabilities,), readable = predict_with([CkptPredictor(self.run)], paths, BATCH_SIZE)
        return probabilities, readable


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
    pairs = zip(models, exported)
    if ckpt.by_engine and not all(agree(one[readable], reference[readable], tolerance_of(m)) for m, one in pairs):
        reference, readable = ckpt.by_mindspore()
    return Answers(reference, ckpt.engine, exported, in_second_batch, readable)


def compare(run: Path, models: Sequence[Path], answers: Answers) -> dict:
    """The judgement for parity.json."""
    _, labels, split = evaluation_pictures(run)
    readable = answers.readable
    evaluated = read_probabilities(run, split["classes"])
    precision = load_config(str(run / "config.yaml")).precision
    found = {}
    for model, exported, in_second_batch in zip(models, answers.exported, answers.in_second_batch):
        found[model.name] = judge(
            answers.reference[readable],
            exported[readable],
            in_second_batch[readable[: len(in_second_batch)]],
            evaluated[readable],
            labels[readable],
            int((~readable).sum()),
            tolerance_of(model),
            EVALUATION_TOLERANCE[precision],
        )
    return {"ckpt_by": answers.reference_by, **over_all(found)}


def agree(exported: np.ndarray, reference: np.ndarray, tolerance: float) -> bool:
    """Probabilities (N, C) of the same classes, also where two classes are all but equally likely."""
    near = bool(np.abs(exported - reference).max() <= tolerance)  # False for NaN
    return near and np.array_equal(exported.argmax(1), reference.argmax(1))


def tolerance_of(model: Path) -> float:
    """By the suffix of an exported file and by what the manifest beside it says of it."""
    facts = read_manifest(model.parent)["models"][model.name]
    same_arithmetic = facts["input"]["shape"][0] == -1 and facts.get("batchnorm") != FOLDED
    return TOLERANCE[model.suffix] if same_arithmetic else OTHER_ARITHMETIC_TOLERANCE


def half_of(threads: int) -> int:
    """0 stands for all cores."""
    return max(1, (threads or usable_cores()) // 2)


def evaluation_pictures(run: Path) -> tuple[list[Path] | np.ndarray, np.ndarray, dict]:
    """(N paths or an array of N pictures, N labels, what split.json says)."""
    split = read_json(run, "split.json")
    labels = [split["classes"].index(name) for name in split["eval"].values()]
    return run_folder.evaluation_pictures(run), np.array(labels), split


def judge(
    reference,
    exported,
    in_second_batch,
    evaluated,
    labels,
    unreadable: int,
    tolerance: float,
    evaluation_tolerance: float,
) -> dict:
    """Compare probabilities (N, C) of the CKPT, an exported file and the evaluation.

    `in_second_batch` are the first pictures again, in batches of another size.
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
    same_class = int((exported.argmax(1) == reference.argmax(1)).sum())
    faults = []
    if not np.isfinite(exported).all():
        faults.append("the exported model gives values that are not numbers")
    for name, limit in tolerances.items():
        if not differences[name] <= limit:
            faults.append(f"difference {name} {differences[name]:.2e} is above {limit:.0e}")
    if same_class < len(reference):
        faults.append(f"another class than the CKPT on {len(reference) - same_class} of {len(reference)} pictures")
    return {
        "equal": not faults,
        "faults": faults,
        "pictures": len(reference),
        "unreadable": unreadable,
        "same_class": same_class,
        "largest_difference": differences,
        "tolerance": tolerances,
        "accuracy": {
            "ckpt": float((reference.argmax(1) == labels).mean()),
            "exported": float((exported.argmax(1) == labels).mean()),
        },
    }


def over_all(models: dict[str, dict]) -> dict:
    """The judgements of all files as one, by the worst of each number; the single ones stay below `models`."""
    each = list(models.values())
    names = each[0]["largest_difference"]
    return {
        "equal": all(one["equal"] for one in each),
        "faults": [f"{name}: {fault}" for name, one in models.items() for fault in one["faults"]],
        "pictures": each[0]["pictures"],
        "unreadable": each[0]["unreadable"],
        "same_class": min(one["same_class"] for one in each),
        "largest_difference": {
            name: float(np.max([one["largest_difference"][name] for one in each])) for name in names
        },
        "accuracy": {
            "ckpt": each[0]["accuracy"]["ckpt"],
            "exported": min(one["accuracy"]["exported"] for one in each),
        },
        "models": models,
    }


def table(found: dict) -> str:
    """What parity.json says, a line a file."""
    width = max(map(len, found["models"]))
    lines = [f"{'':{width}}  same class  largest difference  accuracy"]
    lines.append(f"{'CKPT':{width}}  {'':10}  {'':18}  {100 * found['accuracy']['ckpt']:6.2f} %")
    for name, one in found["models"].items():
        same = f"{one['same_class']}/{one['pictures']}"
        largest = f"{one['largest_difference']['to_ckpt']:.1e}"
        lines.append(f"{name:{width}}  {same:>10}  {largest:>18}  {100 * one['accuracy']['exported']:6.2f} %")
    return "\n".join(lines)


def predict_files(
    models: Sequence[Path], paths: Sequence[Path] | np.ndarray, threads: int, key: bytes | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Probabilities (N, C) a model by exported models on the CPU, and those of the first pictures in other batches."""
    predictors = [load_predictor(model, threads, key) for model in models]
    return (
        predict_with(predictors, paths, BATCH_SIZE)[0],
        predict_with(predictors, paths[:BATCH_SIZE], SECOND_BATCH_SIZE)[0],
    )


def predict_with(
    predictors: Sequence, paths: Sequence[Path] | np.ndarray, batch_size: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """The same with predictors that are loaded already."""
    pieces, readable = [[] for _ in predictors], []
    for start in range(0, len(paths), PICTURES_AT_ONCE):
        chunk = paths[start : start + PICTURES_AT_ONCE]
        images, damaged = load_images(chunk, predictors[0].image)
        readable += [row not in damaged for row in range(len(chunk))]
        for piece, predictor in zip(pieces, predictors):
            piece.append(predictor(images, batch_size))
    return [np.concatenate(piece) for piece in pieces], np.array(readable)


def read_probabilities(run: Path, classes: list[str]) -> np.ndarray:
    """float (N, C) as evaluation wrote them to predictions.csv."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return np.array([[float(row[f"p_{name}"]) for name in classes] for row in csv.DictReader(file)])
