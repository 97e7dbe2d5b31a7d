"""The folded weights, and what stands in front of each cut, as plain files that both contestants read."""

from __future__ import annotations

from finetune.device import init_device

if __name__ == "__main__":
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser()
    parser.add_argument("--pretrain_ckpt", type=Path, required=True)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--cuts", type=int, nargs="+", required=True)
    parser.add_argument("--rows", type=int, required=True)
    given = parser.parse_args()
    init_device("CPU")

    import numpy as np

    from benchmarks.contest import write_folded
    from benchmarks.steps.turns import WHOLE
    from datasets.image import load_images
    from datasets.load import load
    from finetune.features.engines.mindspore import MindSporeEngine
    from pretrained.fold import fold
    from pretrained.weights import load_backbone

    backbone = load_backbone(given.pretrain_ckpt)
    write_folded(given.place, fold(backbone.network), backbone.record)
    dataset = load("drawn", given.place)
    chosen = np.random.default_rng(1).permutation(len(dataset))[: given.rows]
    pictures, _ = load_images([dataset.paths[row] for row in chosen], backbone.record.image)
    y = dataset.labels[chosen]
    for cut in given.cuts:
        x = pictures
        if cut != WHOLE:
            engine = MindSporeEngine(backbone, cut)
            starts = range(0, len(pictures), engine.batch_size)
            x = np.concatenate([engine(pictures[start : start + engine.batch_size]) for start in starts])
            x = x.astype(np.float16)
        np.savez(given.place / f"{cut}.npz", x=x, y=y)
