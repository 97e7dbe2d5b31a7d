"""ONNX Runtime, the way most people use it: a plain loop of decode, run, decode, run."""

from __future__ import annotations

import numpy as np
import onnxruntime

from benchmarks.contest import arguments, folded, image_spec, loader, time_extraction
from datasets.image import normalise

BATCH_SIZE = 8

if __name__ == "__main__":
    given = arguments()
    spec, load = image_spec(folded(given.place)[0]), loader(given)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    session = onnxruntime.InferenceSession(
        str(given.place / "weights.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def extract(paths):
        rows = []
        for start in range(0, len(paths), BATCH_SIZE):
            images, _ = load(paths[start : start + BATCH_SIZE], spec)
            rows.append(session.run(None, {"x": normalise(images, spec)})[0])
        return np.concatenate(rows)

    batch = np.zeros((BATCH_SIZE, 3, *spec.size), np.float32)
    time_extraction(extract, lambda: session.run(None, {"x": batch}), given, "onnx_runtime", BATCH_SIZE)
