"""Insight beside a run, and as a command of its own."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.base import PARTS, Dataset, InputError, Split
from finetune import run_folder
from finetune.config import Config
from finetune.device import Device, one_core_each
from finetune.features.cache import Features, extract
from finetune.features.engines.choose import choose_engine
from finetune.features.groups import numbered
from finetune.features.usable import grouped, usable_split
from finetune.inputs import load_inputs, log_inputs
from finetune.insight import novelty
from finetune.insight.study import rows_of, study
from finetune.storage.rows import HELD_BYTES

log = logging.getLogger("finetune")


def beside_a_run(config: Config, dataset: Dataset, found: Features, split: Split, folder: Path) -> bool:
    """Whether it came of it; the run is complete without."""
    if not config.insight.in_runs:
        what = "how far to trust this number"
        if config.model.cut is not None:  # insight trains linear heads only
            what = "what the data and a linear head are worth"
        log.info("%s: python -m finetune insight %s", what, shlex.quote(str(folder)))
        return True
    if found.rows.nbytes > HELD_BYTES:
        log.info("insight: left out, for it would hold %.1f GB of features in memory", found.rows.nbytes / 1e9)
        return True
    try:
        study(rows_of(dataset, found, split, grouped(dataset, config, found)), config, folder)
    except Exception as error:  # a by-product never costs the product
        log.warning("insight: failed (%s: %s)", type(error).__name__, error)
        return False
    return True


def novelty_of_a_run(
    config: Config,
    dataset: Dataset,
    found: Features,
    split: Split,
    folder: Path,
    tuned: Mapping[str, np.ndarray] | None = None,
) -> dict | None:
    """Save what `predict` needs to say that a picture is unlike the training pictures; what metrics.json says of it.

    Args:
        tuned: features by part of the split, where the backbone was trained. They may tell pictures that have trained
            from new ones, so that the threshold is that of the validation pictures.
    """
    (folder / novelty.FILE).unlink(missing_ok=True)  # of a run that was here before
    if config.model.backbone is None:
        return None
    if found.rows.nbytes > HELD_BYTES:
        log.info("novelty: left out, for it would hold %.1f GB of features in memory", found.rows.nbytes / 1e9)
        return None
    try:
        groups = grouped(dataset, config, found)
        groups = numbered(found.keys) if groups is None else groups
        with one_core_each():
            if tuned:
                fitted = novelty.fit_novelty(tuned["train"], groups[split.train], tuned["valid"], config.seed)
            else:
                rows = np.concatenate([split.train, split.valid])
                fitted = novelty.fit_novelty(found.rows[rows], groups[rows], seed=config.seed)
        fitted.save(folder)
        unlike = fitted(tuned["eval"] if tuned else found.rows[split.eval]) > novelty.THRESHOLD
    except novelty.NoThreshold as error:
        log.info("novelty: left out: %s", error)
        return None
    except Exception as error:  # a by-product never costs the product
        log.warning("novelty: failed (%s: %s)", type(error).__name__, error)
        return None
    share = float(unlike.mean())
    log.info("novelty: %.1f %% of the evaluation pictures are unlike the training pictures", 100 * share)
    return {"evaluation_unlike": share}


def tell_what_is_gone(run: Path, dataset: Dataset) -> None:
    there = {dataset.picture_name(row) for row in range(len(dataset))}
    split = run_folder.read_json(run, "split.json")
    gone = sorted(name for part in PARTS for name in split[part] if name not in there)
    if gone:
        log.warning(
            "insight: %d pictures of this run are not in %s any more, as %s; those that are there are judged",
            *(len(gone), dataset.root, gone[0]),
        )


def alone(config: Config, device: Device, folder: Path | None) -> Path:
    """Insight alone, into the folder of a finished run, whose report is written anew, or into a folder of its own.

    Raises:
        InputError: there is no backbone.
    """
    dataset, backbone = load_inputs(config)
    if backbone is None:
        raise InputError("insight: model.backbone is null; it looks at the features of a backbone.")
    new = folder is None
    folder = run_folder.create(config, f"{dataset.name}_insight") if new else folder
    if new:
        run_folder.log_to(folder)
    log_inputs(config, device, dataset, backbone)
    found = extract(dataset.paths, backbone, choose_engine(backbone, device, config), config.cache_dir, device.threads)
    split, _ = usable_split(dataset, found, config)
    if not new:
        tell_what_is_gone(folder, dataset)
    study(rows_of(dataset, found, split, grouped(dataset, config, found)), config, folder)
    if not new:
        from finetune.evaluation import report

        report.write(folder)
    log.info("insight: %s", folder / "insight")
    return folder
