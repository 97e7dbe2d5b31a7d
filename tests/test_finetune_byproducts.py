"""Report and figures never cost the product: run, CKPT and export."""

import json
import os

from conftest import call, draw_toys


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
    assert done.returncode == 2
    assert f"Repeat: python -m finetune report '{run}'" in done.stderr  # quoted: it can be pasted
    assert json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))["equal"]
    again = call("finetune", "report", run)
    assert again.returncode == 0 and (run / "report.html").is_file()


def test_mathematics_and_long_names_are_drawn_as_they_are(tmp_path, toy_backbone):
    classes = {"A$$AP": (60, 150, 60), "$_$": (150, 60, 60), "x" * 60 + "_mosaic": (60, 60, 150)}
    done = run_toys(tmp_path, classes, toy_backbone)
    run = tmp_path / "my runs" / "toys"
    assert done.returncode == 0, done.stderr
    assert f"python -m finetune predict '{run}' PHOTO.jpg" in done.stdout
    assert (run / "figures" / "confusion.png").is_file() and "A$$AP" in (run / "report.html").read_text(
        encoding="utf-8"
    )
