"""Does the forecast hold? Fitted on half of the pictures, against what heads of twice as many measure.

    python -m benchmarks.insight.forecast --dataset_path PICTURES --pretrain_ckpt WEIGHTS.ckpt [--cache_dir cache]

For each seed half as many pictures as the truth's heads learn from train the largest head of the curve; the truth is
the accuracy of all pictures in folds that leave an eighth out.
"""

from __future__ import annotations

import numpy as np

from benchmarks.insight.inputs import features_of, parser_of
from finetune.insight.curve import FOLDS, learning_curve
from finetune.insight.folds import cross_validate

PARTS = 8  # folds of the truth
TIMES = 5


def main() -> None:
    config, dataset, found = features_of(parser_of(__doc__).parse_args())
    x, y, classes, l2 = found.rows[:], dataset.labels, len(dataset.classes), config.train.l2
    truth, _ = cross_validate(x, y, classes, l2, PARTS, seeds=1)
    learnt_from = len(y) * (PARTS - 1) // PARTS
    print(f"measured with {learnt_from} training pictures: {100 * truth.accuracy:.1f} %")
    rows = learnt_from // 2 * FOLDS // (FOLDS - 1)
    held = 0
    for seed in range(TIMES):
        part = np.random.default_rng(seed).permutation(len(y))[:rows]
        curve = learning_curve(x[part], y[part], classes, l2, seed)
        low, high = curve.interval
        held += low <= truth.accuracy <= high
        print(
            f"seed {seed}, {curve.sizes[0]} to {curve.sizes[-1]}: {100 * curve.accuracies[0]:.1f} to "
            f"{100 * curve.accuracies[-1]:.1f} %; with {curve.twice} expect {100 * low:.1f} to {100 * high:.1f} %",
            flush=True,
        )
    print(f"held {held} times of {TIMES}")


if __name__ == "__main__":
    main()
