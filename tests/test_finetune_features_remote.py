"""Features by the machines of a Ray cluster: the same rows as here, whoever is killed. Ray itself is optional."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CHECKOUT, RED_GREEN, draw_toys
from PIL import Image

from datasets.base import InputError, MachineFault
from datasets.listing import find_pictures
from finetune.__main__ import main
from finetune.config import Config
from finetune.device import init_device
from finetune.features.cache import extract
from finetune.features.engines.choose import choose_engine
from finetune.features.remote import on_ray
from finetune.features.remote.on_ray import RayWorkers, answers, check_address, workers_of
from finetune.features.remote.ranges import RANGE, TRIES, parts_of, ranges
from finetune.features.remote.worker import Answer, Job, Worker
from finetune.features.views import PLAIN
from finetune.storage.store import FeatureStore
from pretrained.weights import load_backbone

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is optional: pip install -r requirements-ray.txt"
)


def node(cpu, alive=True, **others):
    return {"Alive": alive, "Resources": {"CPU": cpu, **others}}


# ---- without Ray ----


def test_without_ray_it_says_what_to_install(monkeypatch, capsys, toy_pictures, toy_backbone, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda name: None if name == "ray" else find_spec(name))
    flags = ("--dataset_path", toy_pictures, "--pretrain_ckpt", toy_backbone, "--cache_dir", tmp_path)
    assert main(["features", "--on", "ray", *map(str, flags)]) == 2
    said = capsys.readouterr().err
    assert "pip install -r requirements-ray.txt" in said
    assert (CHECKOUT / "requirements-ray.txt").is_file()


@pytest.mark.parametrize("address", ["dask", "ray://", "http://host:1"])
def test_an_unknown_address_is_refused(address):
    with pytest.raises(InputError, match=r"--on .*unknown.*ray://host:port"):
        check_address(address)


def test_ranges_hold_everything_once_in_order_with_the_views_of_a_picture_together():
    wanted = [(row, view) for row in range(700) for view in range(3)]
    paths, keys = [Path(f"{row}.png") for row in range(700)], [bytes([row % 256]) for row in range(700)]
    pieces = ranges(wanted, paths, keys, workers=2)
    assert [one for piece in pieces for one in piece.wanted] == wanted
    assert sum(len(piece.paths) for piece in pieces) == 700
    assert max(len(piece.wanted) for piece in pieces) <= RANGE + 2
    assert pieces[1].keys == {row: keys[row] for row in pieces[1].paths}


def test_parts_of_a_range_end_with_one_picture_tried_twice():
    paths = [Path(f"{row}.png") for row in range(200)]
    (piece,) = ranges([(row, 0) for row in range(200)], paths, [bytes(32)] * 200, workers=1)[:1]
    tries, steps = Counter(), 0
    while len(piece.wanted) > 1:
        parts = parts_of(piece, tries)
        assert [one for part in parts for one in part.wanted] == piece.wanted
        piece, steps = parts[0], steps + 1
    assert steps <= 3
    assert [len(parts_of(piece, tries)) for _ in range(TRIES)] == [1] * (TRIES - 1) + [0]


@pytest.mark.parametrize(
    ("nodes", "cores", "platform", "wanted"),
    [
        ([node(8), node(8), node(8, alive=False), node(0)], 0, "CPU", (on_ray.CORES, 4)),
        ([node(2), node(16)], 0, "CPU", (2, 9)),
        ([node(2)], 1, "CPU", (1, 2)),
        ([node(16, GPU=1), node(16)], 0, "GPU", (on_ray.CORES, 1)),
    ],
)
def test_workers_fill_the_machines(nodes, cores, platform, wanted):
    assert workers_of(nodes, cores, platform, "ray") == wanted


def test_no_room_is_said():
    with pytest.raises(MachineFault, match=r"8 core.*4 cores.*--threads"):
        workers_of([node(4)], 8, "CPU", "ray")


@pytest.fixture(scope="module")
def backbone(toy_backbone):
    return load_backbone(toy_backbone)


@pytest.fixture
def pictures(tmp_path):
    return find_pictures(draw_toys(tmp_path / "pictures", {"": 60}, RED_GREEN))


def slow_engine(started: Path, pause_s: float):
    """What makes an engine that knows nothing of networks, tells its process, and dies of a black picture. Inside of a
    function, so that it is sent to the worker as it is."""

    def make(backbone, device, config, cut):
        class Engine:
            numeric_class, batch_size = "toy", 8

            def __call__(self, images):
                (started / str(os.getpid())).touch()
                if not images.any(axis=(1, 2, 3)).all():
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(pause_s)
                return images.reshape(len(images), -1)[:, :64].astype(np.float32)

        return Engine()

    return make


def toy_job(backbone, store, make_engine, mark):
    facts = backbone.record, backbone.digest, backbone.folded, PLAIN, store, mark
    return Job(make_engine, Config(), "CPU", 1, None, *facts)


def test_a_worker_computes_its_range_and_tells(backbone, pictures, tmp_path):
    (tmp_path / "started").mkdir()
    pictures[1].write_bytes(b"no picture")
    (piece, *_) = ranges([(row, 0) for row in range(20)], pictures, [bytes(32)] * 20, workers=2)
    store = FeatureStore(tmp_path / "cache", {})
    worker, log = Worker(), logging.getLogger("finetune")
    before, level = [*log.handlers], log.level
    try:
        arrays = {parameter.name: parameter.asnumpy() for parameter in backbone.network.get_parameters()}
        worker.begin(toy_job(backbone, store, slow_engine(tmp_path / "started", 0), store.folder), arrays)
        log.warning("something to know")
        answer = worker.compute(piece.absolute())
    finally:
        log.handlers[:], log.level = before, level
    keys = [hashlib.sha256(path.read_bytes()).digest() for path in pictures[: len(piece.paths)]]
    assert answer.keys == dict(enumerate(keys))  # all of them are others than those looked up
    assert list(answer.damaged) == [keys[1]]
    assert answer.computed == len(keys) - 1
    assert (logging.WARNING, "something to know") in answer.said
    assert (store.read_index().find(np.array(keys, "S32"))[0] >= 0).sum() == answer.computed


def test_a_worker_that_sees_another_folder_says_so(backbone, tmp_path):
    store = FeatureStore(tmp_path / "cache", {})
    with pytest.raises(MachineFault, match=r"on .*features.* is not the folder .*--cache_dir"):
        Worker().begin(toy_job(backbone, store, None, store.folder / "mark.tmp"), {})


class FakeRay:
    """What `answers` needs of Ray, in this process: a call ends when it is waited for."""

    exceptions = SimpleNamespace(
        RayError=type("RayError", (Exception,), {}),
        RayActorError=type("RayActorError", (Exception,), {}),
        OutOfMemoryError=type("OutOfMemoryError", (Exception,), {}),
        WorkerCrashedError=type("WorkerCrashedError", (Exception,), {}),
        RayTaskError=type("RayTaskError", (Exception,), {}),
    )

    def __init__(self, compute, begin=lambda: None):
        self.begin, self.started, self.killed = begin, 0, 0
        self.worker = SimpleNamespace(compute=SimpleNamespace(remote=lambda piece: lambda: compute(piece)))

    def start(self):
        self.started += 1
        return self.worker, lambda: self.begin()

    def wait(self, calls, timeout):
        return calls[:1], calls[1:]

    def get(self, call):
        return call()

    def kill(self, worker):
        self.killed += 1


def pieces_of(count):
    paths, keys = [Path(f"{row}.png") for row in range(count)], [bytes([row]) * 32 for row in range(count)]
    return ranges([(row, 0) for row in range(count)], paths, keys, workers=2)


def test_pictures_that_kill_are_left_out_and_no_others():
    def compute(piece):
        if {3, 40, 41} & {*piece.paths}:
            raise ray.exceptions.RayActorError
        return Answer(len(piece.wanted), {}, {})

    ray = FakeRay(compute)
    found = list(answers(ray, ray.start, pieces_of(100), 2))
    assert sorted(row for piece, _ in found for row, _ in piece.wanted) == [*range(100)]
    assert sum(answer.computed for _, answer in found) == 97
    damaged = {key for _, answer in found for key in answer.damaged}
    assert damaged == {bytes([row]) * 32 for row in (3, 40, 41)}
    assert ray.killed == ray.started  # no worker is left


def test_workers_that_never_live_end_the_job():
    def begin():
        raise ray.exceptions.RayActorError("no module named finetune")

    ray = FakeRay(None, begin)
    with pytest.raises(MachineFault, match=r"no module named finetune.*checkout"):
        list(answers(ray, ray.start, pieces_of(20), 2))


def test_what_a_worker_says_is_wrong_ends_the_job_in_its_words():
    def compute(piece):
        error = ray.exceptions.RayTaskError()
        error.cause = MachineFault("on node7: the disk is full")
        raise error

    ray = FakeRay(compute)
    with pytest.raises(MachineFault, match=r"^on node7: the disk is full$"):
        list(answers(ray, ray.start, pieces_of(20), 2))
    assert ray.killed == ray.started


# ---- with Ray ----


@pytest.fixture(scope="module")
def cluster():
    """Two cores of this machine; gives its address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    variables = {"PYTHONPATH": str(CHECKOUT)}
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    yield context.address_info["address"]
    ray.shutdown()


