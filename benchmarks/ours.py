"""Our own job, as the package does it: extraction with hashing and the cache on disk, and head training."""

from __future__ import annotations

import tempfile

from finetune.device import init_device

if __name__ == "__main__":
    from benchmarks.contest import arguments, head_data, peak_mb, pictures, report, time_extraction, timed

    given = arguments()
    device = init_device("CPU", threads=given.threads)

    import threading
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from datasets.image import load_images
    from finetune.config import TrainConfig, load_config
    from finetune.features.cache import extract
    from finetune.features.engines.choose import choose_engine
    from finetune.training.networks import Head
    from finetune.training.trainer import Trainer
    from pretrained.weights import load_backbone

    if given.task == "extract":
        backbone = load_backbone(given.pretrain_ckpt)
        config = load_config(None, {"engine": given.engine, "precision": given.precision})
        engine = choose_engine(backbone, device, config)
        batch = np.zeros((engine.batch_size, *backbone.record.image.size, 3), np.uint8)

        def extract_all(paths):
            with tempfile.TemporaryDirectory() as cache:
                return extract(paths, backbone, engine, cache, device.threads).rows[:]

        def forward():
            """As in the job: one batch on each thread at once."""
            threads = [threading.Thread(target=engine, args=(batch,)) for _ in range(device.threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        name = f"ours_{given.engine}_{given.precision}"
        time_extraction(extract_all, forward, given, name, engine.batch_size * device.threads)
    elif given.task == "decode":
        paths = pictures(given)
        spec = load_backbone(given.pretrain_ckpt).record.image
        with ThreadPoolExecutor(given.threads) as pool:
            seconds, _ = timed(lambda: list(pool.map(lambda path: load_images([path], spec), paths)))
        report(seconds=seconds, pictures=len(paths), peak_mb=peak_mb())
    else:
        x, y = head_data(given.place)
        config = TrainConfig(patience=0)
        head = Head(x.shape[1], 2, seed=1)
        whole, fitted = timed(
            lambda: Trainer(head, (x, y), (x[:0], y[:0]), config, 2, 1).fit(on_epoch=lambda line: None)
        )
        later = [row.seconds for row in fitted.history[1:]]  # the first epoch compiles
        report(seconds=sum(later) / len(later) * config.epochs, with_compilation=whole, peak_mb=peak_mb())
