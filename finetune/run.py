"""The main job: pictures in folders -> a trained, evaluated, exported classifier in a run folder.

    python -m finetune run [--dataset_path PICTURES] [--pretrain_ckpt MOBILENETV2.ckpt]

The device is initialised before this module is imported.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from datasets.base import Dataset, InputError, Split
from datasets.files import write_csv, write_json
from datasets.listing import passed_over_lines
from datasets.load import load
from datasets.split import write_split
from finetune import run_folder
from finetune.ahead import Ahead
from finetune.config import Config
from finetune.device import Device
from finetune.evaluation.calibrate import calibrate, in_words
from finetune.evaluation.evaluate import evaluate, write_predictions
from finetune.evaluation.summary import no_better_than, summary
from finetune.features.cache import Features, extract, write_views
from finetune.features.engines.choose import choose_engine
from finetune.features.usable import Findings, draw_split, grouped, shortened, usable_split
from finetune.insight.study import rows_of, study
from finetune.metrics import majority_class, nearest_class_mean
from finetune.trained import save_from_scratch, save_trained
from finetune.training.networks import Head
from finetune.training.scratch import make_network, normalise_pixels, read_pixels, write_pictures
from finetune.training.trainer import Trainer
from pretrained.weights import Backbone, load_backbone

INSIGHT_ROWS = 2_000  # of a run that waits for insight; more are looked at when asked

log = logging.getLogger("finetune")

NEXT_STEPS = """
Next:
  python -m finetune run {arguments}
  python -m finetune predict {run} PHOTO.jpg
  python -m export serve {run}"""


def run(config: Config, device: Device, reporter: Ahead, exporter: Ahead) -> Path:
    """Everything, ending with a verified export. Returns the run folder."""
    folder, again = learn(config, device, reporter, exporter)
    started = time.perf_counter()
    if exporter.done():
        log.info("export and comparison: %.1f s", time.perf_counter() - started)
    else:  # it has said why
        again.append(f"python -m export {quoted(folder)}")
    check_complete(folder, again)
    given = config.model.pretrain_ckpt
    arguments = "--dataset_path YOUR_PICTURES" + (f" --pretrain_ckpt {quoted(given)}" if given else "")
    arguments = arguments if config.model.backbone else quoted(folder / "config.yaml")
    log.info(NEXT_STEPS.format(run=quoted(folder), arguments=arguments))
    return folder


def train(config: Config, device: Device, reporter: Ahead) -> Path:
    """Everything but the export. Returns the run folder."""
    folder, again = learn(config, device, reporter)
    check_complete(folder, again)
    return folder


def quoted(path: str | Path) -> str:
    """For a command line that can be pasted."""
    return shlex.quote(str(path)) if os.name == "posix" else f'"{path}"' if " " in str(path) else str(path)


def check_complete(folder: Path, again: list[str]) -> None:
    """Raises InputError where something did not come of it; all else is complete by then."""
    if again:
        raise InputError(f"{folder}: trained and evaluated, but not all came of it. Repeat: {' && '.join(again)}")


def learn(config: Config, device: Device, reporter: Ahead, *others: Ahead) -> tuple[Path, list[str]]:
    """(the run folder, commands that must be repeated); the others are told its name when they can begin."""
    clock = Clock()
    dataset, backbone = load_inputs(config)
    folder = run_folder.create(config, dataset.name)
    run_folder.log_to(folder)
    run_folder.write_environment(folder, device, config.seed)
    log_inputs(device, dataset, backbone)
    clock.lap("load")

    found, split, findings, make, save = (on_backbone if backbone else on_pixels)(
        config, device, dataset, backbone, folder
    )
    log.info("split: %d train, %d validation, %d evaluation", *(len(rows) for rows in vars(split).values()))
    if backbone and config.data.views:
        write_views(dataset, found, split)
    write_split(folder / "split.json", dataset, split)
    clock.lap("features")

    train_rows, valid_rows, eval_rows = ((found.rows[rows], dataset.labels[rows]) for rows in vars(split).values())
    network = make()
    trainer = Trainer(network, train_rows, valid_rows, config.train, len(dataset.classes), config.seed)
    before = evaluate(trainer.predictor, *eval_rows, dataset.classes)
    baselines = {
        "majority_class": majority_class(train_rows[1], eval_rows[1]),
        "nearest_class_mean": nearest_class_mean(*train_rows, *eval_rows),
    }
    clock.lap("before")

    fitted = trainer.fit(on_epoch=log.info)
    save(split, network)
    write_csv(folder / "results.csv", [row.to_dict() for row in fitted.history])
    clock.lap("training")

    confidence = calibrate(trainer, config.train.calibration_folds)
    log.info(in_words(confidence))
    clock.lap("calibration")

    after = evaluate(trainer.predictor, *eval_rows, dataset.classes)
    write_predictions(folder / "predictions.csv", dataset, split.eval, before, after)
    clock.lap("after")

    numbers = {
        "classes": list(dataset.classes),
        "trained": "head" if backbone else "network",
        "parameters": sum(parameter.size for parameter in network.trainable_params()),
        "best_epoch": fitted.best_epoch,
        "before": before.metrics,
        **baselines,
        "after": after.metrics,
        "confidence": confidence and confidence.to_dict(),
        **findings.to_dict(),
        "features": {
            "computed": found.computed,
            "cached": len(dataset) - found.computed - len(found.damaged) if backbone else 0,
        },
        "peak_memory_mb": run_folder.peak_memory_mb(),
        "seconds": clock.seconds,
    }
    write_json(folder / "metrics.json", numbers)
    for command in others:
        command.tell(folder)
    again = []
    if backbone and config.insight.folds and not look_closer(config, dataset, found, split, folder):
        again.append(f"python -m finetune insight {quoted(folder)}")
    reporter.tell(folder)
    log.info(summary(numbers))
    if better := no_better_than(numbers):
        log.warning(better)
    if not reporter.done():
        return folder, [*again, f"python -m finetune report {quoted(folder)}"]
    log.info("report: %s", folder / "report.html")
    return folder, again


def look_closer(config: Config, dataset: Dataset, found: Features, split: Split, folder: Path) -> bool:
    """Insight beside a run, of sets that take seconds. Whether it came of it; the run is complete without."""
    if len(dataset) > INSIGHT_ROWS:
        log.info(
            "insight: of %d pictures it takes a while: python -m finetune insight %s", len(dataset), quoted(folder)
        )
        return True
    try:
        study(rows_of(dataset, found, split, grouped(dataset, config, found)), config, folder)
    except Exception as error:  # a by-product never costs the product
        log.warning("insight: failed (%s: %s)", type(error).__name__, error)
        return False
    return True


def insight(config: Config, device: Device, folder: Path | None) -> Path:
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
    log_inputs(device, dataset, backbone)
    found = extract(dataset.paths, backbone, choose_engine(backbone, device, config), config.cache_dir, device.threads)
    split, _ = usable_split(dataset, found, config)
    study(rows_of(dataset, found, split, grouped(dataset, config, found)), config, folder)
    if not new:
        from finetune.evaluation import report

        report.write(folder)
    log.info("insight: %s", folder / "insight")
    return folder


def on_backbone(
    config: Config, device: Device, dataset: Dataset, backbone: Backbone, folder: Path
) -> tuple[Features, Split, Findings, Callable, Callable]:
    """(features, split, what is to say of the pictures, a function that gives a fresh head, one that saves the trained
    head with its backbone)."""
    engine = choose_engine(backbone, device, config)
    found = extract(dataset.paths, backbone, engine, config.cache_dir, device.threads)
    classes, model = len(dataset.classes), config.model
    return (
        found,
        *usable_split(dataset, found, config),
        lambda: Head(backbone.feature_size, classes, model.hidden, model.dropout, config.seed),
        lambda split, head: save_trained(folder, backbone, head),
    )


def on_pixels(
    config: Config, device: Device, dataset: Dataset, backbone: None, folder: Path
) -> tuple[Features, Split, Findings, Callable, Callable]:
    """The same without a backbone: pixels are the features, and a whole network is trained and saved."""
    found = read_pixels(dataset, config.model)
    split, findings = usable_split(dataset, found, config)
    found, spec = normalise_pixels(found, dataset, split)

    def save(split: Split, network) -> None:
        save_from_scratch(folder, network, config.model.network, spec)
        write_pictures(folder, dataset, split.eval, spec)

    return found, split, findings, lambda: make_network(config, spec, len(dataset.classes)), save


def features(config: Config, device: Device) -> None:
    """Only fill the cache and write the views.

    Raises:
        InputError: there is no backbone to compute them.
    """
    dataset, backbone = load_inputs(config)
    if backbone is None:
        raise InputError("model.backbone is null: without a backbone there are no features to compute.")
    log_inputs(device, dataset, backbone)
    found = extract(dataset.paths, backbone, choose_engine(backbone, device, config), config.cache_dir, device.threads)
    split, _ = usable_split(dataset, found, config)
    if config.data.views:
        write_views(dataset, found, split)


def load_inputs(config: Config) -> tuple[Dataset, Backbone | None]:
    """Check what was given before anything is written.

    Raises:
        InputError: something is missing or cannot be used.
    """
    dataset = load(config.data.dataset_path, config.cache_dir)
    draw_split(dataset, config)  # whether it can be: the pictures that are damaged are not known yet
    if not config.model.backbone:
        return dataset, None
    if dataset.paths is None:
        raise InputError(
            f"{dataset.name}: arrays of pixels; a backbone wants pictures in folders. Use a recipe without a backbone "
            "(finetune/configs), or give --dataset_path a folder of pictures."
        )
    return dataset, load_backbone(config.model.pretrain_ckpt)


def log_inputs(device: Device, dataset: Dataset, backbone: Backbone | None) -> None:
    log.info("device: %s, %d threads; kernel guard %s", device.platform, device.threads, device.kernel_guard)
    log.info(
        "pictures: %s, %d in %d classes (%s)",
        dataset.root,
        len(dataset),
        len(dataset.classes),
        ", ".join(dataset.classes),
    )
    for line in (*dataset.notes, *shortened(passed_over_lines(dataset.passed_over))):
        log.info(line)
    if backbone:
        log.info("weights: %s, width %s; facts: %s", backbone.path, backbone.record.width, backbone.facts_from)


class Clock:
    """Seconds of each phase, in order."""

    def __init__(self):
        self.seconds: Counter[str] = Counter()
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += round(now - self.last, 3)
        self.last = now
