"""Many processes, one training: the result is that of one process, and nothing is left behind when one fails."""

import json
import os
import re
import signal
import subprocess
import sys

import mindspore as ms
import numpy as np
import psutil
import pytest
from conftest import CHECKOUT, SHARED, call

from datasets.base import InputError, MachineFault
from finetune.config import load_config
from finetune.workers import total
from finetune.workers.share import Share, join
from finetune.workers.start import complain, environment_alone

DIGITS = CHECKOUT / "finetune" / "configs" / "digits_bp.yaml"
MNIST = SHARED / "data" / "mnist"
LENET = (  # 1,211 rows: the last batch is not full, and the two workers' parts of it are not the same size
    *("train", DIGITS, "--epochs", 2, "--batch_size", 47, "--set", "model.network=lenet5", "--set", "model.kernel=3"),
    *("--set", "model.filters=4,8", "--set", "model.paddings=1,1", "--set", "model.layers=32"),
    *("--set", "train.learning_rate=0.05", "--set", "train.l2=0.01", "--set", "train.class_weights=balanced"),
    *("--set", "train.augment.shift=1", "--set", "model.activation=tanh"),
)


def weights_of(run):
    (file,) = (run / "ckpt").glob("*_best.ckpt")
    return {name: p.asnumpy() for name, p in ms.load_checkpoint(str(file)).items()}


def largest_difference(one, other):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def rows_of(run, name):
    return (run / name).read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_two_workers_end_with_the_weights_of_one_process(tmp_path):
    """52 steps with everything in the loss that has to be counted once."""
    for name, more in (("alone", ()), ("two", ("--workers", 2))):
        done = call("finetune", *LENET, "--runs_dir", tmp_path, "--name", name, *more)
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "two"]  # only the first worker writes
    alone, two = tmp_path / "alone", tmp_path / "two"
    assert largest_difference(alone, two) < 1e-5
    metrics, other = (json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in (alone, two))
    assert metrics["after"]["accuracy"] == other["after"]["accuracy"] > metrics["before"]["accuracy"]
    first, second = (np.loadtxt(run / "results.csv", delimiter=",", skiprows=1) for run in (alone, two))
    np.testing.assert_allclose(first[:, :5], second[:, :5], atol=1e-4)  # losses and accuracies of each epoch
    assert len(rows_of(two, "predictions.csv")) == 1 + metrics["after"]["pictures"] == 451
    for run, share in ((alone, {"rank": 0, "workers": 1}), (two, {"rank": 0, "workers": 2})):
        environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        assert environment["device"]["share"] == share


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_every_row_of_every_batch_has_one_worker(workers):
    batches = np.arange(1, 15).reshape(2, 7)
    parts = [Share(rank, workers).of_batches(batches, 0) for rank in range(workers)]
    assert len({part.shape for part in parts}) == 1
    for step in range(2):
        found = np.concatenate([part[step] for part in parts])
        assert sorted(found[found > 0]) == batches[step].tolist()
    rows = np.concatenate([Share(rank, workers).of_rows(10) for rank in range(workers)])
    assert sorted(rows) == list(range(10))


def test_workers_that_went_apart_are_found(monkeypatch):
    mine = [np.arange(6, dtype=np.float32)]
    digests = []

    def of_all(own, rows, count):
        digests.append(own[0])
        return np.stack([own[0], digests[0]])

    monkeypatch.setattr(total, "put_together", of_all)
    total.check_same(mine, Share(0, 2))
    total.check_same(mine, Share(1, 2))
    with pytest.raises(MachineFault, match="worker 1 are not those of worker 0"):
        total.check_same([mine[0] + np.float32(1e-6)], Share(0, 2))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "trains in a second and needs no workers"),
        ({"model.backbone": None, "train.batch_size": 1}, "batches of 1 rows"),
    ],
)
def test_what_makes_no_sense_is_refused(flags, words):
    with pytest.raises(InputError, match=words):
        load_config(None, {"workers": 2, **flags})


def test_a_process_that_nobody_started_is_told_what_to_give(monkeypatch):
    with pytest.raises(InputError, match="Give --workers 2"):
        join()
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    assert "MS_ROLE" not in environment_alone() and "PATH" in environment_alone()


