"""What is left out, what looks wrong, and the split among the rest."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import RED_GREEN, draw_toy, draw_toys

from datasets.base import InputError
from datasets.folder import load_folder
from finetune.config import Config
from finetune.features.cache import Features
from finetune.features.usable import LINES, usable_split
from finetune.storage.digests import hash_files


def found_in(data, tmp_path, damaged=()) -> Features:
    """Features of no backbone: the keys are real, and `damaged` rows have none."""
    keys, _ = hash_files(data.paths, tmp_path / "cache", threads=1)
    readable = np.array([row not in damaged for row in range(len(data))])
    reasons = {str(data.paths[row]): "damaged" for row in damaged}
    return Features(np.zeros((len(data), 2)), keys, readable, reasons, {}, 0, 0.0)


def use(data, tmp_path, damaged=(), **settings):
    config = Config()
    config = replace(config, data=replace(config.data, **settings))
    return usable_split(data, found_in(data, tmp_path, damaged), config)


def test_a_class_without_readable_pictures(tmp_path):
    data = load_folder(draw_toys(tmp_path / "pictures", {"train": 3, "eval": 2}, RED_GREEN))
    with pytest.raises(InputError, match="no picture of the class 'red' in the eval part can be read"):
        use(data, tmp_path, damaged=(8, 9))


def test_the_held_out_pictures_are_among_the_readable(tmp_path):
    """Six classes of four pictures, one of them damaged: whichever it is."""
    colours = {name: (40 * i, 90, 200 - 30 * i) for i, name in enumerate("abcdef")}
    data = load_folder(draw_toys(tmp_path / "pictures", {"": 4}, colours))
    for spoilt in range(4):
        damaged = tuple(range(spoilt, 24, 4))
        split, _ = use(data, tmp_path, damaged)
        assert Counter(data.labels[split.eval].tolist()) == dict.fromkeys(range(6), 1)
        assert not set(damaged) & {row for rows in vars(split).values() for row in rows}


def test_what_was_left_out_grouped_or_not_held_out_is_said(tmp_path, caplog):
    data = load_folder(draw_toys(tmp_path / "toys", {"": 12}, RED_GREEN))
    doubtful = tmp_path / "labels.csv"
    lines = [f"{data.picture_name(row)},{'yes' if row in (0, 3) else 'no'}" for row in range(len(data))]
    doubtful.write_text("\n".join(["path,suspect", *lines]), encoding="utf-8")
    groups = tmp_path / "groups.csv"
    names = [data.picture_name(row) for row in (5, 6, 7, 20, 21)]
    groups.write_text(
        "\n".join(["path,group", *(f"{name},{i // 3}" for i, name in enumerate(names))]), encoding="utf-8"
    )
    with caplog.at_level("INFO", logger="finetune"):
        split, _ = use(data, tmp_path, exclude=str(doubtful), group_by=str(groups))
    assert not np.isin([0, 3], np.concatenate(list(vars(split).values()))).any()
    assert "data.exclude: 2 pictures left out" in caplog.text
    assert "data.group_by: 2 groups of several pictures, 5 pictures in all" in caplog.text
    few = tmp_path / "few"
    few.write_text("\n".join(data.picture_name(row) for row in range(2, 12)), encoding="utf-8")
    caplog.clear()
    split, _ = use(data, tmp_path, exclude=str(few))
    assert len(split.valid) and "1 class(es) with no picture to validate, as 'green'" in caplog.text


def test_both_paths_of_a_picture_that_trains_and_evaluates(tmp_path, caplog):
    data = load_folder(draw_toys(tmp_path / "pictures", {"train": 3, "eval": 2}, RED_GREEN))
    shutil.copy(data.paths[5], data.paths[-1])
    _, findings = use(data, tmp_path)
    assert findings.both_parts == [("train/red/red_002.png", "eval/red/red_001.png")]
    assert "eval/red/red_001.png evaluates, and is also train/red/red_002.png" in caplog.text
    assert "1 evaluation picture(s) are also among the training pictures" in caplog.text


@pytest.mark.parametrize("counts", [{"train": 4, "eval": 2}, {"": 6}])
def test_both_paths_of_a_picture_under_two_labels(tmp_path, caplog, counts):
    data = load_folder(draw_toys(tmp_path / "pictures", counts, RED_GREEN))
    red = list(data.labels).index(1)
    shutil.copy(data.paths[0], data.paths[red])
    _, findings = use(data, tmp_path)
    pair = (data.picture_name(0), data.picture_name(red))
    assert findings.two_labels == [pair] and not findings.both_parts
    assert f"one picture under two labels: {pair[0]} and {pair[1]}" in caplog.text


def test_many_lines_are_shortened_and_nothing_is_lost(tmp_path, caplog):
    data = load_folder(draw_toys(tmp_path / "pictures", {"train": 40, "eval": 2}, RED_GREEN))
    _, findings = use(data, tmp_path, damaged=tuple(range(30)))
    assert len(findings.damaged) == 30 and caplog.text.count("left out: ") == LINES
    assert "and 10 more; metrics.json has all" in caplog.text


def test_a_class_that_shows_nothing_is_named_with_its_count(tmp_path, caplog):
    data = load_folder(draw_toys(tmp_path / "pictures", {"train": 5, "eval": 2}, RED_GREEN))
    found = replace(found_in(data, tmp_path), tones={1: "one flat tone", 3: "one flat tone", 6: "little"})
    _, findings = usable_split(data, found, Config())
    assert findings.tones == {"green": {"one flat tone": 2}, "red": {"little": 1}}
    assert "green: 2 of 7 pictures show one flat tone, as train/green/green_001.png" in caplog.text


def test_a_picture_keeps_its_side_when_another_comes(tmp_path):
    """Of each class one at most changes its side; by far the most often none."""
    folder = draw_toys(tmp_path / "pictures", {"": 40}, RED_GREEN)
    changed, before = [], {}
    for number in range(12):
        data = load_folder(folder)
        split, _ = use(data, tmp_path)
        sides = {data.picture_name(row): part for part, rows in vars(split).items() for row in rows}
        if number:
            moved = [name for name in before if (before[name] == "eval") != (sides[name] == "eval")]
            changed.append(Counter(name.split("/")[0] for name in moved))
        before = sides
        draw_toy(folder / "red" / f"a new one {number}.png", (150, 60, 60), 5000 + number)
    assert all(count <= 1 for counts in changed for count in counts.values())
    assert sum(sum(counts.values()) for counts in changed) <= len(changed) / 2
    assert not any("green" in counts for counts in changed)


def test_copies_are_on_one_side(tmp_path):
    folder = draw_toys(tmp_path / "pictures", {"": 12}, RED_GREEN)
    for number in range(6):
        for copy in range(3):
            shutil.copy(folder / "red" / f"red_{number:03d}.png", folder / "red" / f"copy {number} {copy}.png")
    shutil.copy(folder / "red" / "red_011.png", folder / "green" / "also red.png")
    data = load_folder(folder)
    for seed in range(5):
        config = replace(Config(), seed=seed)
        found = found_in(data, tmp_path)
        split, findings = usable_split(data, found, config)
        sides = [{found.keys[row] for row in rows} for rows in vars(split).values()]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert len(findings.two_labels) == 1 and not findings.both_parts
        assert 6 <= (data.labels[split.eval] == 1).sum() <= 9  # a fifth of 30, and whole groups


def test_a_class_of_copies_only_cannot_be_split(tmp_path):
    folder = draw_toys(tmp_path / "pictures", {"": 4}, RED_GREEN)
    for number in range(1, 4):
        shutil.copy(folder / "red" / "red_000.png", folder / "red" / f"red_{number:03d}.png")
    with pytest.raises(InputError, match="the class 'red' has no two different pictures"):
        use(load_folder(folder), tmp_path)
