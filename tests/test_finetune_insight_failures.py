"""Where answers fail: classes, pairs and slices by hand, the exact test against SciPy's, and drawn pictures."""

import json

import numpy as np
import pytest
from conftest import RED_GREEN, call, draw_toys
from PIL import Image, ImageFilter
from scipy.stats import fisher_exact as reference

from finetune.features.looks import SLICES, look
from finetune.insight.failures import Answers, compared, failures, read_answers
from finetune.metrics import fisher_exact

CLASSES = ("cat", "dog", "owl")


@pytest.mark.parametrize("counts", [(3, 10, 40, 50), (0, 12, 88, 90), (10, 10, 90, 90), (1, 10, 0, 30), (9, 10, 1, 10)])
def test_fishers_exact_test(counts):
    right, count, other_right, other_count = counts
    wanted = reference([[right, count - right], [other_right, other_count - other_right]]).pvalue
    assert fisher_exact(*counts) == pytest.approx(wanted, rel=1e-6)


def test_failures_by_hand():
    """Of ten cats three are dogs, the second of them the surest; one of two owls is a cat."""
    y = np.array([0] * 10 + [1] * 4 + [2] * 2)
    p = np.eye(3)[y] * 0.9 + 0.03
    p[[2, 5, 7]] = [[0.2, 0.7, 0.1], [0.05, 0.95, 0.0], [0.4, 0.6, 0.0]]
    p[15] = [0.8, 0.1, 0.1]
    found = failures(Answers([f"{row}.png" for row in range(16)], y, p), {}, CLASSES)
    assert found["accuracy"] == 12 / 16 and found["wrong"] == 4
    assert found["per_class"]["cat"]["recall"] == 0.7 and found["per_class"]["dog"]["precision"] == pytest.approx(4 / 7)
    first, second = found["confused"]
    assert (first["true"], first["predicted"], first["pictures"], first["share"]) == ("cat", "dog", 3, 0.3)
    assert first["examples"] == ["5.png", "2.png", "7.png"]
    assert (second["true"], second["predicted"], second["share"]) == ("owl", "cat", 0.5)
    assert [line[0] for line in found["surest"]] == ["5.png", "15.png", "2.png", "7.png"]
    json.dumps(found)


def test_a_slice_that_differs_is_told_from_one_that_may_not():
    """Half of 20 dark ones are wrong, and 2 of 20 bright ones, of 200 with 10 wrong elsewhere; 5 tiny ones are few."""
    right = np.ones(240, bool)
    right[:10] = right[20:22] = right[40:50] = False
    rows = np.arange(240)
    found = compared(right, {"dark": rows < 20, "bright": (rows >= 20) & (rows < 40), "tiny": rows < 5})
    assert [(one.name, one.pictures, one.differs) for one in found] == [("dark", 20, True), ("bright", 20, False)]
    assert found[0].accuracy == 0.5 and found[0].rest == pytest.approx(208 / 220)
    assert 0.25 < found[0].interval[0] < 0.5 < found[0].interval[1] < 0.75
    assert "worse by more than chance" in found[0].in_words() and "no more than chance" in found[1].in_words()
    assert compared(right, {"all": rows >= 0}) == []  # nothing is left to compare with


def test_slices_of_drawn_pictures(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    plain = Image.fromarray(noise)
    pictures = {
        "plain": plain,
        "dark": plain.point(lambda value: value // 4),
        "bright": plain.point(lambda value: 255 - value // 4),
        "blurred": Image.fromarray(noise).resize((20, 20)).resize((200, 200), Image.Resampling.BICUBIC).filter(
            ImageFilter.GaussianBlur(8)
        ),
        "tiny": plain.crop((0, 0, 100, 100)),
        "long": plain.resize((400, 200)),
        "grey": plain.convert("L"),
    }  # fmt: skip
    paths = []
    for name, picture in pictures.items():
        paths.append(tmp_path / f"{name}.png")
        picture.save(paths[-1])
    paths.append(tmp_path / "gone.png")
    found = look(paths).slices
    assert set(found) == set(SLICES) and not any(there[[0, -1]].any() for there in found.values())
    for place, name in list(enumerate(pictures))[1:]:
        assert found[name][place], name
        assert not any(there[place] for other, there in found.items() if other not in (name, "grey", "blurred")), name


def test_a_finished_run_says_where_it_fails(tmp_path, toy_backbone):
    """Of pictures of which a third is red in the green folder, and dark."""
    root = draw_toys(tmp_path / "toys", {"train": 20, "eval": 12}, RED_GREEN)
    dark = {"green": (60, 10, 10)}
    for part in ("train", "eval"):
        for i, path in enumerate(sorted(draw_toys(tmp_path / "dark", {part: 12}, dark).glob(f"{part}/green/*"))):
            path.rename(root / part / "green" / f"dark_{i}.png")
    place = ("--runs_dir", tmp_path / "runs", "--cache_dir", tmp_path / "cache", "--set", "insight.in_runs=true")
    flags = ("--pretrain_ckpt", toy_backbone, "--epochs", 3, "--name", "toys")
    done = call("finetune", "train", "--dataset_path", root, *flags, *place)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "toys"
    found = json.loads((folder / "insight" / "insight.json").read_text(encoding="utf-8"))["failures"]
    assert found["out_of_fold"]["pictures"] == 88 and found["evaluation"]["pictures"] == 36
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["after"]
    assert found["evaluation"]["accuracy"] == metrics["accuracy"]
    assert found["evaluation"]["per_class"] == metrics["per_class"]
    slices = {one["name"]: one["pictures"] for one in found["out_of_fold"]["slices"]}
    assert slices["dark"] == 24 and "tiny" not in slices  # all are: there is no rest
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "Where it fails, out of fold" in report and "mean brightness below 80" in report
    assert (folder / "insight" / "failures.html").is_file()


def test_answers_of_a_run_are_read_while_its_classes_are_the_same(finished, tmp_path):
    found = read_answers(finished.folder, ("green", "red"))
    assert len(found.names) == 16 and found.probabilities.shape == (16, 2)
    assert np.abs(found.probabilities.sum(1) - 1).max() < 1e-6 and set(found.y) == {0, 1}
    assert read_answers(finished.folder, ("blue", "green", "red")) is None and read_answers(tmp_path, ("cat",)) is None
