import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import RED_GREEN, draw_toy, draw_toys

from datasets.base import InputError
from datasets.folder import load_folder


@pytest.mark.parametrize("name", ["eval", "val", "valid", "validation", "validation_preprocess", "test", "Test"])
def test_every_name_of_the_evaluation_part(tmp_path, name):
    found = load_folder(draw_toys(tmp_path, {"train": 3, name: 2}, RED_GREEN))
    assert found.classes == ("green", "red")
    assert found.parts == ("train",) * 6 + ("eval",) * 4
    for path, label in zip(found.paths, found.labels):
        assert path.parent.name == found.classes[label]


def test_validation_and_test_folders_have_different_parts(tmp_path):
    found = load_folder(draw_toys(tmp_path, {"train": 3, "val": 2, "test": 1}, RED_GREEN))
    by_part = {part: {p.parts[-3] for p, q in zip(found.paths, found.parts) if q == part} for part in found.parts}
    assert by_part == {"train": {"train"}, "valid": {"val"}, "eval": {"test"}}


def test_flat_layout_has_no_published_split(tmp_path):
    found = load_folder(draw_toys(tmp_path, {"": 3}, RED_GREEN))
    assert found.parts is None
    assert np.array_equal(np.bincount(found.labels), [3, 3])


def test_only_pictures_count(tmp_path):
    draw_toys(tmp_path, {"": 2}, RED_GREEN)
    (tmp_path / "red" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "red" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "train_feature.npy").write_bytes(b"x")
    draw_toy(tmp_path / "red" / "deeper" / "PICTURE.PNG", (9, 9, 9), 99)
    found = load_folder(tmp_path)
    assert found.classes == ("green", "red")
    assert np.array_equal(np.bincount(found.labels), [2, 3])


def test_chinese_names_and_spaces(tmp_path):
    found = load_folder(draw_toys(tmp_path / "我的 图片", {"": 2}, {"猫": (9, 9, 9), "狗 狗": (200, 9, 9)}))
    assert set(found.classes) == {"猫", "狗 狗"}
    assert found.picture_name(0).split("/")[0] in found.classes


def files(root, *names, content: bytes | None = None):
    """Pictures, or files with other content."""
    for number, name in enumerate(names):
        if content is None:
            draw_toy(root / name, (90, 90, 90), number)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)


def test_content_decides_where_the_suffix_does_not(tmp_path):
    for number, suffix in enumerate(
        [".png", ".jfif", ".jpe", ".avif", ".jp2", ".pnm", ".mpo", "", ".jpg?w=300", ".xyz"]
    ):
        name = f"cat/{number}"
        files(tmp_path, name + ".png")
        (tmp_path / (name + ".png")).rename(tmp_path / (name + suffix))
    files(tmp_path, "dog/a.png", "dog/b.png")
    files(tmp_path, "cat/notes.txt", "cat/more.txt", "cat/data", "cat/x.HEIC", content=b"some words")
    found = load_folder(tmp_path)
    assert np.array_equal(
        np.bincount(found.labels), [11, 2]
    )  # a .HEIC is meant to be a picture, and reading it will tell
    assert found.passed_over == {"cat": {".txt": 2, "without suffix": 1}}


def test_a_class_may_be_called_train(tmp_path):
    files(tmp_path, *(f"{kind}/{i}.png" for kind in ("bus", "car", "train") for i in range(2)))
    found = load_folder(tmp_path)
    assert found.classes == ("bus", "car", "train") and found.parts is None
    files(tmp_path / "parts", *(f"{part}/{kind}/1.png" for part in ("train", "test") for kind in ("test", "train")))
    assert load_folder(tmp_path / "parts").classes == ("test", "train")


def test_parts_without_class_folders_are_no_classes(tmp_path):
    files(tmp_path, "train/a.png", "train/b.png", "test/c.png")
    expect(tmp_path, "pictures lie directly in test and train", "as test/cat")


@pytest.mark.parametrize("names", [("test", "Test"), ("eval", "test"), ("val", "valid", "test")])
def test_the_part_that_is_not_used_is_said(tmp_path, names):
    draw_toys(tmp_path, {"train": 3, **dict.fromkeys(names, 2)}, RED_GREEN)
    found = load_folder(tmp_path)
    used = {path.relative_to(tmp_path).parts[0] for path in found.paths}
    (unused,) = set(names) - used
    assert len(used) == len(names)
    (reason,) = found.passed_over[unused]
    assert found.passed_over == {unused: {reason: 4}} and "beside train/" in reason
    assert found.notes[0].startswith("parts: train/ trains") and unused not in found.notes[0].split()


