"""The folded weights of a CKPT as plain files, so that no peer has to import MindSpore.

Writes weights.npz, weights.json, weights.onnx, and head.npz with the features of the training pictures.
"""

from __future__ import annotations

from finetune.device import init_device

if __name__ == "__main__":
    device = init_device("CPU")

    import numpy as np

    from benchmarks.contest import arguments, write_folded
    from datasets.folder import load_folder
    from finetune.config import Config
    from finetune.features.cache import extract
    from finetune.features.engines.choose import choose_engine
    from pretrained.fold import fold
    from pretrained.to_onnx import to_onnx
    from pretrained.weights import load_backbone

    given = arguments()
    backbone = load_backbone(given.pretrain_ckpt)
    record = backbone.record
    write_folded(given.place, fold(backbone.network), record)
    model = to_onnx(backbone.network, record.image.size, record.pad_mode)
    (given.place / "weights.onnx").write_bytes(model.SerializeToString())

    dataset = load_folder(given.dataset_path)
    rows = [row for row in range(len(dataset)) if dataset.parts is None or dataset.parts[row] == "train"]
    found = extract(
        [dataset.paths[row] for row in rows], backbone, choose_engine(backbone, device, Config()), given.place, 2
    )
    np.savez(given.place / "head.npz", x=found.rows, y=dataset.labels[rows])
