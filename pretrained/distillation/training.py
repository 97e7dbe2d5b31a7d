"""The loop of distillation: batches of views and the teacher's answers, the loss, the student's steps.

Letters: N pictures in the pool, K views a picture, B views a batch, D = 1280 features, H x W pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import queue
import stat
import threading
import time
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from pretrained.distillation.student import Kernels, Student, build_kernels, even_out, patches, settle_statistics
from pretrained.distillation.views import SIZE, SMALL
from pretrained.mobilenet_v2 import MobileNetV2
from pretrained.weights import load_strict, read_ckpt

SIZES = ((0.65, SMALL), (1.0, SIZE))  # until this part of the steps, pixels a side
TEMPERATURE = 2.0  # divides the teacher's logits: small probabilities say which classes are alike
COMPONENTS = 128  # principal components of the teacher's features
JITTER = 1 / 16  # of the side: how far a view is shifted, anew at each step
SAVE_EVERY = 500  # steps
SETTLE_BATCHES = 50


class Batches:
    """Batches in the order of the steps, made ahead in a thread. A batch depends on (seed, step) alone."""

    def __init__(self, views, targets_of, chance, args, first: int):
        self.views, self.targets_of, self.cumulated, self.args = views, targets_of, np.cumsum(chance), args
        self.ready = queue.Queue(maxsize=4)
        threading.Thread(target=self.fill, args=(first,), daemon=True).start()

    def fill(self, first: int) -> None:
        try:
            for step in range(first, self.args.steps):
                self.ready.put(self.make(step))
        except BaseException as error:
            self.ready.put(error)

    def make(self, step: int):
        rng = np.random.default_rng([self.args.seed, 1, step])
        b, size = self.args.batch_size, size_at(step, self.args.steps)
        rows = np.minimum(np.searchsorted(self.cumulated, rng.random(b)), len(self.cumulated) - 1)
        k = rng.integers(0, len(self.views[size]), b)
        pixels = self.views[size][k, rows]
        steps_away = rng.integers(-int(size * JITTER), int(size * JITTER) + 1, (b, 2))
        at = np.clip(np.arange(size) + steps_away[:, :, None], 0, size - 1)  # (B, 2, size)
        for i, mirrored in enumerate(rng.random(b) < 0.5):
            columns = at[i, 1, ::-1] if mirrored else at[i, 1]
            pixels[i] = pixels[i][at[i, 0]][:, columns]
        return patches(pixels), *self.targets_of(k, rows)

    def __next__(self):
        batch = self.ready.get()
        if isinstance(batch, BaseException):
            raise batch
        return batch


def size_at(step: int, steps: int) -> int:
    return next(size for part, size in SIZES if step < part * steps or part == 1.0)


def train(views: dict, features, chance: np.ndarray, args: argparse.Namespace) -> None:
    """Fit the student and write `args.out`; `<out>.training.ckpt` holds everything that a resumed run needs.

    `views` is {pixels a side: uint8 (K, N, H, W, 3)}, `features` float16 (K, N, D) of the teacher, `chance` (N,)
    how often each picture is drawn.
    """
    targets_of = make_targets(features, args.teacher)
    network = MobileNetV2(args.width, pad_mode="pad")
    initialise(network, args.seed)
    if args.start_from:
        load_strict(network, read_ckpt(args.start_from), args.start_from, "Give the CKPT of an earlier student.")
    named = [(p.name, p) for p in network.get_parameters()]  # a Cell renames what it takes in
    student = Student(network, Kernels(build_kernels(args.cache_dir))).set_train(True)
    classes = targets_of(np.array([0]), np.array([0]))[0].shape[1]
    # Centred inputs: features are means of ReLU6, all positive, and a map of those trains badly.
    centre = nn.BatchNorm1d(network.feature_size, affine=False).set_train(True)
    tell = nn.Dense(network.feature_size, classes + COMPONENTS, weight_init="zeros", bias_init="zeros")
    rates = schedule(args.lr, args.steps)
    optimizer = nn.Adam(
        [
            {"params": list(student.trainable_params()), "lr": rates},
            # Adam moves each of a wide layer's weights by the rate: 1,280 of them at once need a smaller one.
            {"params": list(tell.trainable_params()), "lr": [rate / 4 for rate in rates]},
        ]
    )

    def forward(x, soft, components):
        told = tell(centre(student(x)))
        divergence = (soft * (ops.log(soft + 1e-8) - ops.log_softmax(told[:, :classes]))).sum(1).mean()
        feature = (told[:, classes:] - components).square().mean()
        return divergence + feature, divergence, feature

    gradient = ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)

    @ms.jit
    def train_step(x, soft, components):
        losses, gradients = gradient(x, soft, components)
        optimizer(gradients)
        return losses

    everything = {p.name: p for cell in (student, centre, tell, optimizer) for p in cell.get_parameters()}
    everything = {name: p for name, p in everything.items() if "learning_rate" not in name}
    resume_file = args.out.with_name(f"{args.out.stem}.training.ckpt")
    first = load_state(resume_file, everything) if args.resume and resume_file.exists() else 0
    batches = Batches(views, targets_of, chance, args, first)
    begin, sums, count = time.time(), np.zeros(3), 0
    for step in range(first, args.steps):
        losses = train_step(*(ms.Tensor(array) for array in next(batches)))
        sums += [float(loss.asnumpy()) for loss in losses]
        count += 1
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            loss, divergence, feature = sums / count
            print(
                f"step[{step + 1}/{args.steps}] size {size_at(step, args.steps)}, loss: {loss:.4f}, "
                f"divergence: {divergence:.4f}, features: {feature:.4f}, "
                f"{count * args.batch_size / (time.time() - begin):.0f} pictures/s",
                flush=True,
            )
            begin, sums, count = time.time(), np.zeros(3), 0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == args.steps:
            save(resume_file, [(p.name, p) for p in everything.values()], {"step": step + 1})
    network = MobileNetV2(args.width, pad_mode="pad")
    for p, (_, trained) in zip(network.get_parameters(), named):
        p.set_data(ms.Tensor(trained.asnumpy()))
    plain = list(plain_batches(views[SIZES[-1][1]][: args.views], args))
    settle_statistics(network, plain)
    even_out(network, plain)
    save(args.out, [(p.name, p) for p in network.get_parameters()])
    digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {digest}")


def plain_batches(views, args):
    """Some views of the pool as the network reads them: float32 (B, 3, H, W)."""
    rng = np.random.default_rng([args.seed, 2])
    for _ in range(SETTLE_BATCHES):
        k, rows = rng.integers(0, views.shape[0], args.batch_size), rng.integers(0, views.shape[1], args.batch_size)
        yield np.ascontiguousarray(views[k, rows].transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1


def make_targets(features, teacher: Path):
    """A function of views (k, rows): the teacher's softened probabilities (B, C) and components (B, COMPONENTS)."""
    head = read_ckpt(teacher)
    weight, bias = head["dense.weight"], head["dense.bias"]
    some = np.asarray(features[0], np.float32)
    mean = some.mean(0)
    values, axes = np.linalg.eigh(np.cov(some - mean, rowvar=False))
    axes = axes[:, ::-1][:, :COMPONENTS] / np.sqrt(values[::-1][:COMPONENTS].mean())
    axes = axes.astype(np.float32)

    def targets_of(k, rows):
        own = np.asarray(features[k, rows], np.float32)
        logits = (own @ weight.T + bias) / TEMPERATURE
        soft = np.exp(logits - logits.max(1, keepdims=True))
        return soft / soft.sum(1, keepdims=True), (own - mean) @ axes

    return targets_of