def test_what_storage_boxes_and_systems_leave_is_no_class(tmp_path):
    draw_toys(tmp_path, {"": 2}, RED_GREEN)
    for name in ("@eaDir", "$RECYCLE.BIN", "#recycle", "__MACOSX"):
        files(tmp_path, f"{name}/x/T_M.png", f"red/{name}/1.jpg/T_M.png")
    (tmp_path / "lost+found").mkdir()
    files(tmp_path, "__other__/1.png", "__other__/2.png")
    found = load_folder(tmp_path)
    assert found.classes == ("__other__", "green", "red") and np.array_equal(np.bincount(found.labels), [2, 2, 2])
    assert found.passed_over["red"] == {name: 1 for name in ("#recycle/", "$RECYCLE.BIN/", "@eaDir/", "__MACOSX/")}
    assert set(found.passed_over["."]) == {*found.passed_over["red"], "lost+found/"}


@pytest.mark.parametrize("place", ["red", "red/deeper", "."])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch, place):
    draw_toys(tmp_path, {"": 2}, RED_GREEN)
    files(tmp_path, "red/deeper/1.png")
    scandir = os.scandir

    def refuse(folder):
        if Path(folder) == tmp_path / place:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    expect(tmp_path, str(tmp_path / place), "cannot be listed (Permission denied)", "Change its rights")


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path):
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    files(tmp_path, f"train/{one}/1.png", "train/tea/1.png", f"eval/{other}/1.png", "eval/tea/1.png")
    assert load_folder(tmp_path).classes == (one, "tea")
    files(tmp_path, f"train/{other}/2.png")
    found = load_folder(tmp_path)
    assert found.classes == (one, "tea") and np.array_equal(np.bincount(found.labels), [3, 2])
    assert any("two Unicode forms" in note for note in found.notes)


@pytest.mark.parametrize("loose", ["train/cover.png", "test/cover.png", "train/cover.png docs/a.png"])
def test_a_loose_picture_changes_no_part(tmp_path, loose):
    draw_toys(tmp_path, {"train": 3, "val": 2, "test": 1}, RED_GREEN)
    files(tmp_path, *loose.split())
    found = load_folder(tmp_path)
    assert found.classes == ("green", "red") and Counter(found.parts) == {"train": 6, "valid": 4, "eval": 2}
    assert sum(sum(counts.values()) for counts in found.passed_over.values()) == len(loose.split())


def test_a_link_upwards_takes_no_other_class_along(tmp_path):
    draw_toys(tmp_path, {"": 3}, RED_GREEN)
    (tmp_path / "red" / "up").symlink_to(tmp_path)
    (tmp_path / "red" / "itself.png").symlink_to(tmp_path / "red" / "itself.png")
    found = load_folder(tmp_path)
    assert np.array_equal(np.bincount(found.labels), [3, 3])
    assert found.passed_over == {"red": {"broken link": 1, "link to a folder seen before": 1}}


def test_parts_under_other_names_are_no_classes(tmp_path):
    draw_toys(tmp_path, {"train_set": 3, "test_set": 2}, RED_GREEN)
    expect(tmp_path, "test_set and train_set all hold green, red", "rename the folders above them to train and eval")


def test_folders_linked_twice_at_each_level_end(tmp_path):
    for level in range(30):
        (tmp_path / f"level{level}").mkdir()
    draw_toys(tmp_path / "data", {"": 2}, RED_GREEN)
    folder = tmp_path / "data" / "red"
    for level in range(30):
        for name in ("a", "b"):
            (folder / name).symlink_to(tmp_path / f"level{level}")
        folder = tmp_path / f"level{level}"
    assert load_folder(tmp_path / "data").passed_over == {"red": {"link to a folder seen before": 30}}


