"""`python -m datasets check`: every picture is read, and everything else is counted."""

import shutil

import odd_pictures
from conftest import RED_GREEN, call, draw_toys


def test_the_verdict_on_every_odd_picture(tmp_path):
    draw_toys(tmp_path, {"": 2}, RED_GREEN)
    verdicts = odd_pictures.write(tmp_path / "red")
    (tmp_path / "red" / "notes.txt").write_text("words", encoding="utf-8")
    shutil.copy(tmp_path / "green" / "green_000.png", tmp_path / "red" / "copied.png")
    done = call("datasets", "check", tmp_path)
    damaged = {line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("damaged: ")}
    assert damaged == {f"red/{name}" for name, verdict in verdicts.items() if verdict}
    for words in (
        "one picture under two labels: green/green_000.png, red/copied.png",
        "passed over in red: 1 .txt",
        f"{len(verdicts) + 5} pictures, {len(damaged)} damaged",
        "odd: red/" + next(name for name in verdicts if "one pixel" in name) + ": shows one flat tone",
    ):
        assert words in done.stdout, done.stdout
    assert done.returncode == 1 and "0x" not in done.stdout


def test_a_clean_set(tmp_path):
    done = call("datasets", "check", draw_toys(tmp_path / "toys", {"train": 2, "eval": 1}, RED_GREEN))
    assert done.returncode == 0 and "6 pictures, 0 damaged" in done.stdout
