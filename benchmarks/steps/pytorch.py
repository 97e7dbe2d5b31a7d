"""PyTorch's contestant: the same network, loss and optimizer, eager, as its documentation writes a training step."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import nn

from benchmarks.contest import folded, image_spec
from benchmarks.peers.pytorch import Network
from benchmarks.steps.turns import WHOLE, arguments, head_weights, rows_of, take_turns
from datasets.image import mean_and_std


class Tail(nn.Module):
    """Blocks from the cut on, and the head."""

    def __init__(self, given: argparse.Namespace, y: np.ndarray):
        super().__init__()
        facts, arrays = folded(given.place)
        backbone = Network(facts, arrays)
        del backbone.blocks[: given.cut], backbone.residual[: given.cut]
        self.backbone = backbone
        weights = head_weights(y, backbone.blocks[-1][-1].conv.out_channels)
        self.head = nn.Linear(*weights.shape[::-1])
        self.head.weight.data, self.head.bias.data = torch.from_numpy(weights), torch.zeros(len(weights))
        self.scaled = given.cut == WHOLE
        self.mean, self.std = map(torch.from_numpy, mean_and_std(image_spec(facts)))

    def forward(self, x):
        x = x.float()
        if self.scaled:
            x = ((x - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.head(self.backbone(x.contiguous(memory_format=torch.channels_last)))


def optimizer_of(tail: Tail) -> torch.optim.AdamW:
    """Rates and decay of `finetune.config.TailConfig`: biases do not decay."""
    groups = []
    for parameters, rate in ((tail.backbone.parameters(), 0.0002), (tail.head.parameters(), 0.001)):
        for one in parameters:
            groups.append({"params": [one], "lr": rate, "weight_decay": 0.01 if one.ndim > 1 else 0.0})
    return torch.optim.AdamW(groups, fused=True)


if __name__ == "__main__":
    given = arguments()
    torch.set_num_threads(given.threads)
    x, y = map(torch.from_numpy, rows_of(given))
    y = y.long()
    tail = Tail(given, y.numpy()).to(memory_format=torch.channels_last)
    optimizer = optimizer_of(tail)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)

    def steps(places: np.ndarray) -> float:
        losses = []
        for batch in torch.from_numpy(places).split(given.batch_size):
            optimizer.zero_grad()
            loss = loss_of(tail(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    take_turns(steps, given, len(x))
