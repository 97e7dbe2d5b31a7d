"""The weight files that are known: the one that comes with the project, and those that others publish."""

from __future__ import annotations

from pathlib import Path

from datasets.image import ImageSpec
from pretrained.published import PUBLISHED
from pretrained.record import WeightsRecord

TENSORFLOW_1_0_224 = WeightsRecord(
    name="mobilenet_v2_1.0_224_imagenet",
    width=1.0,
    pad_mode="same",
    bn_eps=1e-5,  # BatchNorm is folded into gamma 1, beta = bias, so that this eps gives exactly 1
    image=ImageSpec(size=(224, 224), resize=(256, 256), mean_unit=(0.5, 0.5, 0.5), std_unit=(0.5, 0.5, 0.5)),
    source="TensorFlow's mobilenet_v2_1.0_224, trained on ImageNet, dequantised from its int8 file",
    licence="Apache-2.0",
    sha256="c8412b61ef3c43219a341a7dbaf7f1175876d3460c36c552d7186c05591dd2df",
)

# The backbone that comes with the project, so that the first command needs no download. Made by
#
#   python -m pretrained.distillation --pool POOL --teacher MOBILENET_1.0.ckpt --out FIRST.ckpt --mixed 0 --steps 22000
#   python -m pretrained.distillation ... --mixed 8 --steps 34000 --resume
#   python -m datasets draw drawn --per_class 600 --seed 1 && tar cf POOL/drawn.tar -C drawn train eval
#   python -m pretrained.distillation --pool POOL --teacher MOBILENET_1.0.ckpt --out STUDENT.ckpt --steps 20000 \
#       --seed 1 --start_from FIRST.ckpt
#
# The first was stopped after 20,500 steps and the second after 32,000, both by revision d09c5a9: 90 minutes on 2 CPU
# cores. The last took 75 minutes, which other work shared. Frozen, with a linear head: 90.5 % of 200 photographs of
# cats and dogs (85.6 to 93.8), 98.0 % of 100 drawn ones of another seed (93.0 to 99.4).
EMBEDDED = WeightsRecord(
    name="mobilenet_v2_0.35_128_distilled",
    width=0.35,
    pad_mode="pad",
    bn_eps=1e-5,
    image=ImageSpec(size=(128, 128), resize=(146, 146), mean_unit=(0.5, 0.5, 0.5), std_unit=(0.5, 0.5, 0.5)),
    source="this project, distilled from TensorFlow's mobilenet_v2_1.0_224 on 10,199 unlabelled photographs of "
    "Caltech-101, Tiny ImageNet, an ImageNet sample, and cats and dogs, and on 1,200 pictures of the drawn sample set",
    licence="Apache-2.0; all photographs but those of Caltech-101 (CC BY 4.0) are for research use",
    sha256="5b5575deb003c570655e4c8878e0b79f3713a23951c70bea3a933b99b9db8dd1",
)
EMBEDDED_FILE = Path(__file__).with_name(f"{EMBEDDED.name}.ckpt")

CATALOG = (EMBEDDED, TENSORFLOW_1_0_224, *PUBLISHED)


def find_by_sha256(sha256: str) -> WeightsRecord | None:
    return next((record for record in CATALOG if record.sha256 == sha256), None)


def find_by_name(name: str) -> WeightsRecord | None:
    return next((record for record in CATALOG if record.name == name), None)
