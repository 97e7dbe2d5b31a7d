"""The trained network of a run folder: written once at the end of training, read by everybody after.

One CKPT holds backbone and head under the model zoo's parameter names, or a whole network from scratch, and the
facts of its weights lie beside it as YAML. It is also a valid --pretrain_ckpt for the next training.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from pathlib import Path

import mindspore as ms
import yaml
from mindspore import nn

from datasets.base import InputError
from datasets.files import write_text
from datasets.image import ImageSpec
from finetune.config import Config, load_config
from finetune.run_folder import MOBILENETV2, again, ckpt_path, read_json
from finetune.training.ensemble import assembled
from finetune.training.networks import Classifier, Head, from_scratch
from pretrained.files import facts_file, file_sha256
from pretrained.weights import Backbone, load_backbone, load_strict, read_ckpt

OWN_SOURCE, OWN_LICENCE = "trained from scratch", "that of whoever trained it"


@dataclass(frozen=True)
class Trained:
    """What a run has learnt, ready to predict."""

    network: nn.Cell  # float32 (B, channels, H, W) -> logits (B, C)
    backbone: Backbone | None  # None: from scratch
    head: nn.Cell  # what was trained: on the backbone's features, or the whole network
    classes: tuple[str, ...]
    image: ImageSpec
    name: str = MOBILENETV2  # what its files are called
    digest: str = ""  # sha256 of the CKPT of a network from scratch

    def weights_facts(self) -> dict:
        """Of its weights: for the manifest."""
        if self.backbone is None:
            return {"digest": self.digest, "source": OWN_SOURCE, "licence": OWN_LICENCE}
        record = self.backbone.record
        facts = {"digest": self.backbone.digest, "source": record.source, "licence": record.licence}
        if record.mirror_mean:
            facts["mirror_mean"] = True
        if record.beside_last:
            facts["features"] = [*(f"block_{number}" for number in record.beside_last), "last"]
        return facts


def save_trained(run: Path, backbone: Backbone, head: Head) -> Path:
    """Write backbone and head into one CKPT, and the facts of the weights beside it."""
    source = f"fine-tuned from {backbone.path.name} ({backbone.record.source})"
    of_the_file = {"url": None, "sha256": None, "bytes": 0, "mirrors": (), "top_1": None}
    record = replace(backbone.record, name=run.name, source=source, **of_the_file)
    return save(ckpt_path(run, MOBILENETV2), Classifier(backbone.network, head), record.to_dict())


def save_from_scratch(run: Path, network: nn.Cell, name: str, image: ImageSpec) -> Path:
    """Write a whole network into one CKPT, and how its pictures are prepared beside it."""
    facts = {"name": run.name, "network": name, "image": image.to_dict(), "source": OWN_SOURCE}
    return save(ckpt_path(run, name), network, facts)


def save(path: Path, network: nn.Cell, facts: dict) -> Path:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name("unfinished.ckpt")
    temporary.unlink(missing_ok=True)
    ms.save_checkpoint([{"name": p.name, "data": p} for p in network.get_parameters()], str(temporary))
    temporary.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)  # MindSpore writes 0400
    facts = {**facts, "sha256": file_sha256(temporary)}
    write_text(facts_file(path), yaml.safe_dump(facts, allow_unicode=True, sort_keys=False))
    temporary.replace(path)
    return path


def load_trained(run: Path) -> Trained:
    """The network of a finished run.

    Raises:
        InputError: not a finished run folder, or its CKPT is damaged.
    """
    classes = tuple(read_json(run, "split.json")["classes"])
    config = load_config(str(run / "config.yaml"))
    if config.model.backbone is None:
        return load_from_scratch(run, config, classes)
    path = finished_ckpt(run, MOBILENETV2)
    backbone = load_backbone(path)
    size, hidden = backbone.feature_size, config.model.hidden
    head = assembled(lambda seed: Head(size, len(classes), hidden), 0, config.train.members)
    wanted = {parameter.name for parameter in head.get_parameters()}
    load_strict(head, {name: v for name, v in read_ckpt(path).items() if name in wanted}, path, again(run))
    head.set_train(False)
    return Trained(Classifier(backbone.network, head), backbone, head, classes, backbone.record.image)


def finished_ckpt(run: Path, name: str) -> Path:
    path = ckpt_path(run, name)
    if not path.is_file():
        raise InputError(f"{path}: not there: this run did not finish, or its CKPT was removed. {again(run)}")
    return path


def load_from_scratch(run: Path, config: Config, classes: tuple[str, ...]) -> Trained:
    name = config.model.network
    path = finished_ckpt(run, name)
    try:
        facts = yaml.safe_load(facts_file(path).read_text(encoding="utf-8"))
        image = ImageSpec.from_dict(facts["image"])
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{facts_file(path)}: missing or damaged ({error}). Repeat the run.") from error
    shape = (image.channels, *image.size)
    network = assembled(lambda seed: from_scratch(config.model, shape, len(classes), seed), 0, config.train.members)
    load_strict(network, read_ckpt(path), path, f"Repeat the run: {run / 'config.yaml'} has its settings.")
    network.set_train(False)
    digest = file_sha256(path)
    if facts.get("sha256", digest) != digest:
        raise InputError(f"{path}: changed since it was written (its sha256 is another). {again(run)}")
    return Trained(network, None, network, classes, image, name, digest)
