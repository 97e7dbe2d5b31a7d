"""Groups: what belongs together, and that it stays on one side of a split."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from PIL import Image

from datasets.base import Dataset, InputError
from datasets.split import make_split
from finetune.features.groups import by_time, groups_of, joined, prefix, taken


def of_names(names: list[str], root: Path = Path("root"), parts: tuple | None = None) -> Dataset:
    """The class is the folder above, or the one below the root."""
    depth = 1 if parts else 0
    classes = tuple(sorted({name.split("/")[depth] for name in names}))
    labels = np.array([classes.index(name.split("/")[depth]) for name in names], np.int32)
    return Dataset("toy", root, tuple(root / name for name in names), labels, classes, parts)


FILMS = [f"{name}/film{film}_{frame:03d}.jpg" for name in ("cat", "dog") for film in range(10) for frame in range(6)]


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [("film_03_0120", "film_03"), ("IMG_12 (2)", "IMG_12"), ("cat", "cat"), ("0007", "0007"), ("a-7b", "a")],
)
def test_prefix(stem, wanted):
    assert prefix(stem) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_on_one_side(seed):
    dataset = of_names(FILMS)
    groups = groups_of(dataset, "prefix")
    assert len(set(groups)) == 20
    split = make_split(dataset, 0.1, 0.2, seed, groups=groups)
    sides = [set(groups[rows]) for rows in (split.train, split.valid, split.eval)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sorted(np.concatenate([split.train, split.valid, split.eval])) == list(range(120))
    assert np.bincount(dataset.labels[split.eval]).tolist() == [12, 12]


def test_what_trains_leaves_a_published_evaluation_alone():
    names = ["train/cat/a_1.jpg", "train/cat/b_1.jpg", "train/dog/c_1.jpg", "eval/cat/a_2.jpg", "eval/dog/d_1.jpg"]
    dataset = of_names(names, parts=("train", "train", "train", "eval", "eval"))
    split = make_split(dataset, 0, 0.2, 1, groups=np.array([0, 1, 2, 0, 3]))
    assert split.train.tolist() == [1, 2] and split.eval.tolist() == [3, 4]


def test_folders_below_a_class():
    names = ["cat/x/1.jpg", "cat/x/2.jpg", "cat/3.jpg", "cat/4.jpg", "dog/x/1.jpg"]
    assert groups_of(of_names(names), "folder").tolist() == [0, 0, 1, 2, 3]


def test_a_class_of_one_group_cannot_be_held_out():
    dataset = of_names(["cat/a_1.jpg", "cat/a_2.jpg", "dog/b_1.jpg", "dog/c_2.jpg"])
    with pytest.raises(InputError, match="'cat' has no group"):
        make_split(dataset, 0, 0.2, 1, groups=groups_of(dataset, "prefix"))


def test_bursts_of_a_camera(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[271], exif[272] = "Maker", "One"
    exif.get_ifd(34665)[36867] = "2024:05:06 07:08:09"
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    camera, seconds = taken(path)
    assert camera == "Maker One" and taken(tmp_path / "nothing.jpg") is None
    shots = [(camera, seconds), None, (camera, seconds + 4), (camera, seconds + 2), ("other", seconds), None]
    groups = by_time(shots)
    assert groups[0] == groups[2] == groups[3] and len(set(groups)) == 4


def test_a_table_of_groups(tmp_path):
    dataset = of_names(["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"])
    table = tmp_path / "groups.csv"
    table.write_text("path,group\ncat/1.jpg,猫\ndog/3.jpg,猫\n", encoding="utf-8")
    assert groups_of(dataset, str(table)).tolist() == [0, 1, 0]
    table.write_text("path,group\nbird/1.jpg,a\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bird/1.jpg is no picture"):
        groups_of(dataset, str(table))
    with pytest.raises(InputError, match="none of folder"):
        groups_of(dataset, "colour")


def test_copies_of_copies_are_one_group():
    groups = joined(6, [(0, 1), (2, 3), (1, 3)])
    assert len(set(groups[:4])) == 1 and len(set(groups)) == 3


def draw_copies(root: Path) -> list[tuple[str, str]]:
    """Twelve photographs a class, flat, each with a smaller copy as JPEG; returns the pairs of names."""
    rng, pairs = np.random.default_rng(4), []
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(12):
            noise = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            photograph = Image.fromarray(noise).resize((120, 120), Image.Resampling.BICUBIC)
            pairs.append((f"{name}/{number:02d}.png", f"{name}/copy of {number:02d}.jpg"))
            photograph.save(root / pairs[-1][0])
            photograph.resize((90, 90)).save(root / pairs[-1][1])
    return pairs


@pytest.mark.slow
def test_a_run_keeps_near_copies_on_one_side(tmp_path):
    pairs = draw_copies(tmp_path / "pictures")
    broken = {}
    for kind, flags in (("alone", ()), ("grouped", ("--group_by", "duplicates"))):
        done = call(  # the embedded backbone: to one of random weights nearly all pictures are alike
            *("finetune", "train", "--dataset_path", tmp_path / "pictures", "--epochs", 1, "--name", kind, *flags),
            *("--runs_dir", tmp_path / "runs", "--cache_dir", tmp_path / "cache"),
        )
        assert done.returncode == 0, done.stderr
        split = json.loads((tmp_path / "runs" / kind / "split.json").read_text(encoding="utf-8"))
        side = {name: part for part in ("train", "valid", "eval") for name in split[part]}
        assert len(side) == 48 and set(side.values()) == {"train", "valid", "eval"}
        broken[kind] = [pair for pair in pairs if side[pair[0]] != side[pair[1]]]
    assert broken["alone"] and not broken["grouped"]
