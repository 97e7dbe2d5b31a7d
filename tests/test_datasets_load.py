import pytest
from conftest import RED_GREEN, call, draw_toys

from datasets import load as load_room
from datasets.base import InputError
from datasets.load import load


def test_drawn_is_the_sample_set(tmp_path, monkeypatch):
    monkeypatch.setattr(load_room, "DRAWN_PER_CLASS", 4)
    found = load("drawn", tmp_path)
    assert found.classes == ("cat", "dog") and len(found) == 8
    assert sorted(set(found.parts)) == ["eval", "train"]


def test_a_folder_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(draw_toys(tmp_path, {"drawn": 2}, RED_GREEN))
    assert load("drawn", tmp_path / "cache").classes == ("green", "red")


def test_neither_name_nor_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load("photographs", tmp_path)


def test_the_command_line_draws_lists_and_checks(tmp_path):
    folder = tmp_path / "猫 狗"
    assert call("datasets", "draw", folder, "--per_class", 4, "--seed", 3).returncode == 0
    assert "drawn" in call("datasets", "list").stdout
    done = call("datasets", "check", folder)
    assert done.returncode == 0 and "8 pictures, 0 damaged" in done.stdout
    damaged = next((folder / "eval" / "cat").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:500])
    done = call("datasets", "check", folder)
    assert done.returncode == 1 and f"damaged: eval/cat/{damaged.name}" in done.stdout
    assert call("datasets", "check", tmp_path / "nowhere").returncode == 2
