import json
from pathlib import Path

import numpy as np
import pytest

from datasets.base import Dataset, InputError
from datasets.split import keep, make_split, write_split


def toy(counts, parts=None) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    paths = tuple(Path("root", f"{i}.png") for i in range(len(labels)))
    classes = tuple("abcdef"[: len(counts)])
    return Dataset("toy", Path("root"), paths, labels, classes, parts)


def test_a_drawn_split_is_stratified_disjoint_and_whole():
    data = toy([100, 40])
    split = make_split(data, valid_fraction=0.1, eval_fraction=0.2, seed=3)
    everything = np.concatenate([split.train, split.valid, split.eval])
    assert np.array_equal(np.sort(everything), np.arange(140))
    assert np.array_equal(np.bincount(data.labels[split.eval]), [20, 8])
    assert np.array_equal(np.bincount(data.labels[split.valid]), [8, 3])


def test_one_seed_one_split():
    first, again, other = (make_split(toy([50, 50]), 0.1, 0.2, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.eval, again.eval) and np.array_equal(first.valid, again.valid)
    assert not np.array_equal(first.eval, other.eval)


def test_validation_never_takes_evaluation_rows():
    data = toy([20, 20], parts=("train",) * 15 + ("eval",) * 5 + ("train",) * 15 + ("eval",) * 5)
    split = make_split(data, 0.2, 0.5, seed=1)
    assert {data.parts[row] for row in split.eval} == {"eval"} and len(split.eval) == 10
    assert {data.parts[row] for row in split.valid} == {"train"} and len(split.valid) == 6


def test_a_published_validation_part_is_used_as_it_is():
    parts = ("train",) * 6 + ("valid",) * 2 + ("eval",) * 2
    split = make_split(toy([5, 5], parts), 0.5, 0.5, seed=1)
    assert split.valid.tolist() == [6, 7]


def test_too_few_to_hold_out():
    with pytest.raises(InputError, match=r"'b' has 1 picture"):
        make_split(toy([5, 1]), 0.1, 0.2, seed=1)


def test_two_pictures_a_class_still_split():
    split = make_split(toy([2, 2]), 0.1, 0.2, seed=1)
    assert (len(split.train), len(split.valid), len(split.eval)) == (2, 0, 2)


def test_a_class_with_one_training_picture_keeps_it_and_the_others_validate():
    data = toy([20, 2, 20])
    for keys in (None, [str(row).encode() for row in range(42)]):
        split = make_split(data, 0.1, 0.2, seed=1, keys=keys)
        assert np.bincount(data.labels[split.valid], minlength=3).tolist() == [2, 0, 2]
        assert np.bincount(data.labels[split.train]).tolist() == [14, 1, 14]


def test_unreadable_rows_leave_every_part():
    split = make_split(toy([20, 20]), 0.2, 0.2, seed=1)
    readable = np.ones(40, bool)
    lost = [split.train[0], split.valid[1], split.eval[2]]
    readable[lost] = False
    kept = keep(split, readable)
    assert not set(lost) & set(np.concatenate([kept.train, kept.valid, kept.eval]))
    assert len(kept.train) == len(split.train) - 1 and len(kept.eval) == len(split.eval) - 1


def test_split_json_names_files_and_classes(tmp_path):
    data = toy([4, 4])
    split = make_split(data, 0.3, 0.3, seed=1)
    write_split(tmp_path / "split.json", data, split)
    facts = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert facts["classes"] == ["a", "b"]
    assert list(facts["eval"]) == [f"{row}.png" for row in split.eval]
    assert list(facts["train"].values()) == [data.classes[data.labels[row]] for row in split.train]