def by_slow_engine(backbone, started, pause_s=0.0):
    started.mkdir()
    make = slow_engine(started, pause_s)
    return RayWorkers(backbone, "CPU", 1, replace(Config(), machines="ray"), None, "toy", make), make(*[None] * 4)


@needs_ray
def test_two_workers_give_the_bytes_of_a_local_run(cluster, backbone, pictures, tmp_path):
    pictures[3].write_bytes(b"no picture")
    device = init_device("CPU")
    config = Config(threads=1)
    here = extract(pictures, backbone, choose_engine(backbone, device, config), tmp_path / "here", 2)
    workers = choose_engine(backbone, device, replace(config, machines="ray"))
    there = extract(pictures, backbone, workers, tmp_path / "there", 2)
    assert there.rows[:].tobytes() == here.rows[:].tobytes()
    assert there.keys == here.keys and there.damaged == here.damaged and len(there.damaged) == 1
    assert there.computed == here.computed == 119
    assert extract(pictures, backbone, workers, tmp_path / "there", 2).computed == 0
    assert not list((tmp_path / "there").rglob("*.tmp"))


@pytest.mark.slow
@needs_ray
def test_a_picture_that_kills_its_worker_is_named_and_left_out(cluster, backbone, pictures, tmp_path):
    Image.new("RGB", (40, 40)).save(pictures[20])
    workers, _ = by_slow_engine(backbone, tmp_path / "started")
    found = extract(pictures, backbone, workers, tmp_path / "cache", 2)
    assert list(found.damaged) == [str(pictures[20])]
    assert "killed the process" in found.damaged[str(pictures[20])]
    assert found.computed == 119 and found.readable.sum() == 119


