"""The trained network of a run folder: written once at the end of training, read by everybody after.

One CKPT holds backbone and head under the model zoo's parameter names, and the facts of its weights
lie beside it as YAML. It is also a valid --pretrain_ckpt for the next fine-tuning.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import yaml

from datasets.image import ImageSpec
from finetune.config import load_config
from finetune.networks import Classifier, Head
from finetune.run_folder import read_json
from pretrained.weights import Backbone, facts_file, load_backbone, load_strict, read_ckpt

CKPT = Path("ckpt", "mobilenetv2_best.ckpt")


@dataclass(frozen=True)
class Trained:
    """What a run has learnt, ready to predict."""

    network: Classifier  # float32 (B, 3, H, W) -> logits (B, C)
    backbone: Backbone
    head: Head
    classes: tuple[str, ...]
    image: ImageSpec


def save_trained(run: Path, backbone: Backbone, head: Head) -> Path:
    """Write backbone and head into one CKPT, and the facts of the weights beside it."""
    path = run / CKPT
    path.parent.mkdir(exist_ok=True)
    network = Classifier(backbone.network, head)
    temporary = path.with_name("unfinished.ckpt")
    temporary.unlink(missing_ok=True)
    ms.save_checkpoint([{"name": p.name, "data": p} for p in network.get_parameters()], str(temporary))
    temporary.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)  # MindSpore writes 0400
    facts = {**backbone.record.to_dict(), "name": run.name, "url": None, "sha256": None}
    facts["source"] = f"fine-tuned from {backbone.path.name} ({backbone.record.source})"
    facts_file(path).write_text(yaml.safe_dump(facts, allow_unicode=True, sort_keys=False), encoding="utf-8")
    temporary.replace(path)
    return path


def load_trained(run: Path) -> Trained:
    """The network of a finished run.

    Raises:
        InputError: not a finished run folder, or its CKPT is damaged.
    """
    classes = tuple(read_json(run, "split.json")["classes"])
    config = load_config(str(run / "config.yaml"))
    backbone = load_backbone(run / CKPT)
    head = Head(backbone.feature_size, len(classes), config.model.hidden)
    wanted = {parameter.name for parameter in head.get_parameters()}
    load_strict(head, {name: v for name, v in read_ckpt(run / CKPT).items() if name in wanted}, run / CKPT)
    head.set_train(False)
    return Trained(Classifier(backbone.network, head), backbone, head, classes, backbone.record.image)
