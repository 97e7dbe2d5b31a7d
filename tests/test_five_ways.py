"""One file, one verdict, one answer: `check`, `run`, `predict`, the bundle's predict.py and the page.

The odd collection evaluates a run with a toy backbone, and the same files are given to the other ways in.
"""

import csv
import json
import subprocess
import sys

import httpx
import numpy as np
import odd_pictures
import pytest
from conftest import RED_GREEN, call, draw_toys, served_at

from export.serving.model import open_served


@pytest.fixture(scope="module")
def odd(tmp_path_factory, toy_backbone):
    """(folder of the pictures, verdicts by name, the finished run)."""
    place = tmp_path_factory.mktemp("odd")
    data = draw_toys(place / "data", {"train": 12, "eval": 2}, RED_GREEN)
    verdicts = odd_pictures.write(data / "eval" / "red")
    done = call(
        *("finetune", "run", "--dataset_path", data, "--pretrain_ckpt", toy_backbone, "--epochs", 4, "--name", "odd"),
        *("--runs_dir", place / "runs", "--cache_dir", place / "cache", "--batch_size", 8),
        *("--set", "export.file_format=MINDIR,ONNX", "--set", "train.learning_rate=0.05"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return data / "eval" / "red", verdicts, place / "runs" / "odd"


def probabilities(path) -> dict[str, list[float]]:
    """{file name: probabilities} of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["path"].rsplit("/", 1)[-1]: [float(row["p_green"]), float(row["p_red"])] for row in csv.DictReader(file)
        }


def refused(lines: str) -> dict[str, str]:
    """{file name: reason} of `left out: path: reason`."""
    found = [line.removeprefix("left out: ") for line in lines.splitlines() if line.startswith("left out: ")]
    return {line.partition(".jpg: ")[0].rsplit("/", 1)[-1] + ".jpg": line.partition(".jpg: ")[2] for line in found}


def test_all_five_agree(odd, tmp_path):
    folder, verdicts, run = odd
    bad = {name for name, verdict in verdicts.items() if verdict}
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    by_run = {path.rsplit("/", 1)[-1]: reason for path, reason in metrics["damaged"].items()}
    assert set(by_run) == bad and len(verdicts) - len(bad) >= 40
    answers = {"run": {n: p for n, p in probabilities(run / "predictions.csv").items() if n in verdicts}}

    done = call("finetune", "predict", run, folder, "--csv", tmp_path / "ours.csv")
    assert done.returncode == 1 and refused(done.stderr) == by_run
    answers["predict"] = {n: p for n, p in probabilities(tmp_path / "ours.csv").items() if n in verdicts}

    files = sorted(folder / name for name in verdicts)
    command = [sys.executable, "predict.py", *map(str, files), "--csv", str(tmp_path / "bundle.csv")]
    done = subprocess.run(command, cwd=run / "export", capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and refused(done.stderr) == by_run, done.stderr
    answers["bundle"] = probabilities(tmp_path / "bundle.csv")

    page, of_page = {}, {}
    with served_at(open_served(run)) as address, httpx.Client(timeout=60) as client:
        for file in files:
            response = client.post(f"{address}/predict", files=[("picture", (file.name, file.read_bytes()))])
            if response.status_code == 200:
                (found,) = response.json()["pictures"]
                page[file.name] = [found["probabilities"][name] for name in ("green", "red")]
            else:
                assert response.status_code in (413, 415, 422)
                of_page[file.name] = response.json()["error"]
    answers["page"] = page
    assert set(of_page) == bad
    for name, error in of_page.items():
        assert error["reason"] == verdicts[name] and error["message"][1:] == f"{by_run[name]}."[1:]

    done = call("datasets", "check", folder.parents[1])
    by_check = {
        line.split(": ")[1].rsplit("/", 1)[-1] for line in done.stdout.splitlines() if line.startswith("damaged: ")
    }
    assert done.returncode == 1 and by_check == bad

    good = sorted(set(verdicts) - bad)
    for way, found in answers.items():
        assert sorted(found) == good, way
        difference = np.abs(np.array([found[n] for n in good]) - np.array([answers["run"][n] for n in good]))
        assert difference.max() <= 1e-3, (way, good[int(difference.max(1).argmax())])


def test_what_is_left_out_is_in_log_and_report(odd):
    _, verdicts, run = odd
    report = (run / "report.html").read_text(encoding="utf-8")
    text = (run / "log.txt").read_text(encoding="utf-8")
    assert f"{sum(map(bool, verdicts.values()))} damaged picture(s) left out" in text
    assert "red: 1 of" in text and "one flat tone" in text and "one flat tone" in report
    assert "parts: train/ trains, eval/ evaluates" in text and "Git LFS pointer" in report
