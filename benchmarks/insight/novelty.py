"""Is "unlike the training pictures" said of what is unlike them, and of nothing else?

    python -m benchmarks.insight.novelty --dataset_path CATS_DOGS --others CLOTHING mnist \
        --pretrain_ckpt WEIGHTS.ckpt --scratch FOLDER

Of a data set with an evaluation part: the share of its own evaluation pictures that are refused, and of each other
folder and of drawn noise the AUROC against them, and the share that is caught. Measured are the nearest training
picture by cosine (what a run uses), and Mahalanobis' distance to the nearest class mean (Lee et al., 2018) with the
shrinkage of Ledoit & Wolf ("A well-conditioned estimator", 2004), on plain features and on such of length 1; each with
the threshold that 99 % of the training rows keep, left out or out of fold. A name of arrays, as mnist, goes as well:
LIMIT pictures of it become PNG files in --scratch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.load import load
from finetune.config import load_config
from finetune.device import init_device
from finetune.features.groups import numbered
from finetune.heads.folds import deal
from finetune.insight.novelty import fit_novelty, unit, upper_bound

LIMIT, FOLDS = 300, 5


class Mahalanobis:
    """The squared distance to the nearest of the class means, one covariance for all classes."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        classes, place = np.unique(y, return_inverse=True)
        self.means = np.stack([x[y == label].mean(0) for label in classes])
        covariance = shrunk(x - self.means[place])
        self.whiten = np.linalg.cholesky(np.linalg.inv(covariance))
        self.means = self.means @ self.whiten

    def __call__(self, x: np.ndarray) -> np.ndarray:
        white = x @ self.whiten
        return np.min([((white - mean) ** 2).sum(1) for mean in self.means], 0)


def shrunk(centred: np.ndarray) -> np.ndarray:
    """The covariance (D, D) of rows (N, D), drawn to a multiple of the identity."""
    count, width = centred.shape
    plain = centred.T @ centred / count
    scale = np.trace(plain) / width
    spread = ((plain - scale * np.eye(width)) ** 2).sum()
    noise = ((centred**2).sum(1) ** 2).sum() / count**2 - (plain**2).sum() / count
    share = min(1.0, max(0.0, noise / spread))
    return (1 - share) * plain + share * scale * np.eye(width)


def mahalanobis(x: np.ndarray, y: np.ndarray, prepare: Callable) -> tuple[Callable, float]:
    """(a function of rows, its threshold by rows out of fold)."""
    x, fold = prepare(x), deal(y, FOLDS, 0)
    held_out = np.empty(len(x))
    for number in range(FOLDS):
        held_out[fold == number] = Mahalanobis(x[fold != number], y[fold != number])(x[fold == number])
    whole = Mahalanobis(x, y)
    return (lambda rows: whole(prepare(rows))), upper_bound(held_out)


def auroc(known: np.ndarray, other: np.ndarray) -> float:
    """How often one of `other` is farther than one of `known`."""
    order = np.concatenate([known, other]).argsort().argsort() + 1.0
    return float((order[len(known) :].sum() - len(other) * (len(other) + 1) / 2) / len(known) / len(other))


def noise(folder: Path, seed: int = 0) -> list[Path]:
    """Pixels at random, blots of colour, and plain colours, a third each."""
    rng, paths = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(LIMIT):
        side = (256, 16, 1)[number % 3]
        small = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        paths.append(folder / f"{number:03d}.png")
        small.resize((256, 256), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def pictures_of(name: str, scratch: Path, cache_dir: str) -> list[Path]:
    """The evaluation part of a data set where it has one, else all."""
    dataset = load(name, cache_dir, least_classes=1)
    rows = [row for row in range(len(dataset)) if not dataset.parts or dataset.parts[row] == "eval"]
    if dataset.paths is not None:
        return [dataset.paths[row] for row in rows]
    folder, paths = scratch / dataset.name, []
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows[:LIMIT]:
        paths.append(folder / f"{row}.png")
        Image.fromarray(dataset.pixels[row]).save(paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", required=True)
    parser.add_argument("--others", nargs="+", required=True)
    parser.add_argument("--pretrain_ckpt", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--cache_dir", default="cache")
    given = parser.parse_args()
    flags = {"data.dataset_path": given.dataset_path, "model.pretrain_ckpt": given.pretrain_ckpt}
    config = load_config(None, {**flags, "cache_dir": given.cache_dir})
    device = init_device("CPU")
    from finetune.features.cache import extract
    from finetune.features.engines.choose import choose_engine
    from finetune.features.usable import usable_split
    from finetune.inputs import load_inputs

    dataset, backbone = load_inputs(config)
    engine = choose_engine(backbone, device, config)

    def features(paths):
        return extract(paths, backbone, engine, config.cache_dir, device.threads)

    found = features(dataset.paths)
    split, _ = usable_split(dataset, found, config)
    rows = np.concatenate([split.train, split.valid])
    x, y, own = found.rows[rows], dataset.labels[rows], found.rows[split.eval]
    others = {Path(name).name: pictures_of(name, given.scratch, given.cache_dir) for name in given.others}
    others["noise"] = noise(given.scratch / "noise")
    others = {name: features(paths).rows[:] for name, paths in others.items()}

    def nearest():
        fitted = fit_novelty(x, numbered(found.keys)[rows])
        return fitted, fitted.threshold

    for name, make in (
        ("nearest by cosine", nearest),
        ("Mahalanobis", lambda: mahalanobis(x, y, lambda rows: rows)),
        ("Mahalanobis, length 1", lambda: mahalanobis(x, y, unit)),
    ):
        started = time.perf_counter()
        distance, threshold = make()
        seconds, known = time.perf_counter() - started, distance(own)
        print(f"{name}: {seconds:.1f} s, {100 * (known > threshold).mean():.1f} % of {len(known)} own refused")
        for other, rows_of_it in others.items():
            far = distance(rows_of_it)
            caught = 100 * (far > threshold).mean()
            print(f"    {other}: {len(far)} pictures, AUROC {auroc(known, far):.4f}, {caught:.1f} % caught", flush=True)


if __name__ == "__main__":
    main()
