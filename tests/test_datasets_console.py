"""Whoever reads the output, or does not: the work is done and its files are whole."""

import csv
import os
import subprocess
import sys

import pytest
from conftest import CHECKOUT, RED_GREEN, draw_toys

posix = pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")
CHINESE = {"猫": (60, 150, 60), "狗": (150, 60, 60)}


def shell(line: str, **variables) -> subprocess.CompletedProcess:
    """In bash, with the status of the first command of a pipe."""
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    line = line.replace("python -m", '"$PYTHON" -m') + "; exit ${PIPESTATUS[0]}"
    return subprocess.run(["bash", "-c", line], cwd=CHECKOUT, capture_output=True, env=environment, check=False)


@posix
@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C"}])
def test_a_console_without_the_letters(tmp_path, variables):
    draw_toys(tmp_path, {"": 2}, CHINESE)
    done = shell(f'python -m datasets check "{tmp_path}"', **variables)
    assert done.returncode == 0 and b"4 pictures, 0 damaged" in done.stdout and not done.stderr.count(b"Traceback")


@posix
@pytest.mark.parametrize("nobody", ["| true", "| head -n 1", ">&-", ">&- 2>&-", "2>&- | true", "> /dev/null 2>&-"])
def test_nobody_reads_the_output(exported, tmp_path, nobody):
    pictures = draw_toys(tmp_path / "pictures", {"": 30}, RED_GREEN)
    table = tmp_path / "out.csv"
    model = exported / "export" / "mobilenetv2.onnx"
    done = shell(f'python -m finetune predict "{model}" "{pictures}" --csv "{table}" {nobody}')
    assert done.returncode == 0 and b"roken pipe" not in done.stderr and b"Traceback" not in done.stderr, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 60


@posix
def test_names_that_are_no_utf8_are_checked_and_predicted(exported, tmp_path):
    pictures = draw_toys(tmp_path / "pictures", {"": 2}, RED_GREEN)
    (pictures / "red" / "red_000.png").rename(pictures / "red" / os.fsdecode(b"\xd5\xd5.png"))
    done = shell(f'python -m datasets check "{pictures}"')
    assert done.returncode == 0 and b"4 pictures, 0 damaged" in done.stdout
    model, table = exported / "export" / "mobilenetv2.onnx", tmp_path / "out.csv"
    done = shell(f'python -m finetune predict "{model}" "{pictures}" --csv "{table}"')
    assert done.returncode == 0, done.stderr
    assert "\\udcd5\\udcd5.png" in table.read_text(encoding="utf-8")
