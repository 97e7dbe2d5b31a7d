"""What these benchmarks begin with: pictures, weights and cache from the command line, and the features."""

from __future__ import annotations

import argparse

from finetune.config import Config, load_config
from finetune.device import init_device


def parser_of(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", required=True)
    parser.add_argument("--pretrain_ckpt", required=True)
    parser.add_argument("--cache_dir", default="cache")
    return parser


def features_of(given: argparse.Namespace, **data) -> tuple[Config, object, object]:
    """(settings, `datasets.base.Dataset`, `finetune.features.cache.Features`); `data`: settings of that section."""
    flags = {"data.dataset_path": given.dataset_path, "model.pretrain_ckpt": given.pretrain_ckpt}
    flags |= {"cache_dir": given.cache_dir, **{f"data.{name}": value for name, value in data.items()}}
    config = load_config(None, flags)
    device = init_device("CPU")
    from finetune.features.cache import extract
    from finetune.features.engines.choose import choose_engine
    from finetune.inputs import load_inputs

    dataset, backbone = load_inputs(config)
    engine = choose_engine(backbone, device, config)
    return config, dataset, extract(dataset.paths, backbone, engine, config.cache_dir, device.threads)
