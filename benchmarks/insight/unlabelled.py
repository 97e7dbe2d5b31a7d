"""Do the labels of the least sure pictures teach more than those of pictures at random, or of the most novel ones?

    python -m benchmarks.insight.unlabelled --dataset_path CLOTHING --pretrain_ckpt WEIGHTS.ckpt

Of a data set with an evaluation part: a linear head is trained on --labelled training pictures at random, ranks the
others, and is trained once more with the labels of the first --added of them. Printed is the accuracy on the evaluation
part, the mean of DRAWS draws, and how far it is from that of pictures at random, with the standard error of the pairs.
"""

from __future__ import annotations

import numpy as np

from benchmarks.insight.inputs import features_of, parser_of
from finetune.heads.logistic import LinearHead
from finetune.insight.novelty import unit

DRAWS = 20
ROWS_AT_ONCE = 1024


def nearest(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """1 - the largest cosine of each of x (n, D) with rows (N, D), all of length 1."""
    starts = range(0, len(x), ROWS_AT_ONCE)
    return np.concatenate([1 - (x[start : start + ROWS_AT_ONCE] @ rows.T).max(1) for start in starts])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--labelled", type=int, default=200)
    parser.add_argument("--added", type=int, default=100)
    given = parser.parse_args()
    config, dataset, found = features_of(given, valid_fraction=0)
    from finetune.features.usable import usable_split

    split, _ = usable_split(dataset, found, config)
    (x, y), (new, truth) = ((found.rows[rows], dataset.labels[rows]) for rows in (split.train, split.eval))
    classes, l2, lengthless = len(dataset.classes), config.train.l2, unit(x)

    def accuracy(rows: np.ndarray) -> float:
        return float((LinearHead(x[rows], y[rows], classes, l2)(new).argmax(1) == truth).mean())

    found = {"none": [], "at random": [], "least sure": [], "most novel": []}
    for seed in range(DRAWS):
        order = np.random.default_rng(seed).permutation(len(y))
        have, rest = order[: given.labelled], order[given.labelled :]
        confidence = LinearHead(x[have], y[have], classes, l2)(x[rest]).max(1)
        ranks = {
            "none": rest[:0],
            "at random": rest,
            "least sure": rest[np.argsort(confidence, kind="stable")],
            "most novel": rest[np.argsort(-nearest(lengthless[rest], lengthless[have]), kind="stable")],
        }
        for name, rows in ranks.items():
            found[name].append(accuracy(np.concatenate([have, rows[: given.added]])))
    for name, accuracies in found.items():
        more = 100 * (np.array(accuracies) - found["at random"])
        error = more.std(ddof=1) / DRAWS**0.5
        print(f"{name}: accuracy {100 * np.mean(accuracies):.1f} %, {more.mean():+.1f} +- {error:.1f} points")


if __name__ == "__main__":
    main()
