"""Results as Markdown tables: medians over the repeats, and ratios to ours."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

MODULES = "mindspore openvino onnxruntime torch tensorflow keras numpy sklearn PIL".split()


def machine(given: argparse.Namespace) -> str:
    versions = ", ".join(f"{name} {version}" for name in MODULES if (version := version_of(name)))
    cores = len(os.sched_getaffinity(0))
    return (
        f"Machine: {processor()}, {cores} cores, {platform.system()}; every contestant uses {cores} threads. "
        f"Python {platform.python_version()}, {versions}.\n\n"
        f"Medians of {given.repeats} repeats in turns, of the head three times as many; the range is lowest to "
        "highest. Made by `python -m benchmarks.run`."
    )


def version_of(module: str) -> str | None:
    """As the module itself says, in a process of its own: a package may be installed under another name, as
    tensorflow-cpu. None where it cannot be imported."""
    code = f"import {module}; print({module}.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    return done.stdout.split()[-1].partition("-")[0] if done.returncode == 0 else None


def processor() -> str:
    """The model and the vector instructions that decide these numbers."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name"))
    has = [label for label, flag in (("AVX-512", "avx512f"), ("AVX-512 bf16", "avx512_bf16"), ("AMX bf16", "amx_bf16"))
           if f" {flag}" in text]  # fmt: skip
    return f"{name} ({', '.join(has) or 'no AVX-512'})"


def extraction_table(runs: dict[str, list[dict]], place: Path) -> str:
    reference = _rate(runs["ours, OpenVINO f32"])
    rows = [
        ["contestant", "images/s", "range", "ours f32 is", "network alone", "peak MB", "lowest cosine"],
    ]
    for name, results in runs.items():
        if "error" in results[0]:
            rows.append([name, f"not run: {results[0]['error']}", *[""] * 5])
            continue
        rates = [r["pictures"] / r["seconds"] for r in results]
        forward = np.median([r["forward_rate"] for r in results]) if "forward_rate" in results[0] else np.nan
        rows.append([
            name, f"{np.median(rates):.1f}", f"{min(rates):.1f} to {max(rates):.1f}",
            f"{reference / np.median(rates):.2f} times as fast", _number(forward, 1),
            f"{np.median([r['peak_mb'] for r in results]):.0f}", _cosine(name, place),
        ])  # fmt: skip
    return "## From JPEG files to features\n\n" + _markdown(rows)


def telephone_table(runs: dict[str, list[dict]], place: Path) -> str:
    """The same of large photographs; the cosine is to ours, and the others decode the whole picture."""
    return extraction_table(runs, place).replace(
        "## From JPEG files to features",
        "## Photographs from a telephone, 4000 x 3000, to features; the others with their usual decoding",
    )


def head_table(runs: dict[str, list[dict]]) -> str:
    rows = [["contestant", "seconds", "range", "with compilation", "peak MB"]]
    for name, results in runs.items():
        if "error" in results[0]:
            rows.append([name, f"not run: {results[0]['error']}", "", "", ""])
            continue
        seconds = [r["seconds"] for r in results]
        compiled = np.median([r.get("with_compilation", np.nan) for r in results])
        rows.append([name, f"{np.median(seconds):.2f}", f"{min(seconds):.2f} to {max(seconds):.2f}",
                     _number(compiled, 2), f"{np.median([r['peak_mb'] for r in results]):.0f}"])  # fmt: skip
    return "## Head training on cached features, 30 epochs\n\n" + _markdown(rows)


def whole_table(runs: dict[str, list[dict]]) -> str:
    rows = [["job", "seconds, the whole process", "range"]]
    for name, results in runs.items():
        if "error" in results[0]:
            rows.append([name, f"not run: {results[0]['error']}", ""])
            continue
        seconds = [r["process_seconds"] for r in results]
        rows.append([name, f"{np.median(seconds):.1f}", f"{min(seconds):.1f} to {max(seconds):.1f}"])
    return "## The whole job\n\n" + _markdown(rows)


def growth_table(found: dict[int, dict]) -> str:
    broken = [r["error"] for r in found.values() if "error" in r]
    if broken:
        return f"## Growth\n\nnot run: {broken[0]}"
    counts = np.array(list(found))
    seconds = np.array([r["seconds"] for r in found.values()])
    rows = [["pictures", "seconds", "images/s", "peak MB"]]
    rows += [[f"{n}", f"{s:.1f}", f"{n / s:.0f}", f"{r['peak_mb']:.0f}"] for (n, r), s in zip(found.items(), seconds)]
    slope = f"\n\nSlope: {1000 * np.polyfit(counts, seconds, 1)[0]:.2f} ms a picture." if len(found) > 1 else ""
    return "## Growth: `python -m finetune features`, nothing cached\n\n" + _markdown(rows) + slope


def _rate(results: list[dict]) -> float:
    return float(np.median([r["pictures"] / r["seconds"] for r in results if "error" not in r]))


def _cosine(name: str, place: Path) -> str:
    """Of the features the contestant saved, where it computed the same pictures as ours."""
    files = {"ours, OpenVINO bf16": "ours_openvino_bf16", "ours, MindSpore": "ours_mindspore_f32", "PyTorch": "pytorch",
             "ONNX Runtime, plain loop": "onnx_runtime", "Keras": "keras"}  # fmt: skip
    if name not in files:
        return ""
    a, b = np.load(place / "ours_openvino_f32.npy"), np.load(place / f"{files[name]}.npy")
    return f"{((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min():.6f}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