def test_linked_folders_are_followed_and_circles_cut(tmp_path):
    files(tmp_path / "data", "cat/1.png", "cat/2.png", "dog/1.png")
    files(tmp_path, "elsewhere/3.png", "elsewhere/4.png")
    (tmp_path / "data" / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog" / "again").symlink_to(tmp_path / "data" / "dog")
    (tmp_path / "data" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = load_folder(tmp_path / "data")
    assert np.array_equal(np.bincount(found.labels), [2, 3])
    assert found.passed_over == {"dog": {"broken link": 1, "link to a folder seen before": 1}}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    draw_toys(tmp_path, {"": 2}, RED_GREEN)
    os.mkfifo(tmp_path / "red" / "x.jpg")
    assert load_folder(tmp_path).passed_over == {"red": {"no regular file": 1}}


def test_everything_is_used_or_counted(tmp_path):
    draw_toys(tmp_path, {"train": 2, "eval": 1}, RED_GREEN)
    files(tmp_path, "loose.png", "train/loose.png", "more/red/1.png")
    files(tmp_path, "readme.md", "eval/red/a.json", "eval/.DS_Store", content=b"words")
    found = load_folder(tmp_path)
    counted = sum(sum(counts.values()) for counts in found.passed_over.values())
    assert len(found) + counted == sum(path.is_file() for path in tmp_path.rglob("*"))


def expect(folder, *words):
    with pytest.raises(InputError) as caught:
        load_folder(folder)
    for word in words:
        assert word in str(caught.value)


def test_no_such_folder(tmp_path):
    expect(tmp_path / "nowhere", "nowhere", "no such folder", "--dataset_path")


def test_no_pictures(tmp_path):
    (tmp_path / "cat").mkdir()
    expect(tmp_path, str(tmp_path), "no pictures")


def test_one_class(tmp_path):
    draw_toy(tmp_path / "cat" / "a.png", (9, 9, 9), 0)
    expect(tmp_path, "one class only (cat)", "two or more")


def test_an_empty_class_folder(tmp_path):
    draw_toys(tmp_path, {"": 2}, RED_GREEN)
    (tmp_path / "blue").mkdir()
    expect(tmp_path, str(tmp_path / "blue"), "no pictures in this class folder")


def test_a_class_that_train_lacks(tmp_path):
    draw_toys(tmp_path, {"train": 2, "eval": 2}, RED_GREEN)
    draw_toy(tmp_path / "eval" / "blue" / "a.png", (9, 9, 200), 50)
    expect(tmp_path, str(tmp_path / "eval" / "blue"), "has no pictures", "green, red")


def test_a_class_that_eval_lacks(tmp_path):
    draw_toys(tmp_path, {"train": 2, "eval": 2}, RED_GREEN)
    draw_toy(tmp_path / "train" / "blue" / "a.png", (9, 9, 200), 50)
    expect(tmp_path, str(tmp_path / "eval"), "'blue'", "is missing here")


def test_train_without_anything_to_evaluate_on(tmp_path):
    expect(draw_toys(tmp_path, {"train": 2}, RED_GREEN), "nothing to evaluate on", "eval")


def test_loose_pictures(tmp_path):
    draw_toy(tmp_path / "a.png", (9, 9, 9), 0)
    expect(tmp_path, "1 pictures lie directly in it", "folder of its own")


def test_one_folder_too_high(tmp_path):
    draw_toys(tmp_path / "cats_and_dogs", {"train": 2, "eval": 1}, RED_GREEN)
    expect(tmp_path, f"Did you mean --dataset_path {tmp_path / 'cats_and_dogs'}")


@pytest.mark.skipif(os.name != "posix", reason="such names cannot be made here")
@pytest.mark.parametrize(
    "name, word", [(b"cat\r", r"\\r"), (b"cat\nnap", r"\\n"), (b"\xd5\xd5", r"\\udcd5"), ("a\u2028b".encode(), "2028")]
)
def test_a_class_is_a_line_of_text(tmp_path, name, word):
    draw_toys(tmp_path, {"train": 1, "eval": 1}, RED_GREEN)
    for part in ("train", "eval"):
        (tmp_path / part / "red").rename(tmp_path / part / os.fsdecode(name))
    with pytest.raises(InputError, match=f"{word}.*Rename the folder"):
        load_folder(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="such names cannot be made here")
def test_files_and_data_sets_may_be_called_anything(tmp_path):
    root = tmp_path / os.fsdecode(b"set\n\xd5")
    draw_toys(root, {"": 2}, RED_GREEN)
    first = next((root / "red").iterdir())
    first.rename(root / "red" / os.fsdecode(b"\xd5\n.png"))
    dataset = load_folder(root)
    assert len(dataset) == 4 and dataset.name == r"set\n\udcd5"
