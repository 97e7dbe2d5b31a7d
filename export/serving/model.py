"""What is served: a bundle's model as one function, proven on the bundle's golden pictures before it answers.

The runtime is OpenVINO wherever an ONNX of the network is at hand: the bundle's own file, or for a run
folder one made in memory from its CKPT. A bundle that holds MindIR only is served by MindSpore.
"""

from __future__ import annotations

import queue
import sys
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import read_json
from datasets.image import ImageSpec
from export.key import right_key
from export.manifest import ANEW, FLOAT, MANIFEST, NOVELTY, PROBABILITIES, check_unchanged, read_manifest
from export.predictors import Seen
from export.verdict import NOVELTY_TOLERANCE, novelty_difference
from export.writers.class_maps import MAPS
from finetune.device import init_device, let_ctrl_c_through, usable_cores, without_kernel_guard
from finetune.insight.novelty import load_novelty
from finetune.run_folder import ckpt_path

BATCH_SIZE = 8  # pictures, at most
INPUT_FORMS = ("image", "tensor")  # in the order in which a bundle's files are preferred


class Served:
    """uint8 pictures (B, H, W, 3) -> what is `Seen`; to be called by up to `workers` threads at a time, best with up to
    `together` of the pictures that wait."""

    def __init__(self, bundle: Path, run: Path | None, manifest: dict, network, source: str):
        self.bundle, self.run, self.manifest = bundle, run, manifest
        self.classes = tuple(manifest["classes"])
        self.image = ImageSpec.from_dict(manifest["image"])
        self.confidence = manifest["confidence"]
        self.source = source  # the file that answers, in words
        self.runtime, self.workers, self.together = network.runtime, network.workers, network.together
        self.no_maps = network.no_maps  # None, or the reason why there are none
        self.novelty_threshold = manifest["novelty"]["threshold"] if network.tells_novelty else None
        self.network = network

    def __call__(self, images: np.ndarray) -> Seen:
        return self.network(images)


class OpenVinoNetwork:
    """An ONNX graph, on the CPU in float32: a stream a core, each called by a worker of its own.

    One stream on all cores would be quicker with a lone picture, but under load its threads wait for each other
    while the cores also decode.
    """

    runtime = "OpenVINO"
    together = 2  # pictures; of 8 clients 200 a second were answered, with 8 together 170: answers come evenly

    def __init__(self, model, spec: ImageSpec, input_form: str, threads: int):
        sys.modules.setdefault("openvino_telemetry", None)  # see finetune/features/engines/openvino.py
        import openvino

        from export.writers.class_maps import with_class_maps
        from export.writers.onnx_pixels import take_pixels

        take_pixels(model, spec, input_form)
        self.no_maps = None if with_class_maps(model) else "not_linear"
        self._outputs = [output.name for output in model.graph.output]
        self.tells_novelty = NOVELTY in self._outputs
        self.workers = threads or usable_cores()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # not stated, it is bf16 wherever the chip has it
            "INFERENCE_NUM_THREADS": self.workers,
            "NUM_STREAMS": self.workers,
        }
        self._idle = queue.SimpleQueue()
        with without_kernel_guard():
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
            for _ in range(self.workers):
                self._idle.put(compiled.create_infer_request())
            self(np.zeros((1, *spec.size, spec.channels), np.uint8))  # the first kernel reads the guard's variable

    def __call__(self, images: np.ndarray) -> Seen:
        request = self._idle.get()
        try:
            answer = request.infer([images])
            found = {name: answer[place].copy() for place, name in enumerate(self._outputs)}
            return Seen(found[PROBABILITIES], found.get(NOVELTY), None if self.no_maps else found[MAPS])
        finally:
            self._idle.put(request)


class MindirNetwork:
    """A MindIR file by MindSpore, which shows its answers only, not the feature map before them."""

    runtime = "MindSpore"
    workers = 1  # its graphs must not be called by two threads at once
    together = BATCH_SIZE
    no_maps = "mindir"

    def __init__(self, model: Path, threads: int, key: bytes | None):
        from export.predictors import MindirPredictor

        init_device("CPU", threads=threads)
        self._predict = MindirPredictor(model, threads, key)
        self.tells_novelty = self._predict.novelty_threshold is not None

    def __call__(self, images: np.ndarray) -> Seen:
        return self._predict.look(images)