def initialise(network, seed: int) -> None:
    """He's normal for every convolution, from NumPy: the same start on every machine.

    Blocks with a shortcut begin as the identity (last gamma 0; Goyal et al., 2017): without it the untrained
    network scrambles its input, the first layer's gradient is 20 times the last one's, and little is learnt.
    """
    rng = np.random.default_rng(seed)
    for p in network.trainable_params():
        if p.ndim == 4:
            c_out, c_in, h, w = p.shape
            fan = h * w * (c_out if c_in > 1 else 1)  # outgoing; a depthwise kernel reads its own channel
            p.set_data(ms.Tensor(rng.normal(0, np.sqrt(2 / fan), p.shape).astype(np.float32)))
    for block in network.features:
        if getattr(block, "residual", False):
            gamma = block.conv[len(block.conv) - 1].gamma
            gamma.set_data(ms.Tensor(np.zeros(gamma.shape, np.float32)))


def schedule(peak: float, steps: int) -> list[float]:
    """Up in a line for 500 steps, then down to 0 along half a cosine."""
    at = np.arange(steps)
    return (peak * np.minimum((at + 1) / 500, 0.5 + 0.5 * np.cos(np.pi * at / steps))).tolist()


def load_state(path: Path, into: dict) -> int:
    """The number of steps that are done."""
    stored = ms.load_checkpoint(str(path))
    for name, p in into.items():
        p.set_data(stored[name])
    return int(stored["step"].asnumpy())


def save(path: Path, named: list, extra: dict | None = None) -> None:
    """The file is there whole or not at all, and others may read it (MindSpore writes with mode 0400)."""
    rows = [{"name": name, "data": ms.Tensor(p.asnumpy())} for name, p in named]
    rows += [{"name": name, "data": ms.Tensor(value)} for name, value in (extra or {}).items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.ckpt")
    ms.save_checkpoint(rows, str(temporary))
    temporary.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
    temporary.replace(path)