@pytest.mark.parametrize(
    ("first", "second", "msrun", "kind", "words"),
    [
        (
            "epoch[1/2]\n",
            "error: no such folder.\nGive another.\n[INFO] DISTRIBUTED(18,7ff7,python):2026 Start]\n",
            "",
            InputError,
            r"^no such folder\.\nGive another\.$",
        ),
        ("epoch[1/2]\n", "Traceback (most\nValueError: 7\n", "", MachineFault, r"worker_1 failed:\nTrace.*\n.*7\n"),
        (
            "worker 0 of 2, process 41\n",
            "worker 1 of 2, process 42\n",
            "Worker process 42 exit with exception. Error code: -9.",
            MachineFault,
            "worker 1 of 2 was ended from outside by signal 9",
        ),
        ("", "", "Address already in use", MachineFault, "msrun failed:\nAddress already in use"),
    ],
)
def test_the_error_is_that_of_the_worker_that_failed(tmp_path, first, second, msrun, kind, words):
    for name, text in (("worker_0", first), ("worker_1", second), ("msrun", msrun)):
        (tmp_path / f"{name}.log").write_text(text, encoding="utf-8")
    with pytest.raises(kind, match=words) as caught:
        complain(tmp_path, 2)
    assert isinstance(caught.value, MachineFault) == (kind is MachineFault)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_them_all_and_the_same_command_works_again(tmp_path):
    command = [sys.executable, "-m", "finetune", *map(str, LENET), "--runs_dir", str(tmp_path), "--workers", "2"]
    endless = subprocess.Popen(
        [*command, "--epochs", "5000", "--set", "train.patience=0"],
        **{"cwd": CHECKOUT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"},
    )
    for line in endless.stdout:
        if line.startswith("epoch[2/"):
            break
    everybody = psutil.Process(endless.pid).children(recursive=True)
    started = [one for one in everybody if "--run_distribute" in one.cmdline()]
    victim = next(one for one in started if one.environ().get("RANK_ID") == "1")
    os.kill(victim.pid, signal.SIGKILL)
    _, errors = endless.communicate(timeout=60)
    assert endless.returncode == 1 and re.search("worker 1 of 2 was ended from outside by signal 9", errors)
    _, left = psutil.wait_procs(everybody, timeout=10)
    assert not left
    done = subprocess.run([*command, "--name", "again"], cwd=CHECKOUT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_stopped_leaves_no_worker(tmp_path, number):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    stopped = subprocess.Popen(
        [sys.executable, "-m", "finetune", *map(str, LENET), "--runs_dir", str(tmp_path), "--workers", "2"]
        + ["--epochs", "5000", "--set", "train.patience=0"],
        **{"cwd": CHECKOUT, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "encoding": "utf-8"},
    )
    for line in stopped.stdout:
        if line.startswith("epoch[2/"):
            break
    everybody = psutil.Process(stopped.pid).children(recursive=True)
    stopped.send_signal(number)
    try:
        assert stopped.wait(30) != 0
    finally:
        stopped.kill()
    stopped.stdout.close()
    _, left = psutil.wait_procs(everybody, timeout=90)  # killed: the scheduler hears of it by a missing heartbeat
    assert not left


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not here")
@pytest.mark.parametrize(("layers", "within"), [("mlp", 1e-5), ("lenet5", 1e-3)])
def test_mnist_is_learnt_as_by_one_process(tmp_path, layers, within):
    """50 steps of the recipe with momentum, weight decay and augmentation.

    The last bits of a convolution depend on how many rows it is given. Where two of four pixels are as good as equal,
    max pooling then takes the other one: one process that passes each batch in two halves ends as far off.
    """
    for name, more in (("alone", ()), ("two", ("--workers", 2))):
        done = call(
            *("finetune", "train", CHECKOUT / "finetune" / "configs" / "mnist_lenet.yaml", "--dataset_path", MNIST),
            *("--set", "data.fraction=0.0561", "--epochs", 1, "--set", f"model.network={layers}"),
            *("--runs_dir", tmp_path, "--name", name, *more),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "iter[50]" in done.stdout
    assert largest_difference(tmp_path / "alone", tmp_path / "two") < within


@pytest.mark.slow
def test_the_last_blocks_are_learnt_as_by_one_process(tmp_path, toy_pictures, toy_backbone):
    for name, more in (("alone", ()), ("two", ("--workers", 2))):
        done = call(
            *("finetune", "train", "--dataset_path", toy_pictures, "--pretrain_ckpt", toy_backbone, "--epochs", 4),
            *("--set", "model.train_from=block_15", "--set", "train.tail.epochs=3", "--set", "data.views=false"),
            *("--cache_dir", tmp_path / "cache", "--runs_dir", tmp_path / "runs", "--name", name, *more),
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["alone", "two"]
    assert not list((tmp_path / "runs").rglob("unfinished.npz"))
    assert largest_difference(tmp_path / "runs" / "alone", tmp_path / "runs" / "two") < 1e-5