@pytest.mark.slow
@needs_ray
def test_killed_workers_are_replaced(cluster, backbone, pictures, tmp_path):
    workers, here = by_slow_engine(backbone, tmp_path / "started", pause_s=0.3)
    killed, done = set(), threading.Event()

    def kill_each_once():
        while len(killed) < 4 and not done.is_set():
            for process in {file.name for file in (tmp_path / "started").iterdir()} - killed:
                time.sleep(0.4 * len(killed))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
                    killed.add(process)
            time.sleep(0.05)

    threading.Thread(target=kill_each_once, daemon=True).start()
    found = extract(pictures, backbone, workers, tmp_path / "cache", 2)
    done.set()
    assert len(killed) >= 2
    assert found.computed == 120 and not found.damaged
    wanted = extract(pictures, backbone, here, tmp_path / "here", 2)
    assert found.rows[:].tobytes() == wanted.rows[:].tobytes()


@pytest.mark.slow
@needs_ray
def test_a_killed_driver_leaves_whole_chunks_and_the_same_command_goes_on(
    cluster, backbone, toy_backbone, pictures, tmp_path
):
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "finetune", "features", "--on", "ray", "--threads", 1, "--cache_dir", cache]
    command += ["--dataset_path", tmp_path / "pictures", "--pretrain_ckpt", toy_backbone, "--set", "data.views=false"]
    options = {"cwd": CHECKOUT, "env": {**os.environ, "RAY_ADDRESS": cluster}, "start_new_session": True}
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, **options)
    while not list(cache.rglob("*.keys.npy")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for file in cache.rglob("*.npy"):
        np.load(file)
    done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    engine = choose_engine(backbone, init_device("CPU"), Config())
    found = extract(pictures, backbone, engine, cache, 2)
    assert found.computed == 0 and found.readable.all()
    wanted = extract(pictures, backbone, engine, tmp_path / "here", 2)
    assert found.rows[:].tobytes() == wanted.rows[:].tobytes()
