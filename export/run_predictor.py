"""A run folder asked for more than probabilities: is the picture like the training ones, and where is the evidence?

    backbone     uint8 pictures -> its last feature map (B, D, H', W')
    mean         -> features (B, D), of which novelty is told
    head         -> probabilities (B, C); a linear head at each place gives the class maps, see `class_maps`

The maps are to be had from the run folder only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.image import batches
from export.manifest import confidence_facts
from export.predictors import BATCH_SIZE, Seen, together
from finetune.insight.novelty import THRESHOLD, load_novelty
from finetune.trained import load_trained
from finetune.training.networks import Head
from finetune.training.predictor import LastMap, Predictor

FROM_SCRATCH = "the network was trained from scratch: there is no feature map with a linear head behind it"
HIDDEN = "the head is not one linear layer: what it says of each place does not add up to what it says of the picture"


class RunPredictor:
    """`look` at uint8 pictures (B, H, W, 3); initialise the device first."""

    def __init__(self, run: Path):
        trained = load_trained(run)
        self.classes, self.image = trained.classes, trained.image
        self.confidence = confidence_facts(run)
        self.novelty = load_novelty(run)
        self.novelty_threshold = THRESHOLD
        self.head = Predictor(trained.head)
        self.body = None if trained.backbone is None else LastMap(trained.backbone.network)
        linear = isinstance(trained.head, Head) and trained.head.hidden is None  # else hidden, or several
        self.no_maps = FROM_SCRATCH if self.body is None else None if linear else HIDDEN
        self.dense = (
            None if self.no_maps else [p.asnumpy() for p in (trained.head.dense.weight, trained.head.dense.bias)]
        )

    def look(self, images: np.ndarray) -> Seen:
        return together([self._look(batch) for batch in batches(images, self.image, BATCH_SIZE)])

    def _look(self, batch: np.ndarray) -> Seen:
        """Of normalised pictures (B, 3, H, W)."""
        if self.body is None:
            return Seen(self.head(batch))
        last = self.body(batch)
        features = last.mean((2, 3))
        novelty = None if self.novelty is None else self.novelty(features)
        return Seen(self.head(features), novelty, None if self.no_maps else class_maps(last, *self.dense))


def class_maps(last: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(B, D, H', W') and a linear head (C, D), (C,) -> (B, C, H', W'): the head at each place. Exact, as averaging over
    places and a linear head may change places (Zhou et al., 2016); `export.writers.class_maps` does it in a graph."""
    return np.einsum("bdhw,cd->bchw", last, weight, optimize=True) + bias[:, None, None]
