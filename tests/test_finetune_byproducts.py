"""Report and figures never cost the product: run, CKPT and export."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import CHECKOUT, call, draw_toys

from finetune.evaluation.figures import short_names


def run_toys(place, classes, toy_backbone, **options):
    pictures = draw_toys(place / "toys", {"train": 8, "eval": 3}, classes)
    wanted = ("--dataset_path", pictures, "--pretrain_ckpt", toy_backbone, "--epochs", 2, "--name", "toys")
    return call("finetune", "run", *wanted, "--runs_dir", place / "my runs", "--cache_dir", place / "cache", **options)


def test_a_report_that_fails_costs_nothing_else(tmp_path, toy_backbone):
    broken = tmp_path / "elsewhere" / "matplotlib"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('no fonts here')", encoding="utf-8")
    classes = {"green": (60, 150, 60), "red": (150, 60, 60)}
    environment = {**os.environ, "PYTHONPATH": str(broken.parent)}
    done = run_toys(tmp_path, classes, toy_backbone, env=environment)
    run = tmp_path / "my runs" / "toys"
    assert done.returncode == 1
    assert f"Repeat: python -m finetune report '{run}'" in done.stderr  # quoted: it can be pasted
    assert json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))["equal"]
    again = call("finetune", "report", run)
    assert again.returncode == 0 and (run / "report.html").is_file()


@pytest.mark.slow
def test_mathematics_and_long_names_are_drawn_as_they_are(tmp_path, toy_backbone):
    classes = {"A$$AP": (60, 150, 60), "$_$": (150, 60, 60), "x" * 60 + "_mosaic": (60, 60, 150)}
    done = run_toys(tmp_path, classes, toy_backbone)
    run = tmp_path / "my runs" / "toys"
    assert done.returncode == 0, done.stderr
    assert f"python -m finetune predict '{run}' PHOTO.jpg" in done.stdout
    assert (run / "figures" / "confusion.png").is_file() and "A$$AP" in (run / "report.html").read_text(
        encoding="utf-8"
    )


def test_names_in_figures_can_be_told_apart():
    tomatoes = ["Tomato___Tomato_mosaic_virus", "Tomato___Tomato_Yellow_Leaf_Curl_Virus", "Tomato___Tomato_healthy"]
    short = short_names([*tomatoes, "a_b", "a b", "猫" * 30, "cat"])
    assert len(set(short.values())) == 7 and short["cat"] == "cat"
    assert all("…" in short[name] and short[name].startswith("Tomato") for name in tomatoes)
    assert len(short["猫" * 30]) <= 22


@pytest.mark.slow
def test_letters_that_no_font_has_are_one_line(tmp_path, toy_backbone):
    done = run_toys(tmp_path, {"बिल्ली": (60, 150, 60), "कुत्ता": (150, 60, 60)}, toy_backbone)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no installed font has") <= 1 and "Glyph" not in done.stderr


def test_nothing_stays_behind_where_the_home_directory_cannot_be_written(finished, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    elsewhere = ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    environment.update(HOME="/nonexistent", TMPDIR=str(temporary))
    run = shutil.copytree(finished.folder, tmp_path / "run")
    done = call("finetune", "report", run, env=environment)
    assert done.returncode == 0 and not list(temporary.iterdir()), done.stderr


@pytest.mark.parametrize("package", ["finetune", "export"])
def test_a_foreign_package_called_datasets_is_named(tmp_path, package):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), str(CHECKOUT)])
    command = [sys.executable, "-m", package, "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 1 and f"another `datasets` before the one of {CHECKOUT}: {tmp_path}" in done.stderr
