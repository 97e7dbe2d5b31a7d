"""The bundle: what is exported can be copied away, and any change of it is noticed."""

import ast
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import CHECKOUT, call, draw_toy

import datasets.image
from datasets.base import InputError
from datasets.files import digest
from export import bundle, predictors
from export.golden import telling
from export.manifest import MANIFEST, sha256
from export.predictors import load_predictor
from export.serving.model import open_served
from finetune.evaluation.calibrate import temper

MODELS = ["mobilenetv2.mindir", "mobilenetv2_image.mindir", "mobilenetv2.onnx", "mobilenetv2_image.onnx"]


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A finished run with all formats and input forms, in a folder with a difficult name."""
    folder = shutil.copytree(finished.folder, tmp_path_factory.mktemp("all") / "猫 and dogs")
    done = call("export", folder, "--file_format", "MINDIR", "ONNX", "--input_form", "tensor", "image")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def alone(run, tmp_path):
    """The bundle without its run, to be spoilt; with ONNX only, which starts fast."""
    folder = shutil.copytree(run / "export", tmp_path / "只 a bundle")
    for name in MODELS[:2]:
        (folder / name).unlink()
    facts = manifest(folder)
    facts["models"] = {name: facts["models"][name] for name in MODELS[2:]}
    facts["files"] = {name: f for name, f in facts["files"].items() if not name.endswith(".mindir")}
    rewrite(folder, facts)
    return folder


def manifest(folder) -> dict:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def rewrite(folder, facts) -> None:
    """As somebody who knows how: with the right digest."""
    facts["digest"] = digest(facts)
    (folder / MANIFEST).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def script(path, *arguments, **variables) -> subprocess.CompletedProcess:
    """As a user does, outside of the checkout."""
    command = [sys.executable, str(path), *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(command, cwd=path.parent, capture_output=True, encoding="utf-8", env=environment)


def test_every_format_and_input_form_equals_the_trained_network(run):
    found = json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))
    assert found["equal"] and list(found["models"]) == MODELS
    for name, one in found["models"].items():
        assert one["pictures"] == one["same_class"] == 16, name
        assert one["largest_difference"]["to_ckpt"] <= 1e-4
        assert one["accuracy"]["exported"] == found["accuracy"]["ckpt"]


def test_the_predictors_agree_in_any_batch_size(run):
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    wanted = load_predictor(run)(images)
    for name in MODELS:
        for batch_size in (1, 3, 7):
            found = load_predictor(run / "export" / name)(images, batch_size)
            assert np.abs(found - wanted).max() <= 1e-4, (name, batch_size)


def test_the_manifest_states_the_input_of_each_file(run):
    facts = manifest(run / "export")
    assert list(facts["models"]) == MODELS
    for name in ("mobilenetv2.onnx", "mobilenetv2_image.onnx"):
        (stated,) = onnx.load(run / "export" / name).graph.input
        shape = [axis.dim_value or -1 for axis in stated.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(stated.type.tensor_type.elem_type)
        assert facts["models"][name]["input"]["shape"] == shape
        assert facts["models"][name]["input"]["dtype"] == kind.name
        assert facts["models"][name]["input_form"] == stated.name
    on_disk = {p.relative_to(run / "export").as_posix() for p in (run / "export").rglob("*") if p.is_file()}
    assert set(facts["files"]) == on_disk - {MANIFEST} and "parity.json" in on_disk
    assert (run / "export" / "labels.txt").read_text(encoding="utf-8") == "green\nred\n"


def test_a_bundle_verifies_and_predicts_where_the_checkout_is_not(run, alone, toy_pictures):
    whole = shutil.copytree(run / "export", alone.with_name("whole"))
    done = script(whole / "verify.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"ok  {name}" in done.stdout for name in MODELS) and done.stdout.endswith("verified\n")
    pictures = sorted((toy_pictures / "eval" / "red").iterdir())[:3]
    for name in MODELS:
        wanted = load_predictor(run / "export" / name)
        images, _ = datasets.image.load_images(pictures, wanted.image)
        done = script(whole / "predict.py", *pictures, "--model", name, "--csv", "out.csv")
        assert done.returncode == 0, done.stderr
        rows = (whole / "out.csv").read_text(encoding="utf-8").splitlines()
        found = [[float(cell) for cell in row.split(",")[-2:]] for row in rows[1:]]
        assert np.abs(np.array(found) - wanted(images)).max() <= 1e-4, name


def test_the_bundles_script_takes_folders_and_what_is_no_picture_is_left_out(alone, toy_pictures, tmp_path):
    folder = shutil.copytree(toy_pictures / "eval" / "red", tmp_path / "in a folder")
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    done = script(alone / "predict.py", folder, "--csv", tmp_path / "out.csv")
    assert done.returncode == 1 and "left out: " in done.stderr and "notes.txt" in done.stderr
    assert done.stdout.count("  red  ") == 8 and "written: " in done.stdout


def test_the_scripts_import_numpy_pillow_and_a_runtime_only(run):
    names = set()
    for path in (run / "export").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    standard = (
        "__future__ argparse collections contextlib csv dataclasses functools hashlib importlib io itertools json "
        "logging os pathlib re struct subprocess sys tempfile threading time typing warnings zlib".split()
    )
    own, of_some = ["bundle", "decoding", "lite", "preprocessing"], ["pillow_heif", "mindspore_lite"]
    assert names.difference(standard, own, of_some) == {"numpy", "PIL", "mindspore", "onnxruntime"}


def test_the_bundles_preprocessing_is_ours(run):
    """The same text but for the name of the package; the five ways test below runs it."""
    ours = Path(datasets.image.__file__).parent
    copied = {f"decoding/{path.name}": path for path in (ours / "decoding").glob("*.py")}
    copied["preprocessing.py"] = ours / "image.py"
    assert len(copied) == 6
    for name, source in copied.items():
        text = (run / "export" / name).read_text(encoding="utf-8")
        assert text == source.read_text(encoding="utf-8").replace("from datasets.decoding", "from decoding")


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def resign(folder, name) -> None:
    """State the changed file in the manifest as if it belonged there."""
    facts = manifest(folder)
    facts["files"][name]["sha256"] = sha256(folder / name)
    rewrite(folder, facts)


def change_one_byte(folder):
    flip(folder / "mobilenetv2.onnx")
    return "mobilenetv2.onnx: changed"


def change_a_label(folder):
    (folder / "labels.txt").write_bytes(b"green\nredd\n")
    return "labels.txt: changed"


def swap_the_labels_and_resign(folder):
    (folder / "labels.txt").write_bytes(b"red\ngreen\n")
    resign(folder, "labels.txt")
    return "labels.txt: other classes, or another order"


def swap_the_classes_everywhere(folder):
    (folder / "labels.txt").write_bytes(b"red\ngreen\n")
    facts = manifest(folder)
    facts["classes"] = ["red", "green"]
    rewrite(folder, facts)
    resign(folder, "labels.txt")
    return "probabilities differ"


def change_the_mean(folder):
    facts = manifest(folder)
    facts["image"]["mean_unit"][1] = 0.501
    (folder / MANIFEST).write_text(json.dumps(facts), encoding="utf-8")
    return "manifest.json: changed"


def change_the_mean_and_resign(folder):
    facts = manifest(folder)
    facts["image"]["mean_unit"][1] = 0.501
    rewrite(folder, facts)
    return "mean and std"


def change_the_resize_and_resign(folder):
    facts = manifest(folder)
    facts["image"]["resize"] = 38
    rewrite(folder, facts)
    return "pixels differ"


def replace_a_model_and_resign(folder):
    model = onnx.load(folder / "mobilenetv2.onnx")
    bias = next(array for array in model.graph.initializer if array.name == "dense_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32([0.01, 0]), bias.name))
    onnx.save(model, folder / "mobilenetv2.onnx")
    resign(folder, "mobilenetv2.onnx")
    return "mobilenetv2.onnx: probabilities differ"


def swap_the_colours_and_resign(folder):
    path = folder / "preprocessing.py"
    text = path.read_text(encoding="utf-8")
    swapped = text.replace(".reshape(*spec.size, spec.channels)", ".reshape(*spec.size, spec.channels)[..., ::-1]")
    assert swapped != text
    path.write_text(swapped, encoding="utf-8")
    resign(folder, "preprocessing.py")
    return "pixels differ"


def delete_a_golden_picture(folder):
    next((folder / "golden").glob("0.*")).unlink()
    return "missing"


@pytest.mark.parametrize(
    "spoil",
    [
        change_one_byte,
        change_a_label,
        swap_the_labels_and_resign,
        swap_the_classes_everywhere,
        change_the_mean,
        change_the_mean_and_resign,
        change_the_resize_and_resign,
        replace_a_model_and_resign,
        swap_the_colours_and_resign,
        delete_a_golden_picture,
    ],
)
def test_verify_notices(alone, spoil):
    said = spoil(alone)
    done = script(alone / "verify.py")
    assert done.returncode == 1 and said in done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stdout.endswith("not verified\n")


def test_an_unspoilt_bundle_verifies_by_the_command_line_too(alone):
    done = call("export", "verify", alone)
    assert done.returncode == 0 and "ok  mobilenetv2_image.onnx" in done.stdout, done.stderr
    change_the_mean_and_resign(alone)
    done = call("export", "verify", alone)
    assert done.returncode == 2 and "mean and std" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("spoil", [change_one_byte, change_a_label, change_the_mean])
def test_predict_refuses_a_changed_bundle(alone, toy_pictures, spoil):
    said = spoil(alone)
    done = script(alone / "predict.py", next((toy_pictures / "eval" / "red").iterdir()))
    assert done.returncode == 1 and said in done.stderr and not done.stdout


def test_predict_names_damaged_pictures_and_goes_on(alone, tmp_path):
    good, bad = draw_toy(tmp_path / "好 picture.png", (150, 60, 60), 5), tmp_path / "bad.jpg"
    bad.write_bytes(b"damaged")
    done = script(alone / "predict.py", bad, good)
    assert done.returncode == 1 and f"left out: {bad}" in done.stderr
    assert done.stdout.startswith(f"{good}  ")


def test_without_a_runtime_nothing_is_called_verified(alone):
    """The script is told that no onnxruntime is installed."""
    hidden = (
        (alone / "bundle.py").read_text(encoding="utf-8").replace('find_spec("onnxruntime")', 'find_spec("none_such")')
    )
    (alone / "bundle.py").write_text(hidden, encoding="utf-8")
    resign(alone, "bundle.py")
    done = script(alone / "verify.py")
    assert done.returncode == 1 and "pip install onnxruntime" in done.stderr


def test_onnx_without_its_runtime_is_an_error_that_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    before = sorted((run / "export").rglob("*"))
    for attempt in (
        lambda: bundle.export_run(run, 0, bundle.Wanted(["ONNX"])),
        lambda: load_predictor(run / "export" / "mobilenetv2.onnx"),
    ):
        with pytest.raises(InputError, match="pip install onnxruntime"):
            attempt()
    assert sorted((run / "export").rglob("*")) == before


def test_one_drifting_format_takes_all_with_it(run, tmp_path, monkeypatch):
    copied = shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "export" / "my notes.txt").write_text("kept", encoding="utf-8")
    from export.writers import onnx_file

    original = onnx_file.network_nodes

    def biased(head, features, probabilities):
        nodes, arrays = original(head, features, probabilities)
        arrays[-1] = onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(arrays[-1]) + np.float32([0.1, 0]), arrays[-1].name
        )
        return nodes, arrays

    monkeypatch.setattr(onnx_file, "network_nodes", biased)
    with pytest.raises(InputError, match=r"mobilenetv2\.onnx: difference to_ckpt"):
        bundle.export_run(copied, 0, bundle.Wanted(["MINDIR", "ONNX"]))
    assert sorted(path.name for path in (copied / "export").iterdir()) == ["my notes.txt", "parity.json"]


def test_a_second_export_leaves_nothing_of_the_first(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "copied")
    bundle.export_run(copied, 0, bundle.Wanted(["ONNX"], ["image"]))
    models = [path.name for path in (copied / "export").iterdir() if path.suffix in predictors.PREDICTORS]
    assert models == ["mobilenetv2_image.onnx"]


def test_predict_by_onnx_starts_no_mindspore(run, toy_pictures):
    picture = next((toy_pictures / "eval" / "red").iterdir())
    code = (
        "import sys\nfrom export.__main__ import main\n"
        f"assert main(['predict', {str(run / 'export' / 'mobilenetv2.onnx')!r}, {str(picture)!r}]) == 0\n"
        "assert 'mindspore' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and str(picture) in done.stdout, done.stderr


def test_golden_pictures_are_of_all_classes_and_uncertain():
    probabilities = np.array([[0.99, 0.01], [0.7, 0.3], [0.505, 0.495], [0.2, 0.8], [0.1, 0.9]])
    assert telling(probabilities, np.array([0, 0, 0, 1, 1])) == [1, 3, 0, 4, 2]


def test_confidence_is_the_same_and_below_the_threshold_it_is_not_sure(run, alone, tmp_path):
    fitted = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["confidence"]
    facts = manifest(alone)
    assert facts["confidence"]["temperature"] == fitted["temperature"]
    pictures = [draw_toy(tmp_path / f"{i}.png", (100 + i, 110 - i, 60), i) for i in range(4)]
    model = load_predictor(alone / "mobilenetv2.onnx")
    images, _ = datasets.image.load_images(pictures, model.image)
    facts["confidence"].update(temperature=2.5)
    tempered = temper(model(images), 2.5).max(1)
    facts["confidence"].update(threshold=float(np.sort(tempered)[1:3].mean()))
    rewrite(alone, facts)
    ours = call("finetune", "predict", alone / "mobilenetv2.onnx", *pictures, "--csv", tmp_path / "ours.csv")
    theirs = script(alone / "predict.py", *pictures, "--csv", tmp_path / "theirs.csv")
    assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
    assert ours.stdout.count("not sure") == theirs.stdout.count("not sure") == 2
    tables = [list(csv.DictReader((tmp_path / name).open(encoding="utf-8"))) for name in ("ours.csv", "theirs.csv")]
    for one, other, wanted in zip(*tables, tempered):
        assert one["predicted"] == other["predicted"] and one["sure"] == other["sure"]
        assert float(one["confidence"]) == pytest.approx(wanted, abs=2e-6)
        assert float(other["confidence"]) == pytest.approx(wanted, abs=2e-6)


def reverse_the_classes(folder):
    facts = manifest(folder)
    facts["classes"].reverse()
    (folder / MANIFEST).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def change_the_mean(folder):
    facts = manifest(folder)
    facts["image"]["mean_unit"][0] = 0.4
    (folder / MANIFEST).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize("spoil", [reverse_the_classes, change_the_mean, lambda folder: flip(folder / MODELS[2])])
def test_our_own_readers_do_not_believe_a_changed_bundle(alone, spoil):
    spoil(alone)
    with pytest.raises(InputError, match="changed since it was"):
        load_predictor(alone / MODELS[2])
    with pytest.raises(InputError, match="changed since it was"):
        open_served(alone)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 999])
@pytest.mark.parametrize("name", ["0_tensor.npy", "0_image.npy"])
def test_damaged_golden_files_are_drift_not_a_traceback(alone, name, content):
    (alone / "golden" / name).write_bytes(content)
    done = script(alone / "verify.py")
    assert done.returncode == 1 and f"DRIFT  golden/{name}: changed since it was exported" in done.stderr
    assert "Traceback" not in done.stderr
    if name == "0_image.npy":
        with pytest.raises(InputError, match=r"golden.*Copy the bundle again"):
            open_served(alone)


@pytest.mark.slow
def test_three_exports_at_once_end_right(finished, tmp_path):
    copied = shutil.copytree(finished.folder, tmp_path / "copied")
    shutil.rmtree(copied / "export")
    command = [sys.executable, "-m", "export", str(copied), "--threads", "1"]
    three = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in "abc"]
    said = [export.communicate()[1].decode() for export in three]
    assert [export.returncode for export in three] == [0, 0, 0], said
    assert sum("waiting: another process is at work" in text for text in said) == 2
    assert not (copied / "export" / "unfinished").exists()
    assert script(copied / "export" / "verify.py").returncode == 0


def test_verifying_writes_nothing(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert bundle.verify(run, 0)["equal"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
