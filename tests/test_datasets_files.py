"""Files appear whole or not at all, and damaged ones are read with a sentence."""

import csv

import pytest

from datasets.base import InputError
from datasets.files import read_json, replace_file, write_csv, write_json, write_text

NOT_UTF8 = b"\xd5\xd5.jpg".decode("utf-8", "surrogateescape")


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"old": 1})

    def breaks(file):
        file.write(b"half")
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        replace_file(path, breaks)
    assert read_json(path, "") == {"old": 1} and list(tmp_path.iterdir()) == [path]


def test_names_that_are_no_utf8_come_back_from_json(tmp_path):
    write_json(tmp_path / "a.json", {NOT_UTF8: "猫"})
    assert read_json(tmp_path / "a.json", "") == {NOT_UTF8: "猫"}
    write_csv(tmp_path / "a.csv", [{"path": NOT_UTF8, "true": 'a "b", c'}])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"path": "\\udcd5\\udcd5.jpg", "true": 'a "b", c'}]


def test_the_longest_name_can_be_written(tmp_path):
    write_text(tmp_path / ("x" * 255), "text")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"text"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b'{"a": "\xff"}', b"[" * 100_000])
def test_damaged_json_is_named_with_a_remedy(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: damaged .*Make it again\."):
        read_json(tmp_path / "x.json", "Make it again.")
