"""What predict.py and verify.py share: the manifest of this folder, its checks, and its models.

Needs NumPy, Pillow and one runtime: MindSpore, ONNX Runtime or MindSpore Lite. The folder can be copied anywhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import lite
import numpy as np
from preprocessing import ImageSpec, normalise

MANIFEST = "manifest.json"
LABELS = "labels.txt"
PROBABILITIES, NOVELTY = "probabilities", "novelty"  # outputs of a model file


class Drift(Exception):
    """The folder is not, or does not compute, what was exported."""


def read_manifest(folder: Path) -> dict:
    """Raises Drift when there is none, or when one of its facts was changed."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        stated = manifest["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Drift(f"{path}: not a readable manifest ({error})") from error
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    if hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest() != stated:
        raise Drift(f"{path}: changed since it was exported")
    return manifest


def changed_files(folder: Path, manifest: dict) -> dict[str, str]:
    """{name: what is wrong} of the files that are not as the manifest states them."""
    wrong = {}
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            wrong[name] = "missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != facts["sha256"]:
            wrong[name] = "changed since it was exported"
    if LABELS not in wrong and read_labels(folder) != manifest["classes"]:
        wrong[LABELS] = f"other classes, or another order, than in {MANIFEST}"
    return wrong


def read_labels(folder: Path) -> list[str]:
    """C class names, a line each, in the order of the model's outputs."""
    return (folder / LABELS).read_text(encoding="utf-8").split("\n")[:-1]


def image_spec(manifest: dict) -> ImageSpec:
    return ImageSpec.from_dict(manifest["image"])


class MindIR:
    """By MindSpore, on the CPU."""

    needs = "mindspore (pip install mindspore)"

    @staticmethod
    def here() -> bool:
        return importlib.util.find_spec("mindspore") is not None

    def __init__(self, path: Path, facts: dict, key: bytes | None):
        os.environ.setdefault("GLOG_v", "3")  # errors only
        # On AVX-512 processors MindSpore 2.10 runs some convolutions ten times slower than with AVX2.
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
        import mindspore as ms

        ms.set_device("CPU")
        ms.set_context(mode=ms.GRAPH_MODE)
        self._tensor = ms.Tensor
        decryption = {"dec_key": key, "dec_mode": "AES-GCM"} if key else {}
        self._graph = ms.nn.GraphCell(ms.load(str(path), **decryption))

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        found = self._graph(self._tensor(x))
        return [one.asnumpy() for one in (found if isinstance(found, tuple) else [found])]


class Onnx:
    """By ONNX Runtime, on the CPU."""

    needs = "onnxruntime (pip install onnxruntime)"

    @staticmethod
    def here() -> bool:
        return importlib.util.find_spec("onnxruntime") is not None

    def __init__(self, path: Path, facts: dict, key: None):
        import onnxruntime

        self._input, self._outputs = facts["input_form"], facts["outputs"]
        options = onnxruntime.SessionOptions()
        # Without it sums of int8 overflow on x86 processors that lack VNNI.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        return self._session.run(self._outputs, {self._input: x})


class MindSporeLite:
    """By MindSpore Lite in a Python of its own, on the CPU. It wants channels last."""

    needs = lite.HOW_TO

    @staticmethod
    def here() -> bool:
        return lite.lite_python() is not None

    def __init__(self, path: Path, facts: dict, key: None):
        self._tensor = facts["input_form"] == "tensor"
        self._run = lite.Lite(path, 0, facts["outputs"])

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        return self._run(x.transpose(0, 2, 3, 1) if self._tensor else x)


RUNTIMES = {"ONNX": Onnx, "MINDIR": MindIR, "LITE": MindSporeLite}  # in the order in which predict.py tries them


class Model:
    """A model file as a function: uint8 pictures (B, H, W, 3) -> {output: (B, ...)}. Raises Drift for a wrong key."""

    def __init__(self, folder: Path, manifest: dict, name: str, key: bytes | None = None):
        facts = {"outputs": [PROBABILITIES], **manifest["models"][name]}  # older manifests do not say
        wrong = wrong_key(facts, key)
        if wrong:
            raise Drift(f"{name}: {wrong}")
        self.name = name
        self.spec = image_spec(manifest)
        self.input_form = facts["input_form"]
        self.batch_size = facts["input"]["shape"][0]  # -1: any
        self.outputs = facts["outputs"]
        self.runtime = RUNTIMES[facts["file_format"]](folder / name, facts, key)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return self.compute(normalise(images, self.spec) if self.input_form == "tensor" else images)

    def compute(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Any number of inputs in the file's input form. Where its batch size is fixed, the last one fills it up."""
        if self.batch_size == -1:
            return dict(zip(self.outputs, self.runtime(x)))
        found = []
        for start in range(0, len(x), self.batch_size):
            rows = np.minimum(np.arange(start, start + self.batch_size), len(x) - 1)
            found.append(self.runtime(x[rows]))
        return {name: np.concatenate(pieces)[: len(x)] for name, pieces in zip(self.outputs, zip(*found))}


def wrong_key(facts: dict, key: bytes | None) -> str | None:
    """What is wrong with the key for one of the manifest's models; None if nothing."""
    encryption = facts.get("encryption")
    if encryption is None:
        return None
    if key is None:
        return "encrypted; give the file with its key: --enc_key_file FILE"
    check = hashlib.sha256(b"key check of an encrypted MindIR" + key).hexdigest()[:16]
    return None if check == encryption["key_check"] else "encrypted with another key than the one in --enc_key_file"


def read_key(path: Path | None) -> bytes | None:
    """Raises Drift when there is no such file."""
    try:
        return path and path.read_bytes()
    except OSError as error:
        raise Drift(f"--enc_key_file {path}: cannot be read ({error.strerror})") from error


def certainty(probabilities: np.ndarray, manifest: dict) -> tuple[float, bool | None]:
    """(confidence, is it sure) of one picture's probabilities (C,); None where no threshold was fitted."""
    facts = manifest["confidence"]
    if facts is None:
        return float(probabilities.max()), None
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-38)) / facts["temperature"]
    confidence = float(1 / np.exp(logits - logits.max()).sum())
    return confidence, confidence >= facts["threshold"]


def missing_runtime(manifest: dict, name: str) -> str | None:
    """What a model file needs to be run and is not here; None if it is."""
    runtime = RUNTIMES[manifest["models"][name]["file_format"]]
    return None if runtime.here() else runtime.needs


def runnable(manifest: dict) -> list[str]:
    """The model files that can be run here, best first."""
    order = list(RUNTIMES)
    names = [name for name in manifest["models"] if missing_runtime(manifest, name) is None]
    return sorted(names, key=lambda name: order.index(manifest["models"][name]["file_format"]))


def no_runtime(manifest: dict) -> str:
    packages = sorted({missing_runtime(manifest, name) for name in manifest["models"]})
    return f"no runtime for {', '.join(manifest['models'])}: install {' or '.join(packages)}"
