"""Toys for all tests: small drawn pictures, a tiny backbone, and one finished run."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.device import init_device

init_device("CPU")  # before any test module runs a kernel

import mindspore as ms  # noqa: E402
import yaml  # noqa: E402

from datasets.image import ImageSpec  # noqa: E402
from pretrained.files import facts_file  # noqa: E402
from pretrained.mobilenet_v2 import MobileNetV2  # noqa: E402
from pretrained.record import WeightsRecord  # noqa: E402

CHECKOUT = Path(__file__).parents[1]
SHARED = CHECKOUT.parent / "shared"
REAL_WEIGHTS = SHARED / "pretrained" / "mobilenet_v2_1.0_224_imagenet.ckpt"

needs_real_data = pytest.mark.skipif(not REAL_WEIGHTS.is_file(), reason="real photographs and weights are not here")

TOY_SPEC = ImageSpec(size=(32, 32), resize=36, mean_unit=(0.5, 0.5, 0.5), std_unit=(0.5, 0.5, 0.5))
TOY_RECORD = WeightsRecord(
    name="toy", width=0.1, pad_mode="pad", bn_eps=1e-3, image=TOY_SPEC, source="random numbers", licence="none"
)


def draw_toy(path: Path, colour: tuple[int, int, int], seed: int, side: int = 40) -> Path:
    """A noisy picture around one colour: no two seeds give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 15, (side, side, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def draw_toys(root: Path, counts: dict[str, int], classes: dict[str, tuple], suffix: str = ".png") -> Path:
    """`counts` pictures a class in each part folder; part "" is the flat layout."""
    seed = 0
    for part, count in counts.items():
        for name, colour in classes.items():
            for i in range(count):
                draw_toy(root / part / name / f"{name}_{i:03d}{suffix}", colour, seed)
                seed += 1
    return root


RED_GREEN = {"green": (60, 150, 60), "red": (150, 60, 60)}


def save_toy_backbone(path: Path, seed: int = 0, record: WeightsRecord = TOY_RECORD) -> Path:
    """A CKPT of random weights with its facts beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    network = MobileNetV2(record.width, record.pad_mode, record.bn_eps)
    rng = np.random.default_rng(seed)
    parameters = []
    for parameter in network.get_parameters():
        shape = tuple(parameter.shape)
        if parameter.name.endswith(("gamma", "moving_variance")):
            values = np.ones(shape)
        elif parameter.name.endswith(("beta", "moving_mean")):
            values = np.zeros(shape)
        else:
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        parameters.append({"name": parameter.name, "data": ms.Tensor(values.astype(np.float32))})
    ms.save_checkpoint(parameters, str(path))
    path.chmod(0o644)
    facts_file(path).write_text(yaml.safe_dump(record.to_dict()), encoding="utf-8")
    return path


def call(*arguments, **options) -> subprocess.CompletedProcess:
    """`python -m ...` as a user types it in the checkout."""
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, encoding="utf-8", **options)


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker ends with one of them alone."""
    longest = ["test_export_key", "test_finetune_training_scratch", "test_export_parity", "test_finetune_run"]
    items.sort(key=lambda item: longest.index(item.path.stem) if item.path.stem in longest else len(longest))


def made_once(factory, name: str, make):
    """What `make(folder)` returns, for all workers of a session: the first that asks makes it, the others wait.

    Only for what tests read and never change.
    """
    shared = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder, answer = shared / name, shared / f"{name}.pickle"
    try:
        folder.mkdir()
    except FileExistsError:
        while not answer.exists():
            time.sleep(0.1)
    else:
        try:
            made = make(folder)
        except BaseException as error:
            made = error
        (shared / f"{name}.part").write_bytes(pickle.dumps(made))
        (shared / f"{name}.part").replace(answer)
    made = pickle.loads(answer.read_bytes())
    if isinstance(made, BaseException):
        raise made
    return made


@pytest.fixture(scope="session")
def toy_backbone(tmp_path_factory) -> Path:
    return made_once(tmp_path_factory, "weights", lambda place: save_toy_backbone(place / "toy.ckpt"))


@pytest.fixture(scope="session")
def toy_pictures(tmp_path_factory) -> Path:
    return made_once(
        tmp_path_factory, "pictures", lambda place: draw_toys(place / "toys", {"train": 20, "eval": 8}, RED_GREEN)
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory, toy_pictures, toy_backbone) -> subprocess.CompletedProcess:
    """One whole run by the command line; its folder is `finished.folder`."""
    return made_once(tmp_path_factory, "finished", lambda place: whole_run(place, toy_pictures, toy_backbone))


def whole_run(place: Path, toy_pictures: Path, toy_backbone: Path) -> subprocess.CompletedProcess:
    done = call(
        *(
            "finetune",
            "run",
            "--dataset_path",
            toy_pictures,
            "--pretrain_ckpt",
            toy_backbone,
            "--epochs",
            8,
            "--set",
            "train.learning_rate=0.002",
        ),
        *("--batch_size", 16, "--name", "toys", "--runs_dir", place / "runs", "--cache_dir", place / "cache"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    done.folder = place / "runs" / "toys"
    done.cache = place / "cache"
    return done


@pytest.fixture(scope="session")
def exported(finished, tmp_path_factory) -> Path:
    """The finished run with ONNX of both input forms; not to be changed."""

    def export(place: Path) -> Path:
        folder = shutil.copytree(finished.folder, place / "toys")
        done = call("export", folder, "--file_format", "ONNX", "--input_form", "tensor", "image")
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    return made_once(tmp_path_factory, "exported", export)


@contextlib.contextmanager
def served_at(served, host: str = "127.0.0.1", public_urls=()):
    """The real server in a thread; gives its address."""
    from export.serving.server import make_server

    server = make_server(served, host, 0, public_urls)
    listening = server.config.bind_socket()
    listening.listen()
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
