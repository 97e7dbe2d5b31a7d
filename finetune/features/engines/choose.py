"""Which engine computes the features, and the proof that it computes the right ones.

    platform       --engine auto
    CPU            openvino where it is installed, else mindspore as processes side by side
    GPU, Ascend    mindspore

Another engine than MindSpore is imported, compiled and compared with MindSpore when the first pictures
have to be computed, on those pictures: a run that finds everything cached pays nothing.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable

import numpy as np

from datasets.base import InputError
from finetune.config import Config
from finetune.device import Device
from finetune.features.engines.mindspore import MindSporeEngine
from finetune.features.engines.mindspore_processes import MindSporeProcesses
from finetune.features.engines.pixels import Pixels
from finetune.features.remote.on_ray import RayWorkers
from pretrained.weights import Backbone

PICTURES_COMPARED = 2
# Largest |engine - MindSpore| / |MindSpore| of a row. f32: a cosine of at least 0.9999995. bf16: 0.99; the worst of 400
# photographs moved by 0.031 (0.9995).
LARGEST_DISTANCE = {"f32": 0.001, "bf16": 0.14}
# Cached rows of one class never mix with another's. Earlier bf16 were rounded with less care.
NUMERIC_CLASS = {"f32": "f32", "bf16": "bf16-3"}

log = logging.getLogger("finetune")


def choose_engine(
    backbone: Backbone, device: Device, config: Config, cut: int | None = None
) -> MindSporeEngine | MindSporeProcesses | ComparedEngine | Pixels | RayWorkers:
    """The engine for a backbone on a device, or for what stands in front of its block `cut`; or the machines that have
    one each.

    Raises:
        InputError: the engine or the precision asked for cannot be had here; says what can.
    """
    name = choose_name(device.platform, config.engine, config.precision)
    if config.machines:
        # MindSpore on one core each, for the reason that it has processes here
        cores = 1 if (name, device.platform) == ("mindspore", "CPU") else config.threads
        numeric_class = NUMERIC_CLASS[config.precision]
        return RayWorkers(backbone, device.platform, cores, config, cut, numeric_class, choose_engine)
    if cut == 0:
        return Pixels()
    if name == "mindspore":
        several = device.platform == "CPU" and device.threads > 1
        return MindSporeProcesses(backbone, device.threads, cut) if several else MindSporeEngine(backbone, cut)

    def make():
        from finetune.features.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(backbone, config.precision, device.threads, cut)

    return ComparedEngine("openvino", config.precision, make, MindSporeEngine(backbone, cut))


def choose_name(platform: str, engine: str, precision: str) -> str:
    installed = all(importlib.util.find_spec(name) for name in ("openvino", "onnx"))
    if engine == "openvino" and platform != "CPU":
        raise InputError(f"--engine openvino: it computes on the CPU, not on {platform}. Use --engine auto.")
    if engine == "openvino" and not installed:
        raise InputError("--engine openvino: not installed. Use --engine mindspore, or: pip install openvino onnx")
    name = "openvino" if engine != "mindspore" and platform == "CPU" and installed else "mindspore"
    if precision != "f32" and name == "mindspore":
        raise InputError(
            f"--precision {precision}: needs the engine openvino, and here it is mindspore. Use --precision f32."
        )
    return name


class ComparedEngine:
    """An engine that is made at its first call, and replaced by MindSpore's if it disagrees with it there."""

    def __init__(self, name: str, precision: str, make: Callable, reference: MindSporeEngine):
        self.name, self.precision, self.batch_size = name, precision, reference.batch_size
        self.numeric_class = NUMERIC_CLASS[precision]
        self.make, self.reference = make, reference
        self.chosen = None
        self.choosing = threading.Lock()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with self.choosing:
            if self.chosen is None:
                self.chosen = self._choose(images[:PICTURES_COMPARED])
        return self.chosen(images)

    def _choose(self, images: np.ndarray):
        """The engine itself where it agrees with MindSpore on these pictures.

        Raises:
            InputError: it cannot be used, and MindSpore does not have the precision asked for.
        """
        try:
            engine = self.make()
            distance = largest_distance(engine(images), self.reference.once(images))
        except (ImportError, RuntimeError, OSError) as error:
            found = f"cannot be used here: {str(error).strip()[:300]}"
        else:
            found = (
                f"differs from mindspore by {distance:.1e} at most on {len(images)} picture(s), "
                f"{LARGEST_DISTANCE[self.precision]:g} is allowed"
            )
            if distance <= LARGEST_DISTANCE[self.precision]:  # False for NaN
                log.info("engine: %s %s; %s", self.name, self.precision, found)
                return engine
        if self.numeric_class != self.reference.numeric_class:
            raise InputError(f"engine: {self.name} {self.precision} {found}. Use --precision f32.")
        log.warning("engine: mindspore; %s %s", self.name, found)
        self.name = self.reference.name
        return self.reference


def largest_distance(rows: np.ndarray, reference: np.ndarray) -> float:
    """Of rows (B, ...) from the reference, as a share of the length of the reference row."""
    rows, reference = (values.reshape(len(values), -1) for values in (rows, reference))
    lengths = np.maximum(np.linalg.norm(reference, axis=1), np.finfo(np.float32).tiny)
    return float((np.linalg.norm(rows - reference, axis=1) / lengths).max())
