import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKOUT

from datasets.base import InputError
from finetune import device
from finetune.device import choose_platform, init_device, seed_everything, set_kernel_guard


@pytest.mark.parametrize(
    "wanted, available, chosen",
    [
        ("auto", ("CPU",), "CPU"),
        ("auto", ("GPU", "CPU"), "GPU"),
        ("auto", ("Ascend", "GPU", "CPU"), "Ascend"),
        ("cpu", ("GPU", "CPU"), "CPU"),
        ("ASCEND", ("Ascend", "CPU"), "Ascend"),
    ],
)
def test_choose_platform(wanted, available, chosen):
    assert choose_platform(wanted, available) == chosen


def test_a_device_that_is_not_there():
    with pytest.raises(InputError) as caught:
        choose_platform("GPU", ("CPU",))
    for word in ("finds no GPU", "found: CPU", "--platform CPU", "finetune checks"):
        assert word in str(caught.value)


def test_an_unknown_platform_lists_the_known():
    with pytest.raises(InputError, match="Choose auto, Ascend, CPU, GPU"):
        choose_platform("TPU", ("CPU",))


@pytest.fixture
def x86(monkeypatch):
    monkeypatch.setattr(device.host, "machine", lambda: "x86_64")
    monkeypatch.setattr(device, "has_feature", lambda name: name == "AVX512F")
    monkeypatch.delenv(device.GUARD_VARIABLE, raising=False)
    return monkeypatch


def test_the_guard_is_set_where_it_helps(x86):
    assert set_kernel_guard() == "on: ONEDNN_MAX_CPU_ISA=AVX2"
    assert device.os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_the_guard_never_overrides_the_user(x86):
    x86.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert "left as you set it" in set_kernel_guard()
    assert device.os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE"


def test_the_guard_is_not_set_without_avx512_or_x86(x86):
    x86.setattr(device, "has_feature", lambda name: False)
    assert "no AVX-512" in set_kernel_guard()
    x86.setattr(device.host, "machine", lambda: "arm64")
    assert "not an x86" in set_kernel_guard()
    assert "ONEDNN_MAX_CPU_ISA" not in device.os.environ


@pytest.mark.parametrize(("given", "most"), [("1", 1), ("1,4", 1), ("0", 1), ("", 8), ("many", 8), ("64", 8)])
def test_tasks_keep_to_the_threads_that_were_given(monkeypatch, given, most):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(device, "usable_cores", lambda: 16)
    with device.one_core_each() as threads:
        assert threads._max_workers == most


@pytest.mark.parametrize("end", ["leave(0)", "sys.exit(0)"])
def test_folders_of_a_process_end_with_it(end):
    code = f"import sys; from finetune.device import *; print(folder_of_this_process(), flush=True); {end}"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, encoding="utf-8", check=True)
    assert "finetune-" in done.stdout and not Path(done.stdout.strip()).exists()


def test_device_id_is_the_flag_then_the_variable_then_zero(monkeypatch):
    monkeypatch.setenv("DEVICE_ID", "3")
    assert device.device_number(1) == 1
    assert device.device_number(None) == 3
    monkeypatch.delenv("DEVICE_ID")
    assert device.device_number(None) == 0


def test_device_id_that_is_no_number(monkeypatch):
    monkeypatch.setenv("DEVICE_ID", "first")
    with pytest.raises(InputError, match=r"DEVICE_ID='first'"):
        init_device("CPU")


def test_initialising_twice_is_allowed():
    assert init_device("CPU", seed=5) == init_device("CPU", seed=5)


def test_waiting_threads_sleep_unless_the_user_wants_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    init_device("CPU")
    assert device.os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    init_device("CPU")
    assert device.os.environ["OMP_WAIT_POLICY"] == "active"


def test_one_seed_seeds_everything():
    import mindspore as ms

    def draw():
        seed_everything(7)
        dataset = ms.dataset.NumpySlicesDataset(np.arange(50), shuffle=True)
        order = [int(row[0]) for row in dataset.create_tuple_iterator(output_numpy=True)]
        return random.random(), np.random.rand(), ms.ops.standard_normal((3,)).asnumpy().tolist(), order

    assert draw() == draw()


def test_leaving_at_once_says_all_and_gives_the_code():
    code = "from finetune.device import leave; import sys; print('said'); print('why', file=sys.stderr); leave(3)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "why\n")
