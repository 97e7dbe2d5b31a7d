import csv
import json
import shutil

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from conftest import CHECKOUT, call

from datasets.base import InputError
from datasets.image import normalise
from export import bundle, parity, predictors
from export.manifest import sha256
from export.predictors import load_predictor
from export.verdict import EVALUATION_TOLERANCE, agree, judge
from export.writers import mindir
from export.writers.onnx_file import write_onnx
from finetune.trained import Trained
from finetune.training.networks import Classifier, Head
from finetune.training.predictor import Predictor
from pretrained.weights import load_backbone


def manifest(folder) -> dict:
    return json.loads((folder / "export" / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run, to be spoilt."""
    return shutil.copytree(finished.folder, tmp_path / "copied")


RIGHT = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])


def drift(exported, second=None, evaluated=RIGHT):
    return judge(
        RIGHT, exported, exported[:2] if second is None else second, evaluated, np.array([0, 1, 0]), 0, 1e-5, 1e-3
    )


def test_equal_answers_are_judged_equal():
    found = drift(RIGHT + 1e-6)
    assert found["equal"] and found["same_class"] == 3 and found["accuracy"] == {"ckpt": 1.0, "exported": 1.0}


@pytest.mark.parametrize(
    "found, fault",
    [
        (drift(RIGHT + np.array([[2e-5, 0], [0, 0], [0, 0]])), "to_ckpt 2.00e-05"),
        (drift(RIGHT[:, ::-1]), "another class than the CKPT on 3 of 3"),
        (drift(np.full((3, 2), np.nan)), "not numbers"),
        (drift(RIGHT, second=RIGHT[:2] + 1e-3), "second_batch_size"),
        (drift(RIGHT, evaluated=RIGHT + 0.01), "to_evaluation"),
    ],
    ids=["a little", "classes swapped", "not a number", "another batch size", "not what was evaluated"],
)
def test_every_drift_is_a_fault(found, fault):
    assert not found["equal"]
    assert fault in " ".join(found["faults"])


def test_the_manifest_says_all_that_is_needed(finished):
    facts = manifest(finished.folder)
    assert facts["classes"] == ["green", "red"]
    wanted = facts["models"]["mobilenetv2.mindir"]
    assert wanted["input_form"] == "tensor" and wanted["input"]["colour_order"] == "RGB"
    assert wanted["input"]["shape"] == [-1, 3, 32, 32]
    assert facts["image"] == {"size": [32, 32], "resize": 36, "mean_unit": [0.5] * 3, "std_unit": [0.5] * 3}
    assert facts["files"]["mobilenetv2.mindir"]["sha256"] == sha256(finished.folder / "export" / "mobilenetv2.mindir")
    accuracy = json.loads((finished.folder / "metrics.json").read_text(encoding="utf-8"))["after"]["accuracy"]
    assert facts["measured"]["accuracy"] == accuracy


def test_parity_was_measured_on_every_evaluation_picture(finished):
    found = json.loads((finished.folder / "export" / "parity.json").read_text(encoding="utf-8"))
    assert found["equal"] and found["pictures"] == found["same_class"] == 16
    assert found["largest_difference"]["to_ckpt"] <= 1e-4


def test_batchnorm_is_folded_unless_it_is_kept(copied):
    path = copied / "export" / "mobilenetv2.mindir"
    found = bundle.export_run(copied, threads=2)
    assert b"BatchNorm" not in path.read_bytes() and manifest(copied)["models"][path.name]["batchnorm"] == "folded"
    assert found["models"][path.name]["tolerance"]["to_ckpt"] == 1e-4
    found = bundle.export_run(copied, 2, bundle.Wanted(keep_batchnorm=True))
    assert b"BatchNorm" in path.read_bytes() and manifest(copied)["models"][path.name]["batchnorm"] == "kept"
    assert found["models"][path.name]["tolerance"]["to_ckpt"] == 1e-5


def test_predict_from_the_mindir_alone_gives_what_was_evaluated(finished, toy_pictures, tmp_path):
    """The model and its manifest, copied away from the run; folders and files mixed; a damaged file."""
    alone = shutil.copytree(finished.folder / "export", tmp_path / "elsewhere")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"damaged")
    table = tmp_path / "out.csv"
    model = alone / "mobilenetv2.mindir"
    done = call("finetune", "predict", model, toy_pictures / "eval", bad, "--csv", table)
    assert done.returncode == 1, done.stderr  # something was left out
    assert f"left out: {bad}" in done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        found = {row["path"]: row for row in csv.DictReader(file)}
    with (finished.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        evaluated = list(csv.DictReader(file))
    assert len(found) == len(evaluated) == 16
    for row in evaluated:
        again = found[str(toy_pictures / row["path"])]
        assert again["predicted"] == row["predicted"]
        assert float(again["p_red"]) == pytest.approx(float(row["p_red"]), abs=1e-4)


def test_predict_from_the_run_equals_predict_from_the_mindir(finished, toy_pictures):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    by_run = load_predictor(finished.folder)(images)
    by_mindir = load_predictor(finished.folder / "export" / "mobilenetv2.mindir")(images, batch_size=2)
    assert by_run.shape == (5, 2) and np.allclose(by_run, by_mindir, atol=1e-4)


def test_predict_errors(finished, tmp_path):
    model = finished.folder / "export" / "mobilenetv2.mindir"
    (tmp_path / "bad.jpg").write_bytes(b"damaged")
    for arguments, words in (
        ([model, tmp_path / "none.jpg"], "no such file or folder"),
        ([tmp_path / "bad.jpg", model], "neither a run folder nor a .mindir"),
        ([shutil.copy(model, tmp_path / "lonely.mindir"), model], "manifest.json: not there"),
    ):
        done = call("finetune", "predict", *arguments)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    picture = (CHECKOUT / "docs" / "before_after.jpg").read_bytes()
    (tmp_path / "a.png").write_bytes(picture)
    for table, words in ((tmp_path / "a.png", "one of the pictures"), (tmp_path / "no" / "x.csv", "not there")):
        done = call("finetune", "predict", model, tmp_path / "a.png", "--csv", table)
        assert done.returncode == 2 and words in done.stderr
    assert (tmp_path / "a.png").read_bytes() == picture
    done = call("finetune", "predict", model.parent, tmp_path / "a.png")  # the bundle's folder in place of its file
    assert done.returncode == 0 and str(tmp_path / "a.png") in done.stdout, done.stderr
    done = call("finetune", "predict", model, tmp_path / "bad.jpg")
    assert done.returncode == 1 and "None of the 1 picture(s)" in done.stderr


def test_verify_repeats_the_comparison_and_sees_a_changed_model(copied):
    assert call("export", "verify", copied).returncode == 0
    model = copied / "export" / "mobilenetv2.mindir"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    done = call("export", "verify", copied)
    assert done.returncode == 2 and "mobilenetv2.mindir: changed since it was exported" in done.stderr


def test_a_drifting_export_fails_and_leaves_no_finished_file(copied, monkeypatch):
    def write_something_else(trained, path, *rest):
        bias = trained.head.dense.bias
        bias.set_data(ms.Tensor(bias.asnumpy() + np.array([0.1, 0], np.float32)))
        original(trained, path, *rest)

    original = mindir.write_mindir
    monkeypatch.setattr(mindir, "write_mindir", write_something_else)
    with pytest.raises(InputError, match="drifts from the trained network"):
        bundle.export_run(copied, threads=0)
    assert sorted(path.name for path in (copied / "export").iterdir()) == ["parity.json"]


@pytest.mark.parametrize(
    ("engine", "formats", "moved", "judged_by"),
    [
        ("auto", ["MINDIR"], 0.0, "openvino"),
        ("auto", ["MINDIR"], 0.1, "mindspore"),
        ("auto", ["ONNX"], 0.0, "mindspore"),
        ("mindspore", ["MINDIR"], 0.0, "mindspore"),
    ],
    ids=["as it is", "engine astray", "nothing that MindSpore runs", "run without it"],
)
def test_who_computes_the_trained_network_for_the_comparison(copied, monkeypatch, engine, formats, moved, judged_by):
    """The engine, but never the last word: where a file differs from it, or none is run by MindSpore, MindSpore has."""

    class Astray(predictors.CkptByEngine):
        def __call__(self, images):
            return super().__call__(images) + np.float32(moved)

    config = (copied / "config.yaml").read_text(encoding="utf-8")
    (copied / "config.yaml").write_text(config.replace("engine: auto", f"engine: {engine}"), encoding="utf-8")
    monkeypatch.setattr(parity, "CkptByEngine", Astray)
    found = bundle.export_run(copied, 2, bundle.Wanted(formats))
    assert found["equal"] and found["ckpt_by"] == judged_by


def test_where_two_classes_are_all_but_equally_likely_the_engine_does_not_decide():
    by_mindspore, by_engine = np.array([[0.500001, 0.499999]]), np.array([[0.499999, 0.500001]])
    assert agree(by_mindspore, by_mindspore, 1e-5) and not agree(by_mindspore, by_engine, 1e-5)
    assert not agree(RIGHT, RIGHT + 2e-5, 1e-5) and not agree(RIGHT, RIGHT * np.nan, 1e-5)


def test_export_errors(tmp_path, copied):
    assert "no such run folder" in call("export", tmp_path / "nowhere").stderr
    (copied / "ckpt" / "mobilenetv2_best.ckpt").write_bytes(b"damaged")
    done = call("export", copied)
    assert done.returncode == 2 and "not readable as weights" in done.stderr


def test_features_in_bf16_may_move_what_was_evaluated_but_not_the_export():
    """Exported files compute in f32: only the distance to evaluation is wider, never that to the CKPT."""
    limit = EVALUATION_TOLERANCE["bf16"]
    zeros = np.array([0, 1, 0])
    assert judge(RIGHT, RIGHT, RIGHT[:2], RIGHT + 0.1, zeros, 0, 1e-5, limit)["equal"]
    assert not judge(RIGHT, RIGHT + 0.1, RIGHT[:2], RIGHT, zeros, 0, 1e-5, limit)["equal"]


@pytest.mark.parametrize("input_form", ["tensor", "image"])
def test_a_hidden_layer_comes_through_onnx(toy_backbone, tmp_path, input_form):
    backbone = load_backbone(toy_backbone)
    head = Head(backbone.feature_size, 3, hidden=8)
    head.dense.weight.set_data(ms.Tensor(np.random.default_rng(1).normal(0, 1, (3, 8)).astype(np.float32)))
    trained = Trained(Classifier(backbone.network, head), backbone, head, tuple("abc"), backbone.record.image)
    write_onnx(trained, tmp_path / "model.onnx", input_form)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    x = normalise(images, trained.image)
    session = onnxruntime.InferenceSession((tmp_path / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {input_form: images if input_form == "image" else x})
    wanted = Predictor(trained.network)(x)
    assert np.ptp(wanted, axis=0).max() > 0.01  # the pictures are told apart
    assert np.allclose(found, wanted, atol=1e-4)


@pytest.mark.slow
def test_the_run_may_be_named_on_standard_input(copied):
    shutil.rmtree(copied / "export")
    done = call("export", "-", input=str(copied))
    assert done.returncode == 0, done.stderr
    assert manifest(copied)["files"]


@pytest.mark.parametrize("command", [["export", "-"], ["finetune", "report", "-"]], ids=" ".join)
def test_without_a_name_on_standard_input_nothing_happens(command):
    """As when the training stops for which it was started ahead of its turn."""
    done = call(*command, input="")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
