"""Encrypted MindIR and fixed batches: the same answers, and refusals that say what is missing."""

import json
import secrets
import shutil
import subprocess
import sys

import httpx
import mindspore as ms
import numpy as np
import onnx
import pytest
from conftest import call, served_at

from datasets.base import InputError
from export.key import read_key
from export.manifest import MANIFEST
from export.predictors import load_predictor
from export.serving.model import open_served

NAMES = ("mobilenetv2.mindir", "mobilenetv2_image.mindir")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "model 钥匙.key"
    path.write_bytes(secrets.token_bytes(32))
    return path


@pytest.fixture(scope="module")
def locked(finished, key_file, tmp_path_factory):
    """A run whose export is encrypted."""
    folder = shutil.copytree(finished.folder, tmp_path_factory.mktemp("locked") / "toys")
    done = call("export", folder, "--input_form", "tensor", "image", "--enc_key_file", key_file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16/16" in done.stdout
    return folder


@pytest.fixture
def wrong_key(tmp_path):
    path = tmp_path / "wrong.key"
    path.write_bytes(secrets.token_bytes(32))
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def script(path, *arguments):
    command = [sys.executable, str(path), *map(str, arguments)]
    return subprocess.run(command, cwd=path.parent, capture_output=True, encoding="utf-8")


def test_an_encrypted_file_gives_the_same_answers_and_holds_no_readable_graph(finished, locked, key_file, images):
    wanted = load_predictor(finished.folder / "export" / NAMES[0])(images)
    key = read_key(key_file)
    for name in NAMES:
        path = locked / "export" / name
        assert np.abs(load_predictor(path, key=key)(images) - wanted).max() < 1e-6
        content = path.read_bytes()
        assert b"dense" not in content and key not in content
        with pytest.raises(RuntimeError):
            ms.load(str(path))
    assert b"dense" in (finished.folder / "export" / NAMES[0]).read_bytes()
    manifest = (locked / "export" / MANIFEST).read_text(encoding="utf-8")
    assert key.hex() not in manifest and json.loads(manifest)["models"][NAMES[0]]["encryption"]["mode"] == "AES-GCM"


def test_verify_and_predict_want_the_right_key(locked, key_file, wrong_key, toy_pictures):
    picture = next((toy_pictures / "eval" / "red").iterdir())
    model = locked / "export" / NAMES[0]
    refused = (
        ([], "encrypted. Give the file with its key"),
        (["--enc_key_file", wrong_key.parent / "none"], "cannot be read"),
        (["--enc_key_file", wrong_key], "encrypted with another key"),
    )
    commands = (["export", "verify", locked], refused), (["finetune", "predict", model, picture], refused[2:])
    for command, cases in commands:
        for arguments, said in cases:
            done = call(*command, *arguments)
            assert done.returncode == 2 and said in done.stderr, done.stderr
            assert done.stderr.count("\n") == 1  # no log of MindSpore's, no traceback
        done = call(*command, "--enc_key_file", key_file)
        assert done.returncode == 0, done.stderr


def test_the_bundle_alone_wants_the_right_key(locked, key_file, wrong_key, toy_pictures, tmp_path):
    bundle = shutil.copytree(locked / "export", tmp_path / "bundle")
    picture = next((toy_pictures / "eval" / "red").iterdir())
    for name, arguments in (("verify.py", []), ("predict.py", [picture])):
        for key, said in (([], "encrypted; give"), (["--enc_key_file", wrong_key], "another key")):
            done = script(bundle / name, *arguments, *key)
            assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
        done = script(bundle / name, *arguments, "--enc_key_file", key_file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_serve_wants_the_right_key(locked, key_file, wrong_key, toy_pictures):
    for folder in (locked, locked / "export"):  # the run's own CKPT does not replace the key
        with pytest.raises(InputError, match="Give the file with its key"):
            open_served(folder)
        with pytest.raises(InputError, match="another key"):
            open_served(folder, key=read_key(wrong_key))
    with served_at(open_served(locked / "export", key=read_key(key_file))) as address:
        content = next((toy_pictures / "eval" / "red").iterdir()).read_bytes()
        (answer,) = httpx.post(f"{address}/predict", files={"picture": content}).json()["pictures"]
    assert answer["predicted"] == "red"


def test_a_key_for_what_is_not_encrypted_is_refused(exported, finished, key_file):
    key = read_key(key_file)
    for attempt in (
        lambda: load_predictor(finished.folder / "export" / NAMES[0], key=key),
        lambda: load_predictor(exported / "export" / "mobilenetv2.onnx", key=key),
        lambda: load_predictor(finished.folder, key=key),
        lambda: open_served(finished.folder, key=key),
        lambda: open_served(exported, key=key),
    ):
        with pytest.raises(InputError, match="Leave --enc_key_file out"):
            attempt()


def test_onnx_cannot_be_encrypted(finished, key_file):
    before = sorted((finished.folder / "export").rglob("*"))
    done = call("export", finished.folder, "--file_format", "MINDIR", "ONNX", "--enc_key_file", key_file)
    assert done.returncode == 2 and "only MindIR can be encrypted" in done.stderr
    assert sorted((finished.folder / "export").rglob("*")) == before


@pytest.mark.parametrize("count", [0, 15, 33])
def test_a_key_of_another_length_is_refused(tmp_path, count):
    path = tmp_path / "short.key"
    path.write_bytes(bytes(count))
    with pytest.raises(InputError, match=f"{count} bytes, expected 16, 24 or 32"):
        read_key(path)


@pytest.fixture(scope="module")
def fixed(finished, tmp_path_factory):
    """A run whose files take three pictures at a time."""
    folder = shutil.copytree(finished.folder, tmp_path_factory.mktemp("fixed") / "toys")
    wanted = ["--file_format", "MINDIR", "ONNX", "--input_form", "tensor", "image", "--batch_size", 3]
    done = call("export", folder, *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_fixed_batch_gives_the_same_answers_for_any_number_of_pictures(finished, fixed, images):
    wanted = load_predictor(finished.folder)(images)
    facts = json.loads((fixed / "export" / MANIFEST).read_text(encoding="utf-8"))
    assert len(facts["models"]) == 4
    for name, model in facts["models"].items():
        assert model["input"]["shape"][0] == 3
        predictor = load_predictor(fixed / "export" / name)
        for count in (1, 3, 7):
            found = predictor(images[:count])
            assert found.shape == (count, 2) and np.abs(found - wanted[:count]).max() < 1e-4
    for name in ("mobilenetv2.onnx", "mobilenetv2_image.onnx"):
        graph = onnx.load(fixed / "export" / name).graph
        batches = [value.type.tensor_type.shape.dim[0].dim_value for value in (*graph.input, *graph.output)]
        assert batches == [3, 3, 3]  # pictures; probabilities, novelty


def test_a_fixed_batch_is_verified_and_served(fixed, toy_pictures, tmp_path):
    bundle = shutil.copytree(fixed / "export", tmp_path / "bundle")
    done = script(bundle / "verify.py")
    assert done.returncode == 0 and done.stdout.count("ok  mobilenetv2") == 4, done.stdout + done.stderr
    picture = next((toy_pictures / "eval" / "red").iterdir())
    done = script(bundle / "predict.py", picture)
    assert done.returncode == 0 and "red" in done.stdout, done.stderr
    with served_at(open_served(bundle)) as address:
        (answer,) = httpx.post(f"{address}/predict", files={"picture": picture.read_bytes()}).json()["pictures"]
    assert answer["predicted"] == "red"
