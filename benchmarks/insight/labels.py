"""Flipped labels: how many are in the first tenth of the list, and what --exclude gives back.

    python -m benchmarks.insight.labels --dataset_path CLOTHING --pretrain_ckpt MOBILENETV2_1.0.ckpt [--cache_dir cache]

5 % of the training labels get another class, seeded. Accuracies are those of the linear head on the evaluation
pictures: with the clean labels, with the flipped ones, without the flipped ones that a person finds who looks at the
first tenth of the list, and without all suspects, unseen.
"""

from __future__ import annotations

import numpy as np

from benchmarks.insight.inputs import features_of, parser_of
from finetune.heads.logistic import LinearHead
from finetune.insight.folds import cross_validate
from finetune.insight.labels import SEEDS, STIFFER, doubtful

FLIPPED, LOOKED_AT = 0.05, 0.1  # shares of the training rows
TIMES = 3


def main() -> None:
    config, dataset, found = features_of(parser_of(__doc__).parse_args(), valid_fraction=0)
    from finetune.features.usable import usable_split

    split, _ = usable_split(dataset, found, config)
    (x, y), (new, truth) = ((found.rows[rows], dataset.labels[rows]) for rows in (split.train, split.eval))
    classes, l2 = len(dataset.classes), config.train.l2

    def accuracy(labels: np.ndarray, kept: np.ndarray) -> float:
        return float((LinearHead(x[kept], labels[kept], classes, l2)(new).argmax(1) == truth).mean())

    everything = np.ones(len(y), bool)
    clean = accuracy(y, everything)
    results = []
    for seed in range(TIMES):
        rng = np.random.default_rng(seed)
        flipped = rng.choice(len(y), round(FLIPPED * len(y)), replace=False)
        labels = y.copy()
        labels[flipped] = (y[flipped] + rng.integers(1, classes, len(flipped))) % classes
        _, probabilities = cross_validate(x, labels, classes, STIFFER * l2, 5, SEEDS)
        ranked = doubtful(probabilities, labels)
        seen = ranked.order[: round(LOOKED_AT * len(y))]
        caught = np.isin(np.arange(len(y)), np.intersect1d(seen, flipped))
        shares = (caught.sum() / len(flipped), clean, accuracy(labels, everything))
        results.append((*shares, accuracy(labels, ~caught), accuracy(labels, ~ranked.suspect)))
        say(f"seed {seed}", results[-1])
    say("mean", np.mean(results, 0))


def say(name: str, shares) -> None:
    words = ("in the first tenth", "accuracy clean", "flipped", "excluded after a look", "all suspects excluded")
    print(f"{name}: " + ", ".join(f"{word} {100 * share:.1f} %" for word, share in zip(words, shares)), flush=True)


if __name__ == "__main__":
    main()
