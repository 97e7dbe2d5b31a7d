"""The context initializer: device, threads, seeds, and the CPU kernel guard.

Called once, before the first kernel. The environment variables it sets are read by MindSpore and
its libraries when they load, so this module imports MindSpore inside the functions only.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import platform as host
import random
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from datasets.base import InputError
from finetune.workers.share import ALONE, Share, end_with_starter, is_started, join

PLATFORMS = ("Ascend", "GPU", "CPU")  # in the order in which "auto" tries them
GUARD_VARIABLE = "ONEDNN_MAX_CPU_ISA"
GUARD_VALUE = "AVX2"
MOST_TASKS = 8  # at a time: each may hold the rows that it works on
FOLDERS: list[Path] = []  # that end with this process


@dataclass(frozen=True)
class Device:
    platform: str  # CPU, GPU or Ascend
    device_id: int
    threads: int
    kernel_guard: str  # what was decided, in words
    share: Share = ALONE  # of a training


def init_device(
    platform: str = "auto", device_id: int | None = None, threads: int = 0, seed: int = 1, many: bool = False
) -> Device:
    """Choose the device and seed everything that draws random numbers. With `many` this is one of the processes that
    `msrun` has started, and meets the others; the threads are those of all workers together.

    Raises:
        InputError: the device is not there, or DEVICE_ID is not a number.
    """
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's log: errors only
    if many:
        end_with_starter()
        threads = max(1, (threads or usable_cores()) // int(os.environ.get("MS_WORKER_NUM", "1")))
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    threads = threads or usable_cores()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # Between two kernels OpenMP's threads would keep their cores busy: 47 instead of 72 pictures a second.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    guard = set_kernel_guard()  # also where a GPU computes: it concerns CPU kernels only

    let_ctrl_c_through()

    gc.disable()  # importing makes no garbage to look for
    import mindspore as ms

    gc.enable()
    chosen = choose_platform(platform, available_platforms())
    number = device_number(device_id)
    try:
        ms.set_device(chosen, number) if chosen != "CPU" else ms.set_device("CPU")
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{chosen} {number} cannot be used: {str(error).strip().splitlines()[0]} "
            "Choose another --device_id, or --platform CPU."
        ) from error
    ms.set_context(mode=ms.GRAPH_MODE)
    share = join() if many else ALONE
    seed_everything(seed)
    gc.freeze()  # MindSpore collects garbage before each compilation; what is imported by now is none
    return Device(chosen, number, threads, guard, share)


def let_ctrl_c_through() -> None:
    """Make Ctrl-C a KeyboardInterrupt again.

    MindSpore answers SIGINT by sending SIGTERM to its own process, which would end it on the spot:
    nothing could be written and nobody told. Taken as an interrupt, SIGTERM unwinds like Ctrl-C.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """End the process at once: an ordinary exit takes down all that MindSpore has built up, which takes 0.3 s.

    Matplotlib has a folder to clean up where it could not write into the home directory, and a worker tells the others.
    """
    remove_folders()
    if "matplotlib" in sys.modules or is_started():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def folder_of_this_process() -> Path:
    """Its user's alone; removed where the process ends by itself, or by `leave`."""
    if not FOLDERS:
        atexit.register(remove_folders)
    FOLDERS.append(Path(tempfile.mkdtemp(prefix="finetune-")))
    return FOLDERS[-1]


def remove_folders() -> None:
    while FOLDERS:
        shutil.rmtree(FOLDERS.pop(), ignore_errors=True)


def seed_everything(seed: int) -> None:
    """Python, NumPy, MindSpore and its data pipelines."""
    import mindspore as ms

    random.seed(seed)
    np.random.seed(seed)
    ms.set_seed(seed)
    ms.dataset.config.set_seed(seed)


def choose_platform(wanted: str, available: tuple[str, ...]) -> str:
    """The platform to use; "auto" takes the fastest that is there."""
    by_lower = {name.lower(): name for name in PLATFORMS}
    if wanted.lower() == "auto":
        return next(name for name in PLATFORMS if name in available)
    name = by_lower.get(wanted.lower())
    if name is None:
        raise InputError(f"--platform {wanted}: unknown. Choose auto, {', '.join(sorted(PLATFORMS))}.")
    if name not in available:
        raise InputError(
            f"--platform {name}: MindSpore finds no {name} here; found: {', '.join(available)}. Continue with "
            f"--platform {available[-1]}, or install the driver and the MindSpore package for {name} "
            "(https://www.mindspore.cn/install/en) and see `python -m finetune checks`."
        )
    return name


def available_platforms() -> tuple[str, ...]:
    """The platforms this MindSpore can run on, in the order of PLATFORMS."""
    import mindspore as ms

    return tuple(name for name in PLATFORMS if name == "CPU" or ms.hal.is_available(name))


def set_kernel_guard() -> str:
    """Keep oneDNN off its AVX-512 reference kernels; returns what was decided, in words.

    MindSpore 2.10 bundles oneDNN 3.10.1, whose AVX-512 path runs 3x3, 5x5 and depthwise convolutions
    through a reference kernel about ten times slower than its AVX2 path.
    """
    if host.machine().lower() not in ("x86_64", "amd64"):
        return "not needed: not an x86 processor"
    if GUARD_VARIABLE in os.environ:
        return f"left as you set it: {GUARD_VARIABLE}={os.environ[GUARD_VARIABLE]}"
    if not has_feature("AVX512F"):
        return "not needed: no AVX-512"
    os.environ[GUARD_VARIABLE] = GUARD_VALUE
    return f"on: {GUARD_VARIABLE}={GUARD_VALUE}"


@contextlib.contextmanager
def without_kernel_guard() -> Iterator[None]:
    """For other libraries with a oneDNN of their own that has no such fault. They read the variable once,
    at their first kernel, and MindSpore has read it, or will read it again, outside of this block."""
    guard = os.environ.get(GUARD_VARIABLE)
    if guard == GUARD_VALUE:
        del os.environ[GUARD_VARIABLE]
    try:
        yield
    finally:
        if guard is not None:
            os.environ[GUARD_VARIABLE] = guard


def has_feature(name: str) -> bool:
    """Of the processor, by the names and the eyes of NumPy's own kernel dispatch: AVX2, AVX512F, ..."""
    core = getattr(np, "_core", None) or np.core
    return bool(core._multiarray_umath.__cpu_features__.get(name, False))


def usable_cores() -> int:
    """Cores this process may run on, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def one_core_each() -> Iterator[ThreadPoolExecutor]:
    """A thread a core, of as many as `init_device` was given, for tasks that hang together in nothing; each product of
    matrices in them keeps to its own core.

    Left to itself BLAS cuts each small product into as many parts as there are cores, whose threads then wait for one
    another with the core busy: on a machine with other work twelve times the processor time. What a product gives does
    not depend on the number of cores either.
    """
    from threadpoolctl import threadpool_limits

    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # "4,2": of each level
    count = min(int(given) if given.isdecimal() else MOST_TASKS, usable_cores(), MOST_TASKS)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max(1, count)) as threads:
        yield threads


def device_number(given: int | None) -> int:
    if given is not None:
        return given
    text = os.environ.get("DEVICE_ID", "0")
    if not text.isdigit():
        raise InputError(f"DEVICE_ID={text!r}: must be a number from 0. Correct it, or give --device_id.")
    return int(text)
