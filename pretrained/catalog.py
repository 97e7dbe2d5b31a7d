"""What is known about weight files: one frozen record a file.

A CKPT holds numbers only. How wide the network is, how it pads, and how its pictures must be
prepared are facts of the training that made them; everyone asks the record.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.image import ImageSpec

PAD_MODES = ("pad", "same")


@dataclass(frozen=True)
class WeightsRecord:
    """The facts of one weight file."""

    name: str
    width: float  # multiplier of the channels
    pad_mode: str  # "pad": symmetric, as the zoo and PyTorch; "same": as TensorFlow
    bn_eps: float
    image: ImageSpec
    source: str  # who trained it, on what
    licence: str
    url: str | None = None
    sha256: str | None = None  # of the file, or how it begins; None where it is not published
    bytes: int = 0  # of the file; 0 where it is not published
    mirrors: tuple[str, ...] = ()  # further addresses of the same file
    top_1: float | None = None  # published accuracy on ImageNet in percent, with its own classifier

    def to_dict(self) -> dict:
        facts = {**asdict(self), "image": self.image.to_dict(), "mirrors": list(self.mirrors)}
        return {name: value for name, value in facts.items() if value not in (None, [], 0)}

    @classmethod
    def from_dict(cls, facts: dict) -> WeightsRecord:
        """Raises TypeError or ValueError where a fact is missing, unknown, or no such fact."""
        image, mirrors = ImageSpec.from_dict(facts["image"]), tuple(facts.get("mirrors", ()))
        record = cls(**{**facts, "image": image, "mirrors": mirrors})
        for name in ("width", "bn_eps"):
            if not isinstance(getattr(record, name), int | float) or not 0 < getattr(record, name) < 10:
                raise ValueError(f"{name} must be a number above 0, found {getattr(record, name)!r}")
        if record.pad_mode not in PAD_MODES:
            raise ValueError(f"pad_mode must be one of {', '.join(PAD_MODES)}, found {record.pad_mode!r}")
        return record


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

OWN = (EMBEDDED, TENSORFLOW_1_0_224)


def catalog() -> tuple[WeightsRecord, ...]:
    """Every known file."""
    from pretrained.published import PUBLISHED

    return (*OWN, *PUBLISHED)


def find_by_sha256(sha256: str) -> WeightsRecord | None:
    return next((record for record in catalog() if record.sha256 == sha256), None)


def find_by_name(name: str) -> WeightsRecord | None:
    return next((record for record in catalog() if record.name == name), None)
