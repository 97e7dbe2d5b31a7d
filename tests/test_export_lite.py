"""MindSpore Lite's .ms files, and files of less precision than float."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import pytest
from conftest import TOY_SPEC, call, made_once

from datasets.base import InputError
from datasets.files import write_json
from export import bundle
from export.cost import cost
from export.manifest import model_facts
from export.predictors import load_predictor
from export.standalone import lite
from export.verdict import judge, left_out, table
from export.writers.lite import convert_mindir
from finetune.trained import load_trained

MS = ["mobilenetv2.ms", "mobilenetv2_image.ms"]


def python_37() -> str | None:
    places = [shutil.which("python3.7"), *sorted(Path.home().glob(".pyenv/versions/3.7.*/bin/python3.7"))]
    for place in filter(None, places):
        if not subprocess.run([str(place), "-c", ""], capture_output=True).returncode:
            return str(place)
    return None


@pytest.fixture(scope="session")
def lite_python(tmp_path_factory) -> str:
    """A Python 3.7 with MindSpore Lite, installed from the package index."""

    def install(place: Path) -> str:
        python = place / "bin" / "python"
        subprocess.run([python_37(), "-m", "venv", str(place)], check=True)
        command = [str(python), "-m", "pip", "install", "-q", "mindspore-lite==2.0.0"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        return str(python) if done.returncode == 0 else ""

    python = python_37() and made_once(tmp_path_factory, "lite", install)
    if not python:
        pytest.skip("no Python 3.7 here, or no package index that has mindspore-lite 2.0.0 for it")
    return python


@pytest.fixture(scope="session")
def lite_run(finished, lite_python, tmp_path_factory) -> Path:
    """The finished run with .ms of both input forms and precisions; not to be changed."""

    def export(place: Path) -> Path:
        folder = shutil.copytree(finished.folder, place / "toys")
        wanted = ("--file_format", "LITE", "--input_form", "tensor", "image", "--precision", "fp16")
        done = call("export", folder, *wanted, "--lite_python", lite_python)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    return made_once(tmp_path_factory, "lite_run", export)


def test_ms_files_equal_the_trained_network(lite_run):
    found = json.loads((lite_run / "export" / "parity.json").read_text(encoding="utf-8"))
    assert found["equal"] and list(found["models"])[:2] == MS
    for name in MS:
        one = found["models"][name]
        assert one["same_class"] == one["pictures"] == 16 and one["largest_difference"]["to_ckpt"] <= 1e-4
        assert one["largest_difference"]["novelty_to_ckpt"] <= 1e-3
    half = found["models"]["mobilenetv2_fp16.ms"]
    assert half["loss"]["points"] <= half["loss"]["allowed_points"] == 1.0
    files = lite_run / "export"
    assert (files / "mobilenetv2_fp16.ms").stat().st_size < 0.6 * (files / "mobilenetv2.ms").stat().st_size


def test_the_manifest_says_that_lite_wants_one_picture_with_channels_last(lite_run):
    models = json.loads((lite_run / "export" / "manifest.json").read_text(encoding="utf-8"))["models"]
    assert models["mobilenetv2.ms"]["input"]["shape"] == [1, 32, 32, 3]
    assert models["mobilenetv2.ms"]["input"]["layout"] == "NHWC"
    assert models["mobilenetv2_image.ms"]["input"]["dtype"] == "uint8"
    assert models["mobilenetv2.ms"]["outputs"] == ["probabilities", "novelty"]
    assert models["mobilenetv2_fp16.ms"]["outputs"] == ["probabilities"]  # its features lie elsewhere


def test_a_bundle_with_ms_only_verifies_and_predicts_in_an_empty_place(
    lite_run, lite_python, toy_pictures, tmp_path, monkeypatch
):
    alone = shutil.copytree(lite_run / "export", tmp_path / "只 a bundle")
    picture = next((toy_pictures / "eval" / "red").iterdir())
    for variables, status, said in (
        ({lite.VARIABLE: lite_python}, 0, "ok  mobilenetv2_image_fp16.ms"),
        ({}, 1, lite.VARIABLE),
    ):
        environment = {k: v for k, v in os.environ.items() if k != lite.VARIABLE} | variables
        command = [sys.executable, "verify.py"]
        done = subprocess.run(command, cwd=alone, capture_output=True, encoding="utf-8", env=environment)
        assert done.returncode == status and said in done.stdout + done.stderr, done.stderr
        done = subprocess.run(
            [sys.executable, "predict.py", str(picture)], cwd=alone, capture_output=True, text=True, env=environment
        )
        assert done.returncode == status and ("  red  " in done.stdout) == (status == 0), done.stderr
    monkeypatch.setenv(lite.VARIABLE, lite_python)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    wanted = load_predictor(lite_run)(images)
    for name in MS:
        assert np.abs(load_predictor(alone / name)(images) - wanted).max() <= 1e-4


@pytest.mark.slow
def test_members_become_one_ms_file_that_others_may_read(toy_pictures, toy_backbone, lite_python, tmp_path):
    place = ("--runs_dir", tmp_path, "--cache_dir", tmp_path / "cache", "--name", "members", "--epochs", 2)
    settings = ("--set", "train.members=2", "--set", "data.views=false", "--set", "train.calibration_folds=0")
    weights = ("--dataset_path", toy_pictures, "--pretrain_ckpt", toy_backbone)
    done = call("finetune", "train", *weights, *place, *settings)
    assert done.returncode == 0, done.stderr
    done = call("export", tmp_path / "members", "--file_format", "LITE", "--lite_python", lite_python)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "members" / "export" / MS[0]).stat().st_mode & 0o777 == 0o644


def test_a_damaged_ms_file_and_a_wrong_input_are_errors_in_lites_words(lite_run, lite_python, tmp_path, monkeypatch):
    monkeypatch.setenv(lite.VARIABLE, lite_python)
    (tmp_path / "damaged.ms").write_bytes(b"damaged")
    with pytest.raises(RuntimeError, match="build_from_file failed"):
        lite.Lite(tmp_path / "damaged.ms", 0, ["probabilities"])(np.zeros((1, 32, 32, 3), np.float32))
    model = lite.Lite(lite_run / "export" / MS[0], 0, ["probabilities"])
    with pytest.raises(RuntimeError, match="an input of shape"):
        model(np.zeros((2, 32, 32, 3), np.float32))


def test_without_lite_nothing_is_touched_and_one_sentence_says_how_to_get_it(finished, monkeypatch):
    monkeypatch.delenv(lite.VARIABLE, raising=False)
    before = sorted((finished.folder / "export").iterdir())
    with pytest.raises(InputError, match=r"pip install mindspore-lite==2\.0\.0"):
        bundle.export_run(finished.folder, 0, bundle.Wanted(["MINDIR", "LITE"]))
    assert sorted((finished.folder / "export").iterdir()) == before


def test_a_python_that_has_no_lite_says_so(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished.folder, tmp_path / "copied")
    monkeypatch.setenv(lite.VARIABLE, sys.executable)
    with pytest.raises(InputError, match="No module named 'mindspore_lite'"):
        bundle.export_run(folder, 0, bundle.Wanted(["LITE"]))


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for converter_lite is a shell script")
def test_converter_lite_is_called_as_its_documentation_says(tmp_path):
    """By a stand-in that notes its arguments: the package that has the real one is not on the package index."""
    tools = tmp_path / "tools" / "converter"
    (tools / "converter").mkdir(parents=True)
    stand_in = tools / "converter" / "converter_lite"
    stand_in.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH" "$@" > "${3#--outputFile=}.ms"\n', encoding="utf-8")
    stand_in.chmod(0o755)
    convert_mindir(tmp_path, tmp_path / "in.mindir", tmp_path / "out.ms", weight_fp16=True)
    libraries, *arguments = (tmp_path / "out.ms").read_text(encoding="utf-8").split()
    assert libraries.startswith(str(tools / "lib"))
    assert arguments == [
        "--fmk=MINDIR",
        f"--modelFile={tmp_path}/in.mindir",
        f"--outputFile={tmp_path}/out",
        "--fp16=on",
    ]
    stand_in.write_text("#!/bin/sh\necho not supported >&2\nexit 1\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="not supported"):
        convert_mindir(tmp_path, tmp_path / "in.mindir", tmp_path / "other.ms", weight_fp16=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for converter_lite is a shell script")
def test_the_package_is_taken_where_its_variable_is_set(finished, lite_run, lite_python, tmp_path, monkeypatch):
    """A converter that copies a file that MindSpore Lite has made from the same network."""
    tool = tmp_path / "package" / "tools" / "converter" / "converter" / "converter_lite"
    tool.parent.mkdir(parents=True)
    made = lite_run / "export" / MS[0]
    tool.write_text(f'#!/bin/sh\ncp "{made}" "${{3#--outputFile=}}.ms"\n', encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PACKAGE_ROOT_PATH", str(tmp_path / "package"))
    monkeypatch.setenv(lite.VARIABLE, lite_python)
    folder = shutil.copytree(finished.folder, tmp_path / "copied")
    assert bundle.export_run(folder, 0, bundle.Wanted(["LITE"]))["equal"]
    tool.write_text("#!/bin/sh\necho not supported >&2\nexit 1\n", encoding="utf-8")
    with pytest.raises(InputError, match="not supported"):
        bundle.export_run(folder, 0, bundle.Wanted(["LITE"]))


def test_what_lite_logs_does_not_stop_it(lite_run, lite_python, monkeypatch):
    """A pipe holds 64 KB, and its log at this level is longer."""
    monkeypatch.setenv(lite.VARIABLE, lite_python)
    monkeypatch.setenv("GLOG_v", "0")
    model = lite.Lite(lite_run / "export" / MS[0], 0, ["probabilities"])
    for _ in range(40):
        (found,) = model(np.zeros((1, 32, 32, 3), np.float32))
        assert found.shape == (1, 2)


def test_a_python_that_is_not_there_is_named(lite_run, monkeypatch):
    monkeypatch.setenv(lite.VARIABLE, "/no/such/python")
    with pytest.raises(InputError, match=r"/no/such/python cannot be started .* MINDSPORE_LITE_PYTHON"):
        load_predictor(lite_run / "export" / MS[0])


def test_int8_is_smaller_and_its_loss_is_stated(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "copied")
    wanted = ("--file_format", "ONNX", "--input_form", "tensor", "image", "--precision", "int8", "--time")
    done = call("export", folder, *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "multiply-adds a picture" in done.stdout and "ms, 1 thread" in done.stdout
    facts = json.loads((folder / "export" / "manifest.json").read_text(encoding="utf-8"))
    assert facts["cost"] == cost(load_trained(folder))
    taken = facts["models"]["mobilenetv2.onnx"]["milliseconds"]
    assert taken["one_thread"] > 0 and taken["all_threads"] > 0
    found = json.loads((folder / "export" / "parity.json").read_text(encoding="utf-8"))["models"]
    for name in ("mobilenetv2_int8.onnx", "mobilenetv2_image_int8.onnx"):
        assert found[name]["loss"]["points"] <= 1.0 and f"{name} " in done.stdout
        in_float = folder / "export" / name.replace("_int8", "")
        assert (folder / "export" / name).stat().st_size < in_float.stat().st_size
        options = load_predictor(folder / "export" / name)._session.get_session_options()
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
        graph = onnx.load(folder / "export" / name).graph
        kinds = {node.op_type for node in graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        weights = [one for one in graph.initializer if len(one.dims) == 4]
        assert weights and all(one.data_type == onnx.TensorProto.INT8 for one in weights)
    done = subprocess.run([sys.executable, "verify.py"], cwd=folder / "export", capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and "ok  mobilenetv2_int8.onnx" in done.stdout


def test_int8_needs_the_training_pictures(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "copied")
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    del split["digest"]
    split["train"] = {f"gone/{name}": label for name, label in split["train"].items()}
    write_json(folder / "split.json", split)
    with pytest.raises(InputError, match="none of them can be read"):
        bundle.export_run(folder, 0, bundle.Wanted(["ONNX"], precisions=["int8"]))


def test_a_file_that_loses_too_much_does_not_get_its_name_and_the_others_do(finished, tmp_path, monkeypatch):
    from export.writers import onnx_file, onnx_int8

    def nonsense(trained, path, input_form, batch_size, run):
        dense = trained.head.dense
        dense.bias.set_data(dense.bias + ms.Tensor([0.0, 100.0], ms.float32))
        onnx_file.write_onnx(trained, path, input_form, batch_size)

    folder = shutil.copytree(finished.folder, tmp_path / "copied")
    monkeypatch.setattr(onnx_int8, "write_int8", nonsense)
    found = bundle.export_run(folder, 0, bundle.Wanted(["ONNX"], precisions=["int8"]))
    assert found["equal"] and "accuracy falls by 50.0 points" in left_out(found)[0]
    assert "--allowed_loss" in left_out(found)[0] and "int8" not in table(found, folder / "export")
    files = {path.name for path in (folder / "export").iterdir()}
    assert "mobilenetv2.onnx" in files and "mobilenetv2_int8.onnx" not in files
    bundle.verify_bundle(folder / "export")


def test_less_precision_is_judged_by_paired_accuracy():
    reference = np.array([[0.9, 0.1]] * 10)
    labels = np.array([0] * 9 + [1])
    flipped = reference.copy()
    flipped[[0, 1, 9]] = [0.4, 0.6]  # two lost, one won
    found = judge(reference, flipped, flipped[:2], reference, labels, 0, 1e-5, 1e-3, allowed_loss=10.0)
    assert found["equal"] and found["loss"]["points"] == pytest.approx(10)
    assert (found["loss"]["only_ckpt"], found["loss"]["only_exported"], found["loss"]["mcnemar_p"]) == (2, 1, 1.0)
    assert not judge(reference, flipped, flipped[:2], reference, labels, 0, 1e-5, 1e-3, allowed_loss=9.0)["equal"]


def test_precision_without_its_format_is_refused(finished):
    with pytest.raises(InputError, match="--file_format MINDIR ONNX"):
        bundle.export_run(finished.folder, 0, bundle.Wanted(precisions=["int8"]))


def test_what_a_network_costs_is_counted_by_hand(finished):
    """The toy, 0.1 wide at 32 x 32, layer by layer from the paper's table (Sandler et al., 2018)."""
    found = cost(load_trained(finished.folder))
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    side, channels = 16, 8
    multiply_adds, parameters, largest = 3 * 9 * 8 * 16**2, 3 * 9 * 8 + 8, 3 * 32**2 + 8 * 16**2
    for expansion, filters, repeats, stride in table:
        rounded = max(8, int(filters * 0.1 + 4) // 8 * 8)
        filters = rounded if rounded >= 0.09 * filters else rounded + 8  # never down by more than a tenth
        for number in range(repeats):
            step = stride if number == 0 else 1
            wide, after = expansion * channels, -(-side // step)
            held = channels * side**2 if step == 1 and channels == filters else 0
            if expansion > 1:
                multiply_adds += channels * wide * side**2
                parameters += (channels + 1) * wide
                largest = max(largest, (channels + wide) * side**2)
                multiply_adds += 9 * wide * after**2
                parameters += 10 * wide
                largest = max(largest, wide * (side**2 + after**2) + held)
            else:
                multiply_adds += 9 * wide * after**2
                parameters += 10 * wide
                largest = max(largest, wide * (side**2 + after**2))
            multiply_adds += wide * filters * after**2
            parameters += (wide + 1) * filters
            largest = max(largest, (wide + filters) * after**2 + held)
            side, channels = after, filters
    multiply_adds += channels * 1280 * side**2 + 1280 * 2
    parameters += (channels + 1) * 1280 + (1280 + 1) * 2
    assert found == {
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "peak_activation_bytes": 4 * max(largest, (channels + 1280) * side**2),
    }


def test_the_layout_says_where_the_channels_are_in_every_format():
    for file_format in ("MINDIR", "ONNX", "LITE"):
        for form in ("tensor", "image"):
            facts = model_facts(file_format, form, TOY_SPEC)["input"]
            assert facts["shape"][facts["layout"].index("C")] == 3 and facts["shape"][facts["layout"].index("H")] == 32
