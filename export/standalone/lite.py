"""MindSpore Lite, by a Python of its own: its wheels are for other versions of Python than ours.

    python lite.py convert in.onnx out.ms [--weight_fp16]     needs mindspore_lite
    python lite.py run model.ms THREADS OUTPUT ...            the same; arrays in on standard input, arrays out

`Lite` starts the second one and asks it. Which Python: the variable MINDSPORE_LITE_PYTHON, else this one. The package
index has mindspore-lite 2.0.0 for Python 3.7 on Linux x86-64, and this file keeps to what that version understands.
"""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

VARIABLE = "MINDSPORE_LITE_PYTHON"
HOW_TO = (
    f"a Python with MindSpore Lite: python3.7 -m venv lite && lite/bin/pip install mindspore-lite==2.0.0, "
    f"then {VARIABLE}=$PWD/lite/bin/python"
)


def lite_python() -> str | None:
    """The Python that has MindSpore Lite, as far as can be told without starting it."""
    return os.environ.get(VARIABLE) or (sys.executable if importlib.util.find_spec("mindspore_lite") else None)


class Lite:
    """A .ms file as a function of one batch, which gives the outputs of these names; raises RuntimeError where it does
    not run."""

    def __init__(self, path: Path, threads: int, outputs: list[str]):
        self._process = None
        self._outputs = outputs
        command = [lite_python(), str(Path(__file__)), "run", str(path), str(threads), *outputs]
        # A pipe that nobody reads would fill up, and then it waits for ever.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._said}
        try:
            self._process = subprocess.Popen(command, **pipes)
        except OSError as error:
            raise RuntimeError(f"{command[0]} cannot be started ({error.strerror}); see {VARIABLE}") from error

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        try:
            send(self._process.stdin, batch)
            return [receive(self._process.stdout) for _ in self._outputs]
        except (OSError, EOFError, ValueError):  # it has ended
            self._process.kill()
            self._process.wait()
            self._said.seek(0)
            raise RuntimeError(f"{last_line(self._said.read())} (by {self._process.args[0]})") from None

    def __del__(self):
        if self._process and self._process.poll() is None:
            self._process.communicate()  # closes its input, which ends it


def send(pipe, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array)
    pipe.write(struct.pack("<Q", content.tell()) + content.getvalue())
    pipe.flush()


def receive(pipe) -> np.ndarray:
    """Raises EOFError where the other side has ended."""
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    size = struct.unpack("<Q", head)[0]
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return np.load(io.BytesIO(content))


def convert_onnx(onnx: Path, path: Path, weight_fp16: bool = False) -> None:
    """Raises RuntimeError with what the converter said."""
    command = [lite_python(), str(Path(__file__)), "convert", str(onnx), str(path)]
    done = subprocess.run(command + ["--weight_fp16"] * weight_fp16, capture_output=True)
    if done.returncode or not path.is_file():
        raise RuntimeError(last_line(done.stderr or done.stdout))


def last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


def convert(onnx: str, path: str, weight_fp16: bool) -> None:
    import mindspore_lite

    converter = mindspore_lite.Converter()
    converter.save_type = mindspore_lite.ModelType.MINDIR_LITE
    converter.weight_fp16 = weight_fp16
    converter.convert(mindspore_lite.FmkType.ONNX, onnx, path[: -len(".ms")])  # which it adds


def run(path: str, threads: int, outputs: list) -> None:
    """Answer each array with those of the outputs until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is no answer
    import mindspore_lite

    context = mindspore_lite.Context()
    context.target = ["cpu"]
    if threads:
        context.cpu.thread_num = threads
    model = mindspore_lite.Model()
    model.build_from_file(path, mindspore_lite.ModelType.MINDIR_LITE, context)
    (given,) = model.get_inputs()
    while True:
        try:
            batch = receive(sys.stdin.buffer)
        except EOFError:
            return
        if list(batch.shape) != given.shape:
            raise ValueError(f"an input of shape {given.shape} is wanted, {list(batch.shape)} was given")
        given.set_data_from_numpy(batch)
        for _, found in zip(outputs, model.predict([given])):  # in the order of the graph; names are the converter's
            send(answers, found.get_data_to_numpy())


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "convert":
        convert(arguments[0], arguments[1], "--weight_fp16" in arguments)
    else:
        run(arguments[0], int(arguments[1]), arguments[2:])
