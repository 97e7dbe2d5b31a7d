"""The facts of a weight file, which travel with it.

A CKPT holds numbers only. How wide the network is, how it pads, and how its pictures must be prepared are facts of the
training that made them; everyone asks the record.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from datasets.image import ImageSpec

PAD_MODES = ("pad", "same")
AS_LARGE_AS_LAST = (14, 15, 16, 17)  # blocks of MobileNetV2 whose maps have as many places as the last one


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
    mirror_mean: bool = False  # features are the mean of a picture's and of its mirror image's
    beside_last: tuple[int, ...] = ()  # numbers of the blocks whose pooled maps are features beside the last one's

    def to_dict(self) -> dict:
        lists = {name: list(getattr(self, name)) for name in ("mirrors", "beside_last")}
        facts = {**asdict(self), "image": self.image.to_dict(), **lists}
        return {name: value for name, value in facts.items() if value not in (None, [], 0)}

    @classmethod
    def from_dict(cls, facts: dict) -> WeightsRecord:
        """Raises TypeError or ValueError where a fact is missing, unknown, or no such fact."""
        lists = {name: tuple(facts.get(name, ())) for name in ("mirrors", "beside_last")}
        record = cls(**{**facts, "image": ImageSpec.from_dict(facts["image"]), **lists})
        for name in ("width", "bn_eps"):
            if not isinstance(getattr(record, name), int | float) or not 0 < getattr(record, name) < 10:
                raise ValueError(f"{name} must be a number above 0, found {getattr(record, name)!r}")
        if not isinstance(record.sha256, str | None):
            raise ValueError(f"sha256 must be text; put {record.sha256!r} in quotes")
        if record.pad_mode not in PAD_MODES:
            raise ValueError(f"pad_mode must be one of {', '.join(PAD_MODES)}, found {record.pad_mode!r}")
        if record.mirror_mean not in (False, True):
            raise ValueError(f"mirror_mean must be true or false, found {record.mirror_mean!r}")
        if record.beside_last != tuple(number for number in AS_LARGE_AS_LAST if number in record.beside_last):
            raise ValueError(f"beside_last must be some of {AS_LARGE_AS_LAST} in order, found {record.beside_last}")
        return record
