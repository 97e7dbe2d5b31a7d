"""What this machine offers: `python -m finetune checks`."""

from __future__ import annotations

import os
import platform as host
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from datasets.base import InputError
from finetune.config import Config
from finetune.device import GUARD_VALUE, GUARD_VARIABLE, available_platforms, init_device
from finetune.run_folder import versions

PROBE_SHAPE = (8, 96, 56, 56)  # of a depthwise 3x3 convolution as MobileNetV2 has at 224
PROBE_REPEATS = 5


def show(config: Config) -> None:
    """Print what was found. Raises InputError if the device asked for is not there."""
    guarded = time_depthwise({GUARD_VARIABLE: GUARD_VALUE})
    unguarded = time_depthwise({GUARD_VARIABLE: ""})
    device = init_device(config.platform, config.device_id, config.threads, config.seed)
    rows = [
        ("Python", f"{host.python_version()} on {host.platform()}"),
        *versions().items(),
        ("devices found", ", ".join(available_platforms())),
        ("device used", f"{device.platform} {device.device_id}"),
        ("threads", f"{device.threads} of {os.cpu_count()} cores"),
        ("memory", memory()),
        ("kernel guard", device.kernel_guard),
        (
            "depthwise 3x3",
            f"{unguarded:.1f} ms without the guard, {guarded:.1f} ms with it: {unguarded / guarded:.1f} times",
        ),
        ("runs_dir", writable(Path(config.runs_dir))),
        ("cache_dir", writable(Path(config.cache_dir))),
    ]
    for name, found in rows:
        print(f"{name:15} {found}")


def time_depthwise(environment: dict[str, str]) -> float:
    """Milliseconds of one depthwise convolution on the CPU, in a process with these variables set."""
    variables = {**os.environ, **environment}
    variables = {name: value for name, value in variables.items() if value}
    done = subprocess.run([sys.executable, "-m", "finetune.checks"], env=variables, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"MindSpore cannot run a convolution here:\n{done.stderr.strip()[-2000:]}\n"
            "Install it again in a fresh environment: pip install -r requirements.txt"
        )
    return float(done.stdout.split()[-1])


def _probe() -> float:
    import mindspore as ms
    from mindspore import nn

    ms.set_device("CPU")
    channels = PROBE_SHAPE[1]
    conv = nn.Conv2d(channels, channels, 3, pad_mode="pad", padding=1, group=channels)
    x = ms.Tensor(np.ones(PROBE_SHAPE, np.float32))
    conv(x).asnumpy()
    seconds = []
    for _ in range(PROBE_REPEATS):
        started = time.perf_counter()
        conv(x).asnumpy()
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))


def memory() -> str:
    import psutil

    found = psutil.virtual_memory()
    return f"{found.available / 2**30:.1f} GiB free of {found.total / 2**30:.1f} GiB"


def writable(folder: Path) -> str:
    """The folder, or the nearest one above it that exists, and whether files can be made in it."""
    nearest = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return f"{folder.resolve()}: writable"
    except OSError as error:
        return f"{folder.resolve()}: NOT writable ({error.strerror})"


if __name__ == "__main__":
    print(_probe())
