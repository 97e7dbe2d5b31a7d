"""Whether two classifiers differ by more than chance, on the same pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.files import read_csv
from finetune.metrics import mcnemar_exact
from finetune.run_folder import again, read_json

CHANCE = 0.05  # a smaller p is more than chance

Right = dict[tuple[str, str], bool]  # (path, true class) -> whether the answer was right


@dataclass(frozen=True)
class Difference:
    pictures: int  # that both have judged
    only_first: int  # of them, those that only the first gets right
    only_second: int
    p: float

    @property
    def more_than_chance(self) -> bool:
        return self.p < CHANCE

    def in_words(self, first: str, second: str) -> str:
        verdict = "more than chance" if self.more_than_chance else "no more than chance may bring"
        return (
            f"of {self.pictures} pictures {self.only_first} are right by {first} only and {self.only_second} by "
            f"{second} only; {verdict} (McNemar's exact test, p = {self.p:.2g})"
        )


def read_right(run: Path) -> Right:
    """Of each evaluation picture of a run, whether its answer was right.

    Raises:
        InputError: not a finished run folder.
    """
    read_json(run, "metrics.json")  # says what is wrong with a folder that is no finished run
    rows = read_csv(run / "predictions.csv", {"path": str, "true": str, "predicted": str}, again(run))
    return {(row["path"], row["true"]): row["predicted"] == row["true"] for row in rows}


def difference(first: Sequence[Right], second: Sequence[Right]) -> Difference:
    """Between two classifiers of which each was trained with the same seeds, a Right a seed.

    Each picture has one vote: for whom it is right with more of the seeds that both judged it in. With one seed this
    is McNemar's test; pictures of several seeds are no pictures of their own.
    """
    votes: dict[tuple[str, str], int] = defaultdict(int)
    for a, b in zip(first, second):
        for picture in a.keys() & b.keys():
            votes[picture] += a[picture] - b[picture]
    one, other = sum(vote > 0 for vote in votes.values()), sum(vote < 0 for vote in votes.values())
    return Difference(len(votes), one, other, mcnemar_exact(one, other))
