"""Is "unlike the training pictures" said of what is unlike them, and of nothing else?

    python -m benchmarks.insight.novelty --dataset_path CATS_DOGS --others CLOTHING mnist \
        --pretrain_ckpt WEIGHTS.ckpt --scratch FOLDER [--part train]

Of a data set with an evaluation part: the share of its own evaluation pictures that are refused, and of each other
folder and of drawn noise the AUROC against them, and the share that is caught. With --part train its own training
pictures out of fold take their place, and the training parts of the others that of theirs: to choose a measure by, and
leave the evaluation parts alone. Each measure has the threshold that 99 % of the training rows keep out of fold:

    Gaussian       what a run uses, with several numbers of axes
    nearest        1 - the cosine with the nearest training row, with that of 400 of them, or with that of their means
    Mahalanobis    the distance to the nearest class mean (Lee et al., 2018) on features of length 1, with the shrinkage
                   of Ledoit & Wolf ("A well-conditioned estimator", 2004)

A name of arrays, as mnist, goes as well: LIMIT pictures of it become PNG files in --scratch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.insight.unlabelled import nearest
from datasets.load import load
from finetune.config import load_config
from finetune.device import init_device
from finetune.features.groups import numbered
from finetune.insight.novelty import AXES, FOLDS, Moments, gaussian, sphere_share, unit, upper_bound

LIMIT = 300
FEW, ROUNDS = 400, 6


class Mahalanobis:
    """The squared distance to the nearest of the class means, one covariance for all classes."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        classes, place = np.unique(y, return_inverse=True)
        self.means = np.stack([x[y == label].mean(0) for label in classes])
        self.whiten = np.linalg.cholesky(np.linalg.inv(shrunk(x - self.means[place])))
        self.means = self.means @ self.whiten

    def __call__(self, x: np.ndarray) -> np.ndarray:
        white = x @ self.whiten
        return np.min([((white - mean) ** 2).sum(1) for mean in self.means], 0)


def shrunk(centred: np.ndarray) -> np.ndarray:
    """The covariance (D, D) of rows (N, D), drawn to a multiple of the identity."""
    plain = centred.T @ centred / len(centred)
    average = np.trace(plain) / len(plain)
    share = sphere_share(plain, average, (centred**2).sum(1))
    return (1 - share) * plain + share * average * np.eye(len(plain))


def means_of(x: np.ndarray, count: int) -> np.ndarray:
    """(count, D) of length 1: k-means by cosine from rows at random."""
    means = at_random(x, count)
    for _ in range(ROUNDS):
        of = (x @ means.T).argmax(1)
        means = unit(np.stack([x[of == i].sum(0) if (of == i).any() else means[i] for i in range(len(means))]))
    return means


def at_random(x: np.ndarray, count: int) -> np.ndarray:
    return x[np.random.default_rng(0).permutation(len(x))[:count]]


def nearest_of(rows: np.ndarray) -> Callable:
    return lambda x: nearest(x, rows)


def measures() -> dict[str, Callable]:
    """A function of rows x (N, D) of length 1 and labels y each, that gives one of new rows of length 1."""
    axes = {f"Gaussian, {n} axes": lambda x, y, n=n: gaussian(Moments.of(x), x, n) for n in (16, 32, AXES, 128)}
    return {
        **axes,
        "nearest": lambda x, y: nearest_of(x),
        f"nearest of {FEW}": lambda x, y: nearest_of(at_random(x, FEW)),
        f"nearest of {FEW} means": lambda x, y: nearest_of(means_of(x, FEW)),
        "Mahalanobis": Mahalanobis,
    }


def out_of_fold(fit: Callable, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    fold = np.random.default_rng(0).integers(0, FOLDS, groups.max() + 1)[groups]
    found = np.empty(len(x))
    for number in range(FOLDS):
        out = fold == number
        found[out] = fit(x[~out], y[~out])(x[out])
    return found


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


def pictures_of(name: str, part: str, scratch: Path, cache_dir: str) -> list[Path]:
    """A part of a data set where it has parts, else all."""
    dataset = load(name, cache_dir, least_classes=1)
    rows = [row for row in range(len(dataset)) if not dataset.parts or dataset.parts[row] == part]
    if dataset.paths is not None:
        return [dataset.paths[row] for row in rows]
    folder, paths = scratch / f"{dataset.name}_{part}", []
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
    parser.add_argument("--part", choices=["eval", "train"], default="eval")
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
        rows = extract(paths, backbone, engine, config.cache_dir, device.threads)
        return unit(rows.rows[rows.readable])

    found = extract(dataset.paths, backbone, engine, config.cache_dir, device.threads)
    split, _ = usable_split(dataset, found, config)
    rows = np.concatenate([split.train, split.valid])
    x, y, groups, own = unit(found.rows[rows]), dataset.labels[rows], numbered(found.keys)[rows], found.rows[split.eval]
    others = {Path(name).name: pictures_of(name, given.part, given.scratch, given.cache_dir) for name in given.others}
    others["noise"] = noise(given.scratch / f"noise_{given.part}", seed=0 if given.part == "eval" else 1)
    others = {name: features(paths) for name, paths in others.items()}
    for name, fit in measures().items():
        started = time.perf_counter()
        left_out = out_of_fold(fit, x, y, groups)
        distance, threshold = fit(x, y), upper_bound(left_out)
        seconds, known = time.perf_counter() - started, left_out if given.part == "train" else distance(unit(own))
        print(f"{name}: {seconds:.1f} s, {100 * (known > threshold).mean():.1f} % of {len(known)} own refused")
        for other, rows_of_it in others.items():
            far = distance(rows_of_it)
            caught = 100 * (far > threshold).mean()
            print(f"    {other}: {len(far)} pictures, AUROC {auroc(known, far):.4f}, {caught:.1f} % caught", flush=True)


if __name__ == "__main__":
    main()
