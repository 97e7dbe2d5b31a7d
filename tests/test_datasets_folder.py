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
