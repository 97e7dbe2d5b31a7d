"""Exported files tell what is unlike the training pictures as the run does, or leave it out and say so."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import call
from PIL import Image

from datasets.base import InputError
from datasets.files import digest
from datasets.image import load_images
from export import bundle
from export.manifest import MANIFEST, sha256
from export.predictors import Seen, load_predictor, together
from export.run_predictor import RunPredictor
from export.serving.model import open_served
from export.verdict import judge
from export.writers import onnx_file
from finetune.insight.novelty import FILE, load_novelty

BOTH = ["probabilities", "novelty"]


def manifest(folder: Path) -> dict:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def rewrite(folder: Path, facts: dict) -> None:
    facts["digest"] = digest(facts)
    (folder / MANIFEST).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def script(path: Path, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(path), *map(str, arguments)]
    return subprocess.run(command, cwd=path.parent, capture_output=True, encoding="utf-8")


def rows_of(table: Path) -> list[dict]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """Plain blue. A backbone of random weights finds most other things like red and green."""
    path = tmp_path_factory.mktemp("foreign") / "blue.png"
    Image.new("RGB", (40, 40), (0, 0, 255)).save(path)
    return path


@pytest.fixture(scope="module")
def own(toy_pictures) -> list[Path]:
    return sorted((toy_pictures / "eval").rglob("*.png"))


@pytest.fixture
def without(exported, tmp_path) -> Path:
    """A run without novelty, as from scratch, exported again."""
    folder = shutil.copytree(exported, tmp_path / "without")
    (folder / FILE).unlink()
    bundle.export_run(folder, 2, bundle.Wanted(["MINDIR", "ONNX"]))
    return folder


@pytest.mark.parametrize("kind", ["finished", "exported"], ids=["MindIR", "ONNX"])
def test_files_and_network_tell_the_same(kind, request, own, foreign):
    run = request.getfixturevalue(kind)
    run = getattr(run, "folder", run)
    by_run = RunPredictor(run)
    images, _ = load_images([*own, foreign], by_run.image)
    wanted = by_run.look(images).novelty
    assert load_predictor(run).look(images).novelty == pytest.approx(wanted, rel=1e-3)
    facts = manifest(run / "export")
    assert facts["novelty"]["threshold"] == 1
    for name in facts["models"]:
        assert facts["models"][name]["outputs"] == BOTH
        for batch_size in (1, 4, 20):
            assert load_predictor(run / "export" / name).look(images, batch_size).novelty == pytest.approx(
                wanted, rel=1e-3
            )
    found = json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))
    assert all(one["largest_difference"]["novelty_to_ckpt"] <= 1e-3 for one in found["models"].values())


def test_the_bundles_script_and_predict_say_what_is_unlike(exported, own, foreign, tmp_path):
    alone = shutil.copytree(exported / "export", tmp_path / "alone")
    for done in (
        script(alone / "predict.py", foreign, *own, "--csv", tmp_path / "out.csv"),
        call("finetune", "predict", alone / "mobilenetv2.onnx", foreign, *own, "--csv", tmp_path / "out.csv"),
    ):
        assert done.returncode == 0, done.stderr
        rows = rows_of(tmp_path / "out.csv")
        assert rows[0]["unlike"] == "yes" and sum(row["unlike"] == "yes" for row in rows) <= 3
        assert [row["unlike"] == "yes" for row in rows] == [float(row["novelty"]) > 1 for row in rows]
        lines = [line for line in done.stdout.splitlines() if line.endswith("  unlike the training pictures")]
        assert lines[0].startswith(f"{foreign}  ")
    done = script(alone / "verify.py")
    assert done.returncode == 0 and ", of novelty " in done.stdout


def test_a_model_without_it_works_and_says_nothing(without, foreign, tmp_path):
    facts = manifest(without / "export")
    assert facts["novelty"] is None and {tuple(one["outputs"]) for one in facts["models"].values()} == {
        ("probabilities",)
    }
    alone = shutil.copytree(without / "export", tmp_path / "alone")
    for name in facts["models"]:
        done = script(alone / "predict.py", foreign, "--model", name, "--csv", tmp_path / "out.csv")
        assert done.returncode == 0 and "unlike" not in done.stdout, done.stderr
        assert "novelty" not in rows_of(tmp_path / "out.csv")[0]
    served = open_served(alone)
    assert served.novelty_threshold is None
    assert served(np.zeros((1, 32, 32, 3), np.uint8)).novelty is None


def test_a_bundle_of_the_version_before_goes_on_working(without, foreign, tmp_path):
    alone = shutil.copytree(without / "export", tmp_path / "alone")
    facts = manifest(alone)
    del facts["novelty"]
    for one in facts["models"].values():
        del one["outputs"]
    rewrite(alone, {**facts, "format": 3})
    for command in (("export", "verify", alone), ("finetune", "predict", alone / "mobilenetv2.mindir", foreign)):
        done = call(*command)
        assert done.returncode == 0, done.stderr
    assert open_served(alone).novelty_threshold is None
    rewrite(alone, {**facts, "format": 2})
    with pytest.raises(InputError, match="of format 2"):
        open_served(alone)


def test_a_graph_that_tells_another_novelty_is_a_drift(exported, tmp_path, monkeypatch):
    run = shutil.copytree(exported, tmp_path / "run")
    original = onnx_file.novelty_nodes

    def another(novelty, x):
        return original(novelty.within(1.01), x)

    monkeypatch.setattr(onnx_file, "novelty_nodes", another)
    with pytest.raises(InputError, match=r"mobilenetv2\.onnx: difference novelty_to_ckpt"):
        bundle.export_run(run, 2, bundle.Wanted(["ONNX"]))
    assert not (run / "export" / MANIFEST).exists()


@pytest.mark.parametrize(("told", "equal"), [(1.0005, True), (1.002, False), (np.nan, False)])
def test_novelty_is_judged_as_a_share(told, equal):
    p = np.array([[0.9, 0.1], [0.3, 0.7]])
    novelty = np.array([0.5, 3.0])
    found = judge(p, p, p[:1], p, np.array([0, 1]), 0, 1e-5, 1e-3, None, (novelty, novelty * [1, told]))
    assert found["equal"] == equal


def test_verify_notices_a_file_that_tells_another_novelty(exported, tmp_path):
    alone = shutil.copytree(exported / "export", tmp_path / "alone")
    path = alone / "mobilenetv2.onnx"
    model = onnx.load(path)
    arrays = [array for array in model.graph.initializer if array.name.startswith("novelty_")]
    axes = max(arrays, key=lambda array: array.ByteSize())
    axes.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(axes), axes.name))
    onnx.save(model, path)
    facts = manifest(alone)
    facts["files"][path.name]["sha256"] = sha256(path)
    rewrite(alone, facts)
    done = script(alone / "verify.py")
    assert done.returncode == 1 and "mobilenetv2.onnx: novelty differs by up to" in done.stderr, done.stdout


@pytest.mark.slow
def test_what_is_of_other_weights_is_not_exported(exported, tmp_path, caplog):
    run = shutil.copytree(exported, tmp_path / "run")
    with np.load(run / FILE) as file:
        np.savez(run / FILE, **{**file, "ckpt": "of another one"})
    assert load_novelty(run) is None
    bundle.export_run(run, 2, bundle.Wanted(["ONNX"]))
    assert manifest(run / "export")["novelty"] is None and "not of this CKPT" in caplog.text


def test_batches_together_and_one_of_them():
    some = [Seen(np.ones((2, 3)), np.arange(2.0)), Seen(np.zeros((1, 3)), np.array([7.0]))]
    found = together(some)
    assert found.novelty.tolist() == [0, 1, 7] and found.maps is None
    assert found[2].novelty == 7 and found[2].maps is None and found[:2].probabilities.shape == (2, 3)
