"""PyTorch: channels-last, BatchNorm folded, inference mode, the next batches decoded by a thread pool."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.contest import (
    arguments,
    batches_decoded_ahead,
    folded,
    head_data,
    image_spec,
    loader,
    peak_mb,
    pictures,
    report,
    time_extraction,
    timed,
)

BATCH_SIZE = 16
EPOCHS, HEAD_BATCH = 30, 64


class Convolution(nn.Module):
    def __init__(self, weight, bias, stride, group, relu6, pad_mode):
        super().__init__()
        kernel_size = weight.shape[-1]
        padding = (kernel_size - 1) // 2
        self.left = self.right = 0
        if pad_mode == "same" and stride == 2:  # even sides: as TensorFlow, all of it on the right and bottom
            self.left, self.right, padding = 0, kernel_size - 2, 0
        channels = weight.shape[1] * group
        self.conv = nn.Conv2d(channels, weight.shape[0], kernel_size, stride, padding, groups=group)
        self.conv.weight.data, self.conv.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        self.relu6 = relu6

    def forward(self, x):
        if self.right:
            x = nn.functional.pad(x, (self.left, self.right, self.left, self.right))
        x = self.conv(x)
        return nn.functional.relu6(x, inplace=True) if self.relu6 else x


class Network(nn.Module):
    def __init__(self, facts, arrays):
        super().__init__()
        self.residual = [block["residual"] for block in facts["blocks"]]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    Convolution(arrays[f"{b}_{c}_weight"], arrays[f"{b}_{c}_bias"], **kind, pad_mode=facts["pad_mode"])
                    for c, kind in enumerate(block["convolutions"])
                )
            )
            for b, block in enumerate(facts["blocks"])
        )

    def forward(self, x):
        for block, residual in zip(self.blocks, self.residual):
            x = x + block(x) if residual else block(x)
        return x.mean((2, 3))


def load(given) -> tuple[Network, dict]:
    facts, arrays = folded(given.place)
    return Network(facts, arrays).eval().to(memory_format=torch.channels_last), facts


def forward(network, batch: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)).numpy()


def extract(network, facts, paths, given) -> np.ndarray:
    batches = batches_decoded_ahead(paths, image_spec(facts), BATCH_SIZE, given.threads, loader(given))
    return np.concatenate([forward(network, batch) for batch in batches])


def train_head(x: np.ndarray, y: np.ndarray) -> nn.Linear:
    """The same optimizer, batch size, L2 penalty and number of epochs as ours."""
    torch.manual_seed(1)
    x, y = torch.from_numpy(x), torch.from_numpy(y).long()
    head = nn.Linear(x.shape[1], int(y.max()) + 1)
    optimizer = torch.optim.Adam(head.parameters())
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(HEAD_BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(x[rows]), y[rows]) + 0.01 * head.weight.square().sum()
            loss.backward()
            optimizer.step()
    return head


if __name__ == "__main__":
    given = arguments()
    torch.set_num_threads(given.threads)
    if given.task == "extract":
        network, facts = load(given)
        batch = np.zeros((BATCH_SIZE, 3, *image_spec(facts).size), np.float32)
        time_extraction(
            lambda paths: extract(network, facts, paths, given),
            lambda: forward(network, batch),
            given,
            "pytorch",
            BATCH_SIZE,
        )
    elif given.task == "head":
        x, y = head_data(given.place)
        train_head(x[:HEAD_BATCH], y[:HEAD_BATCH])
        seconds, _ = timed(lambda: train_head(x, y))
        report(seconds=seconds, peak_mb=peak_mb())
    else:  # cold and warm: from the start of the process to a trained head; run.py holds the watch
        if given.task == "cold":
            network, facts = load(given)
            paths = pictures(given)
            np.save(given.place / "pytorch_features.npy", extract(network, facts, paths, given))
        x = np.load(given.place / "pytorch_features.npy")
        train_head(x, (np.arange(len(x)) >= len(x) // 2).astype(np.int32))
        report(peak_mb=peak_mb())
