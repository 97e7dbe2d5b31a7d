"""Weights that are set to 0 for good, the smallest first: M. Zhu, S. Gupta, "To Prune, or Not to Prune", 2017.

The share of each layer that is 0 rises as a cubic, fast while there are many to choose from, and the rest of the epochs
mend what it cost:

    share(t) = train.prune * (1 - (1 - t) ** 3)     t from 0 in the first epoch to 1 at RAMP of the epochs
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn

from finetune.training.optimizers import decayed

RAMP = 0.6  # of the epochs; from there on the share stays


def share_in(epoch: int, epochs: int, final: float) -> float:
    """The share of zeros in an epoch, counted from 1; the last has all of them."""
    last = max(2, round(RAMP * epochs))
    done = min(1.0, (epoch - 1) / (last - 1))
    return final * (1 - (1 - done) ** 3)


def kept(weights: np.ndarray, share: float) -> np.ndarray:
    """float32 mask of the same shape: 0 for the `share` of the weights that are nearest to 0, else 1."""
    mask = np.ones(weights.size, np.float32)
    mask[np.argsort(np.abs(weights), axis=None, kind="stable")[: round(share * weights.size)]] = 0
    return mask.reshape(weights.shape)


class Pruning:
    """Masks of the matrices and kernels of a network, which a training step multiplies its weights with."""

    def __init__(self, network: nn.Cell, final: float, epochs: int):
        self.final, self.epochs = final, epochs
        self.weights = ms.ParameterTuple(decayed(network))
        self.masks = ms.ParameterTuple(
            ms.Parameter(ms.Tensor(np.ones(weight.shape, np.float32)), name=f"{weight.name}.mask", requires_grad=False)
            for weight in self.weights
        )

    def masks_in(self, epoch: int) -> list[ms.Tensor]:
        """By the weights as they are now. What is 0 is the smallest, and stays."""
        share = share_in(epoch, self.epochs, self.final)
        return [ms.Tensor(kept(weight.asnumpy(), share)) for weight in self.weights]

    def is_final(self, epoch: int) -> bool:
        return share_in(epoch, self.epochs, self.final) == self.final
