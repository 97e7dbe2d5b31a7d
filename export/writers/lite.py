"""Write the trained network as .ms for MindSpore Lite: pictures (B, ...), channels last -> probabilities (B, C), and
novelty (B,) where it is told.

By the converter of the package at PACKAGE_ROOT_PATH, from MindIR, where that variable is set (MindSpore Lite's
documentation, "Device-side Models Conversion"); else by the Python that has MindSpore Lite, from our ONNX.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

from datasets.base import InputError
from export.standalone.lite import convert_onnx, last_line
from export.writers.mindir import write_mindir
from export.writers.onnx_file import write_onnx
from finetune.insight.novelty import Novelty
from finetune.trained import Trained

PACKAGE = "PACKAGE_ROOT_PATH"


def write_lite(
    trained: Trained,
    path: Path,
    input_form: str,
    batch_size: int,
    weight_fp16: bool = False,
    novelty: Novelty | None = None,
) -> None:
    """`weight_fp16`: the weights are stored in half precision and computed with in float32.

    Raises:
        InputError: the converter does not convert it.
    """
    by_package = os.environ.get(PACKAGE)
    with tempfile.TemporaryDirectory() as place:
        try:
            if by_package:
                mindir = Path(place, "network.mindir")
                write_mindir(trained, mindir, input_form, batch_size, novelty=novelty)
                convert_mindir(Path(by_package), mindir, path, weight_fp16)
            else:
                onnx = Path(place, "network.onnx")
                write_onnx(trained, onnx, input_form, batch_size, novelty)
                convert_onnx(onnx, path, weight_fp16)
        except (OSError, RuntimeError) as error:
            by = f"the converter at {PACKAGE}={by_package}" if by_package else "MindSpore Lite's Python"
            raise InputError(
                f"{path.name}: {by} did not write it ({error}). Leave LITE out, or take another."
            ) from error
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)  # converters write 0400


def convert_mindir(package: Path, mindir: Path, path: Path, weight_fp16: bool) -> None:
    tools = package / "tools" / "converter"
    libraries = f"{tools / 'lib'}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}"
    command = [str(tools / "converter" / "converter_lite"), "--fmk=MINDIR", f"--modelFile={mindir}"]
    command += [f"--outputFile={path.with_suffix('')}", *(["--fp16=on"] if weight_fp16 else [])]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "LD_LIBRARY_PATH": libraries})
    if done.returncode or not path.is_file():
        raise RuntimeError(last_line(done.stderr or done.stdout))
