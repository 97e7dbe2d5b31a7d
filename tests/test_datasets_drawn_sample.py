"""The drawn sample set: the same bytes every time, safe folders, and a task that is not trivial."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKOUT
from PIL import Image

from datasets.base import InputError
from datasets.drawn import sample


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """24 pictures a class, drawn once for the tests that only look."""
    return sample.draw_dataset(tmp_path_factory.mktemp("drawn"), per_class=24, seed=5)


def test_a_picture_depends_on_its_arguments_only():
    first = sample.draw_picture("cat", 3, 1).tobytes()
    np.random.seed(99)
    sample.draw_picture("dog", 0, 0)
    assert sample.draw_picture("cat", 3, 1).tobytes() == first
    others = [sample.draw_picture(*other).tobytes() for other in (("cat", 4, 1), ("cat", 3, 2), ("dog", 3, 1))]
    assert len({first, *others}) == 4


def test_two_processes_write_the_same_bytes(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    sample.draw_dataset(here, per_class=2, seed=7)
    code = "import sys; from datasets.drawn.sample import draw_dataset; draw_dataset(sys.argv[1], per_class=2, seed=7)"
    subprocess.run(
        [sys.executable, "-c", code, str(there)], cwd=CHECKOUT, check=True, env={**os.environ, "PYTHONHASHSEED": "1"}
    )
    assert contents(here) == contents(there)


def test_several_workers_draw_the_same(tmp_path, monkeypatch):
    alone = contents(sample.draw_dataset(tmp_path / "alone", per_class=3))
    monkeypatch.setattr(sample, "WORTH_A_WORKER", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(sample, "draw_picture", lambda *_: pytest.fail("drew here"))
    assert contents(sample.draw_dataset(tmp_path / "together", per_class=3)) == alone


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"'horse'.*cat, dog"):
        sample.draw_picture("horse", 0, 0)


def test_layout_and_counts(drawn):
    count = {
        f"{split}/{kind}": len(list((drawn / split / kind).iterdir()))
        for split in ("train", "eval")
        for kind in ("cat", "dog")
    }
    assert count == {"train/cat": 18, "train/dog": 18, "eval/cat": 6, "eval/dog": 6}
    names = [p.name for p in drawn.rglob("*.jpg")]
    assert len(set(names)) == len(names) and {"cat_0000.jpg", "dog_0023.jpg"} <= set(names)


def test_pictures_are_rgb_jpegs_of_a_photo_s_size(drawn):
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert min(picture.size) >= 192 and max(picture.size) <= 256


@pytest.mark.parametrize(("per_class", "held_out"), [(2, 1), (4, 1), (6, 2), (200, 50)])
def test_a_quarter_is_for_eval(per_class, held_out):
    plan = sample.plan_files(Path("x"), per_class, 0)
    assert len(plan) == 2 * per_class
    assert sum(path.parts[1] == "eval" for path in plan) == 2 * held_out


def test_a_finished_set_is_left_alone(tmp_path, monkeypatch):
    sample.draw_dataset(tmp_path, per_class=2)
    monkeypatch.setattr(sample, "draw_picture", lambda *_: pytest.fail("drew again"))
    assert sample.draw_dataset(tmp_path, per_class=2) == tmp_path


def test_an_interrupted_drawing_is_completed(tmp_path, monkeypatch):
    whole = contents(sample.draw_dataset(tmp_path / "whole", per_class=3))
    draw, calls = sample.draw_picture, []

    def interrupted(*arguments):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(arguments)
        return draw(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sample, "draw_picture", interrupted)
        sample.draw_dataset(tmp_path / "broken", per_class=3)
    assert sample.MARK not in contents(tmp_path / "broken")
    assert contents(sample.draw_dataset(tmp_path / "broken", per_class=3)) == whole


def test_a_lost_mark_and_lost_pictures_are_made_again(tmp_path):
    whole = contents(sample.draw_dataset(tmp_path, per_class=2))
    (tmp_path / sample.MARK).unlink()
    (tmp_path / "train/cat/cat_0000.jpg").unlink()
    assert contents(sample.draw_dataset(tmp_path, per_class=2)) == whole
    (tmp_path / "eval/dog/dog_0001.jpg").unlink()
    assert contents(sample.draw_dataset(tmp_path, per_class=2)) == whole


def test_another_set_of_ours_is_replaced(tmp_path):
    small = contents(sample.draw_dataset(tmp_path / "small", per_class=2, seed=1))
    sample.draw_dataset(tmp_path / "both", per_class=3, seed=0)
    assert contents(sample.draw_dataset(tmp_path / "both", per_class=2, seed=1)) == small


@pytest.mark.parametrize("name", ["notes.txt", "train/cat/cat_0000.jpg", "eval/horse/1.jpg"])
def test_foreign_files_are_refused_and_kept(tmp_path, name):
    foreign = tmp_path / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    if foreign.suffix == ".jpg":
        Image.new("RGB", (8, 8)).save(foreign)
    else:
        foreign.write_text("mine", "utf-8")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"{foreign.name}.*empty folder"):
        sample.draw_dataset(tmp_path, per_class=2)
    assert contents(tmp_path) == before


def test_the_feature_views_may_lie_beside_the_pictures(tmp_path):
    view = tmp_path / "features" / "train_feature.npy"
    view.parent.mkdir()
    np.save(view, np.zeros(3))
    sample.draw_dataset(tmp_path, per_class=2)
    assert view.exists() and (tmp_path / sample.MARK).exists()


@pytest.mark.parametrize("arguments", [{"per_class": 1}, {"seed": -1}])
def test_impossible_numbers_are_refused(tmp_path, arguments):
    with pytest.raises(InputError, match="or more"):
        sample.draw_dataset(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("cue", sample.CUES)
def test_every_option_of_a_cue_occurs_in_both_kinds(cue):
    percent = np.array(list(sample.CUES[cue].values()))
    assert (percent > 0).all()
    assert percent.sum(axis=0).tolist() == [100, 100]


def test_odd_ears_do_occur():
    cats, dogs = (
        {sample.choose_cues(kind, np.random.default_rng(i))["ears"] for i in range(150)} for kind in sample.KINDS
    )
    assert "folded" in cats and "pricked" in dogs


def test_raw_pixels_do_not_tell_cats_from_dogs(drawn):
    """The nearest other picture, 32x32 RGB, is of the same kind in fewer than 75 % of the cases."""
    paths = sorted(drawn.rglob("*.jpg"))
    kinds = np.array([path.parent.name for path in paths])
    pixels = np.stack([np.asarray(Image.open(path).resize((32, 32)), np.float32).ravel() for path in paths])
    distance = np.linalg.norm(pixels[:, None] - pixels[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (kinds[distance.argmin(axis=1)] == kinds).mean() < 0.75


def test_ctrl_c_ends_all_workers_and_the_same_command_goes_on(tmp_path):
    """As a terminal does it: the signal goes to the whole group."""
    command = [sys.executable, "-m", "datasets", "draw", str(tmp_path), "--per_class", "2000"]
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where the tests themselves ignore it
    drawing = subprocess.Popen(
        command, cwd=CHECKOUT, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heeding
    )
    while drawing.poll() is None and not any(tmp_path.rglob("*.jpg")):
        time.sleep(0.05)
    os.killpg(drawing.pid, signal.SIGINT)
    stderr = drawing.communicate(timeout=60)[1].decode()
    assert drawing.returncode == 130
    assert "Traceback" not in stderr and "goes on" in stderr
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        for _ in range(200):
            os.killpg(drawing.pid, 0)
            time.sleep(0.05)
    assert sample.MARK not in contents(tmp_path)


def test_two_draws_at_once_give_one_set(tmp_path):
    code = "import sys; from datasets.drawn.sample import draw_dataset; draw_dataset(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", code, tmp_path / "set"]
    both = [subprocess.Popen([*command, per_class], cwd=CHECKOUT) for per_class in ("8", "4")]
    assert [process.wait() for process in both] == [0, 0]
    found = contents(tmp_path / "set")
    wanted = contents(sample.draw_dataset(tmp_path / "alone", 8 if len(found) > 12 else 4))
    assert found == wanted


def test_a_finished_set_is_read_where_nothing_can_be_written(drawn, monkeypatch):
    monkeypatch.setattr(sample, "one_at_a_time", lambda mark: pytest.fail("wrote a lock"))
    assert sample.draw_dataset(drawn, per_class=24, seed=5) == drawn
