"""Files appear whole or not at all, and damaged ones are read with a sentence."""

import csv
import subprocess
import sys

import pytest
from conftest import CHECKOUT

from datasets.base import InputError
from datasets.files import read_csv, read_json, replace_file, write_csv, write_json, write_text

NOT_UTF8 = b"\xd5\xd5.jpg".decode("utf-8", "surrogateescape")


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"old": 1})

    def breaks(file):
        file.write(b"half")
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        replace_file(path, breaks)
    assert read_json(path, "")["old"] == 1 and list(tmp_path.iterdir()) == [path]


def test_names_that_are_no_utf8_come_back_from_json(tmp_path):
    write_json(tmp_path / "a.json", {NOT_UTF8: "猫"})
    assert read_json(tmp_path / "a.json", "")[NOT_UTF8] == "猫"
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


@pytest.mark.parametrize("before, after", [('"cat"', '"bat"'), ("1400", "1401"), ("true", "false"), ("0.5", "0.6")])
def test_what_was_changed_since_is_noticed_though_it_is_good_json(tmp_path, before, after):
    path = tmp_path / "split.json"
    write_json(path, {"classes": ("cat", "dog"), "count": 1400, "sure": True, 7: 0.5, "not a number": float("nan")})
    assert read_json(path, "")["classes"] == ["cat", "dog"]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(InputError, match=r"changed since it was written.* Make it again\."):
        read_json(path, "Make it again.")


@pytest.mark.parametrize("content, what", [("{}", "no classes"), ('{"classes": 3}', "classes is a int")])
def test_an_entry_that_is_needed_is_missed(tmp_path, content, what):
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=what):
        read_json(tmp_path / "x.json", "", {"classes": list})


def test_a_table_comes_back_with_its_types(tmp_path):
    rows = [{"path": "a\u2028b\n,c.jpg", "epoch": 1, "loss": 0.5}, {"path": "", "epoch": 2, "loss": float("nan")}]
    write_csv(tmp_path / "t.csv", rows)
    first, second = read_csv(tmp_path / "t.csv", {"epoch": int, "loss": float}, "")
    assert first == rows[0] and second["epoch"] == 2 and second["loss"] != second["loss"]


@pytest.mark.parametrize("content", [b"", b"epoch\n", b"path\n1\n", b"epoch\n1,2\n", b"epoch\none\n", b"epoch\n\xff\n"])
def test_a_damaged_table_is_named_with_a_remedy(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.csv: damaged .*Make it again\."):
        read_csv(tmp_path / "t.csv", {"epoch": int}, "Make it again.")


def test_two_processes_wait_for_each_other_and_a_killed_one_holds_nobody(tmp_path):
    program = """
import sys, time
from pathlib import Path
from datasets.files import one_at_a_time
with one_at_a_time(Path(sys.argv[1], ".lock")):
    print("in", flush=True)
    sys.stdin.read()
print("out", flush=True)
"""

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=CHECKOUT, text=True, **pipes)

    with start() as first:
        assert first.stdout.readline() == "in\n"
        with start() as second:
            assert second.stderr.readline() == f"waiting: another process is at work in {tmp_path}\n"
            first.kill()
            assert second.communicate("")[0] == "in\nout\n"
