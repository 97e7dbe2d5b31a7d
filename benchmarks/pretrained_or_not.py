"""What pretraining is worth: the same job on three frozen backbones, on drawn and on real pictures.

    python -m benchmarks.pretrained_or_not --dataset_path CATS_AND_DOGS --pretrain_ckpt MOBILENETV2_1.0.ckpt

Random is a network of the embedded backbone's shape and preprocessing that has never seen a picture.
Prints a table of the accuracy on the evaluation pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrained_or_not", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset_path", required=True, help="photographs, <root>/{train,eval}/<class>")
    parser.add_argument("--pretrain_ckpt", required=True, help="a big backbone to compare with, a MindSpore CKPT")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        backbones = {
            "random, 0.35 at 128": random_backbone(Path(place)),
            "embedded, 0.35 at 128": None,
            Path(given.pretrain_ckpt).stem: given.pretrain_ckpt,
        }
        pictures = {"drawn": "drawn", Path(given.dataset_path).name: given.dataset_path}
        print(f"| frozen backbone | {' | '.join(pictures)} |\n|{'---|' * (1 + len(pictures))}")
        for name, ckpt in backbones.items():
            found = [accuracy(folder, ckpt, Path(place)) for folder in pictures.values()]
            print(f"| {name} | {' | '.join(found)} |", flush=True)


def random_backbone(place: Path) -> Path:
    """A CKPT of random weights with the embedded backbone's facts beside it."""
    import mindspore as ms
    import yaml

    from pretrained.catalog import EMBEDDED
    from pretrained.distillation.training import initialise
    from pretrained.files import facts_file
    from pretrained.mobilenet_v2 import MobileNetV2

    network = MobileNetV2(EMBEDDED.width, EMBEDDED.pad_mode, EMBEDDED.bn_eps)
    initialise(network, seed=0)
    ckpt = place / "random.ckpt"
    ms.save_checkpoint([{"name": p.name, "data": p} for p in network.get_parameters()], str(ckpt))
    facts = {**EMBEDDED.to_dict(), "name": "random", "source": "random numbers", "sha256": None}
    facts_file(ckpt).write_text(yaml.safe_dump(facts), encoding="utf-8")
    return ckpt


def accuracy(pictures: str, ckpt: Path | str | None, place: Path) -> str:
    """ "98.0 % (95.0 to 99.2)": after fine-tuning the head, with its 95 % interval."""
    command = [sys.executable, "-m", "finetune", "train", "--dataset_path", pictures]
    command += ["--pretrain_ckpt", str(ckpt)] if ckpt else []
    options = ["--runs_dir", str(place), "--name", "run", "--exist_ok", "--set", "data.views=false"]
    subprocess.run([*command, *options], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
    after = json.loads((place / "run" / "metrics.json").read_text(encoding="utf-8"))["after"]
    low, high = after["interval"]
    return f"{100 * after['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