def open_served(path: Path, threads: int = 0, key: bytes | None = None) -> Served:
    """The model of a run folder or of a bundle.

    Raises:
        InputError: there is no bundle, its model was changed, it does not give the golden pictures' answers, or the
            key is not its.
    """
    bundle = path if (path / MANIFEST).is_file() else path / "export"
    if not (bundle / MANIFEST).is_file():
        raise InputError(
            f"{path}: neither a bundle nor a run folder with one: no {MANIFEST} there or in {bundle}. "
            f"Make one: python -m export {path} --file_format MINDIR ONNX"
        )
    run = path if bundle != path else bundle.resolve().parent if is_export_of_a_run(bundle) else None
    manifest = read_manifest(bundle)
    network, source = open_network(bundle, run, manifest, threads, key)
    let_ctrl_c_through()
    check_unchanged(bundle, manifest, *manifest["models"])
    served = Served(bundle, run, manifest, network, source)
    check_golden(served)
    return served


def is_export_of_a_run(bundle: Path) -> bool:
    return bundle.resolve().name == "export" and (bundle.resolve().parent / "metrics.json").is_file()


def open_network(bundle: Path, run: Path | None, manifest: dict, threads: int, key: bytes | None) -> tuple:
    """(the network, which file it is of, in words)."""
    spec = ImageSpec.from_dict(manifest["image"])
    name = preferred(manifest, "ONNX")
    if name and not key:
        import onnx

        return OpenVinoNetwork(onnx.load(unchanged(bundle, name, manifest)), spec, form(manifest, name), threads), name
    if run and not key and not any("encryption" in facts for facts in manifest["models"].values()):
        init_device("CPU", threads=threads)
        from export.writers.onnx_file import onnx_model
        from finetune.trained import load_trained

        trained = load_trained(run)
        if trained.backbone:
            novelty = load_novelty(run) if manifest.get("novelty") else None
            network = OpenVinoNetwork(onnx_model(trained, "image", novelty=novelty), spec, "image", threads)
            return network, f"{ckpt_path(Path(), trained.name).as_posix()} as ONNX, made in memory"
    name = preferred(manifest, "MINDIR")
    if name is None:
        raise InputError(f"{bundle}: holds no MindIR, and nothing else is encrypted. Leave --enc_key_file out.")
    right_key(bundle / name, manifest["models"][name], key)
    return MindirNetwork(unchanged(bundle, name, manifest), threads, key), name


def preferred(manifest: dict, file_format: str) -> str | None:
    """The name of the model file to take of a format."""
    names = [
        name
        for name, facts in manifest["models"].items()
        if facts["file_format"] == file_format and facts["precision"] == FLOAT
    ]
    return min(names, key=lambda name: INPUT_FORMS.index(form(manifest, name)), default=None)


def form(manifest: dict, name: str) -> str:
    return manifest["models"][name]["input_form"]


def unchanged(bundle: Path, name: str, manifest: dict) -> Path:
    check_unchanged(bundle, manifest, name)
    return bundle / name


def check_golden(served: Served) -> None:
    """The golden pictures' stored inputs must give their stored probabilities and novelties."""
    try:
        expected = read_json(served.bundle / "golden" / "expected.json", ANEW, {"pictures": list, "tolerance": float})
        pictures = expected["pictures"]
        if not pictures:  # none could be read when the run was exported
            return
        images = np.stack([np.load(served.bundle / "golden" / picture["image"]) for picture in pictures])
        wanted = np.array([[picture["probabilities"][name] for name in served.classes] for picture in pictures])
        novelties = None
        if served.novelty_threshold is not None:
            novelties = np.array([picture["novelty"] for picture in pictures])
    except Exception as error:  # NumPy raises nearly any type on a damaged head
        raise InputError(f"{served.bundle / 'golden'}: not readable ({error}). {ANEW}") from error
    found = served(images)
    difference = np.abs(found.probabilities - wanted).max()
    if not difference <= expected["tolerance"]:
        raise InputError(
            f"{served.source}: on the golden pictures probabilities differ by up to {difference:.1e} from those of the "
            f"trained network, allowed {expected['tolerance']:.0e}. Export the run again."
        )
    if novelties is not None and not novelty_difference(novelties, found.novelty) <= NOVELTY_TOLERANCE:
        raise InputError(f"{served.source}: on the golden pictures it tells another novelty. Export the run again.")
