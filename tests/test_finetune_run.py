"""The command line, as a user types it."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import CHECKOUT, RED_GREEN, call, draw_toy, draw_toys, save_toy_backbone
from PIL import Image

from datasets.base import InputError
from datasets.files import write_json
from finetune.trained import load_trained
from pretrained.weights import load_backbone, read_ckpt

FILES = (
    "config.yaml split.json environment.json log.txt results.csv metrics.json predictions.csv report.html "
    "ckpt/mobilenetv2_best.ckpt ckpt/mobilenetv2_best.ckpt.yaml figures/before_after.png figures/curves.png "
    "figures/confusion.png export/mobilenetv2.mindir export/manifest.json export/parity.json"
).split()


def metrics(folder) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def predictions(folder) -> list:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def settings(place, pictures, backbone) -> list:
    return [*("--dataset_path", pictures, "--pretrain_ckpt", backbone, "--epochs", 3),
            *("--runs_dir", place / "runs", "--cache_dir", place / "cache")]  # fmt: skip


def test_every_file_is_there(finished):
    assert [name for name in FILES if not (finished.folder / name).is_file()] == []


def test_the_mistakes_figure_is_drawn_when_there_are_any(finished):
    wrong = [row for row in predictions(finished.folder) if row["predicted"] != row["true"]]
    assert (finished.folder / "figures" / "mistakes.png").exists() == bool(wrong)


def test_before_and_after_are_the_same_rows(finished, toy_pictures):
    rows = predictions(finished.folder)
    found = metrics(finished.folder)
    assert len(rows) == 16 and len({row["path"] for row in rows}) == 16
    assert all((toy_pictures / row["path"]).is_file() and row["path"].startswith("eval/") for row in rows)
    assert all(row["path"].split("/")[1] == row["true"] for row in rows)
    for key, column in (("before", "before_predicted"), ("after", "predicted")):
        assert found[key]["accuracy"] == np.mean([row[column] == row["true"] for row in rows])
        assert found[key]["pictures"] == 16
    assert found["after"]["accuracy"] >= 0.9 > found["majority_class"]["accuracy"] == 0.5


def test_the_screen_shows_before_and_after(finished):
    for words in (
        "before: fresh head",
        "after: trained head",
        "95 % interval",
        "report.html",
        "same class",
        "epoch[1/8]",
    ):
        assert words in finished.stdout
    assert "Traceback" not in finished.stderr and "WARNING" not in finished.stderr + finished.stdout


def test_environment_names_versions_device_and_seed(finished):
    facts = json.loads((finished.folder / "environment.json").read_text(encoding="utf-8"))
    assert facts["packages"]["mindspore"] and facts["device"]["platform"] == "CPU" and facts["seed"] == 1


def test_figures_are_pictures(finished):
    for path in (finished.folder / "figures").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) >= 200 and picture.convert("L").getextrema() != (255, 255)


def test_the_ckpt_keeps_the_backbone_and_its_names(finished, toy_backbone):
    given, kept = read_ckpt(toy_backbone), read_ckpt(finished.folder / "ckpt" / "mobilenetv2_best.ckpt")
    assert all(np.array_equal(kept[name], given[name]) for name in given)
    assert set(kept) - set(given) == {"dense.weight", "dense.bias"}
    assert (finished.folder / "ckpt" / "mobilenetv2_best.ckpt").stat().st_mode & 0o200


def test_a_second_run_computes_nothing_and_gets_a_number(finished, toy_pictures, toy_backbone):
    done = call(
        "finetune", "train", "--name", "toys", *settings(finished.folder.parents[1], toy_pictures, toy_backbone)
    )
    assert done.returncode == 0, done.stderr
    second = finished.folder.with_name("toys-2")
    assert metrics(second)["features"] == {"computed": 0, "cached": 56}
    assert metrics(finished.folder)["features"]["computed"] == 56


def test_one_seed_gives_the_same_bytes_in_two_processes(tmp_path, toy_pictures, toy_backbone, finished):
    heads = []
    for name in ("one", "two"):
        arguments = [*settings(tmp_path, toy_pictures, toy_backbone), "--name", name, "--cache_dir", finished.cache]
        done = call("finetune", "train", *arguments, "--set", "model.dropout=0.3", "--set", "model.hidden=8")
        assert done.returncode == 0, done.stderr
        heads.append((tmp_path / "runs" / name / "ckpt" / "mobilenetv2_best.ckpt").read_bytes())
    assert heads[0] == heads[1]


def test_eval_repeats_the_accuracy_of_the_run(finished):
    done = call("finetune", "eval", finished.folder, "--cache_dir", finished.cache)
    assert done.returncode == 0, done.stderr
    assert f"16 pictures: accuracy {100 * metrics(finished.folder)['after']['accuracy']:.1f} %" in done.stdout


def test_eval_on_another_folder_goes_by_class_names(finished, tmp_path, toy_pictures):
    other = draw_toys(tmp_path, {"": 3}, RED_GREEN)
    shutil.copy(next((toy_pictures / "train" / "red").iterdir()), other / "red" / "copy.png")
    trained = {path.read_bytes() for path in (toy_pictures / "train").rglob("*.png")}
    same = sum(path.read_bytes() in trained for path in other.rglob("*.png"))
    done = call("finetune", "eval", finished.folder, "--dataset_path", other, "--cache_dir", finished.cache)
    assert done.returncode == 0 and "7 pictures" in done.stdout
    assert same and f"{same} of these pictures trained this run: the accuracy is too high" in done.stdout
    draw_toy(other / "blue" / "a.png", (0, 0, 250), 1)
    done = call("finetune", "eval", finished.folder, "--dataset_path", other, "--cache_dir", finished.cache)
    assert done.returncode == 2 and "'blue' is not one of" in done.stderr


def test_a_ckpt_that_was_changed_is_no_weights(finished, tmp_path):
    run = shutil.copytree(finished.folder, tmp_path / "run")
    path = run / "ckpt" / "mobilenetv2_best.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for read in (lambda: load_trained(run), lambda: load_backbone(path)):
        with pytest.raises(InputError, match=r"not the file that mobilenetv2_best\.ckpt\.yaml describes"):
            read()
    assert not load_backbone(finished.folder / "ckpt" / path.name).assumed
    shutil.copy(finished.folder / "ckpt" / path.name, tmp_path / "alone.ckpt")
    assert load_backbone(tmp_path / "alone.ckpt").assumed


def test_the_folder_of_a_runs_pictures_is_gone(finished, tmp_path):
    run = shutil.copytree(finished.folder, tmp_path / "run")
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    write_json(run / "split.json", {**split, "root": str(tmp_path / "moved away")})
    for command in (["finetune", "eval", run], ["export", run]):
        done = call(*command)
        assert done.returncode == 2 and "moved away: the folder of the pictures of" in done.stderr, done.stderr


def test_chinese_paths_with_spaces_and_a_damaged_picture(tmp_path):
    place = tmp_path / "我的 文件夹"
    pictures = draw_toys(place / "图 片", {"train": 6, "eval": 3}, {"猫": (60, 150, 60), "小 狗": (150, 60, 60)})
    (pictures / "train" / "猫" / "坏.jpg").write_bytes(b"damaged")
    backbone = save_toy_backbone(place / "权 重.ckpt")
    done = call("finetune", "run", *settings(place, pictures, backbone), "--name", "运行 一")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = place / "runs" / "运行 一"
    assert [name for name in FILES if not (folder / name).is_file()] == []
    assert str(pictures / "train" / "猫" / "坏.jpg") in done.stdout and list(metrics(folder)["damaged"])
    picture = next((pictures / "eval" / "猫").iterdir())
    done = call("finetune", "predict", folder / "export" / "mobilenetv2.mindir", picture)
    assert done.returncode == 0 and str(picture) in done.stdout


def test_no_arguments_is_the_drawn_set_and_the_embedded_backbone(tmp_path):
    """What the README promises of its first command, without any network."""
    done = call("finetune", "run", "--runs_dir", tmp_path / "runs", "--cache_dir", tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    found = metrics(run)
    assert found["before"]["accuracy"] < 0.7 and found["after"]["accuracy"] >= 0.95
    parity = json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))
    assert parity["equal"] and parity["pictures"] == found["after"]["pictures"] == parity["same_class"]
    assert "Next:" in done.stdout


def bad_inputs(place, pictures, backbone):
    one_class = place / "one"
    draw_toy(one_class / "cat" / "a.png", (9, 9, 9), 0)
    damaged = draw_toys(place / "damaged", {"train": 3, "eval": 2}, RED_GREEN)
    for path in (damaged / "train" / "red").iterdir():
        path.write_bytes(b"damaged")
    (place / "broken.ckpt").write_bytes(backbone.read_bytes()[:-999])
    (place / "file").write_text("", encoding="utf-8")
    return {
        "no folder": (["--dataset_path", place / "nowhere"], "no such folder"),
        "one class": (["--dataset_path", one_class], "one class only"),
        "damaged class": (["--dataset_path", damaged], "no picture of the class 'red' in the train part"),
        "no ckpt": (["--pretrain_ckpt", place / "nothing.ckpt"], "no such file"),
        "broken ckpt": (["--pretrain_ckpt", place / "broken.ckpt"], "not readable as weights"),
        "unknown key": (["--set", "train.epoch=3"], "Did you mean 'train.epochs'"),
        "no section": (["--set", "head=auto"], "Did you mean 'train.head'"),
        "no value": (["--set", "train.epochs"], "expected KEY=VALUE"),
        "runs_dir": (["--runs_dir", place / "file"], "Choose another place with --runs_dir"),
        "cache_dir": (["--cache_dir", place / "file"], "Choose another folder with --cache_dir"),
        "platform": (["--platform", "Ascend"], "finds no Ascend here; found: CPU"),
    }


CASES = (
    *("no folder", "one class", "damaged class", "no ckpt", "broken ckpt"),
    *("unknown key", "no value", "runs_dir", "cache_dir", "platform"),
)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_an_error_with_a_remedy(case, tmp_path, toy_pictures, toy_backbone):
    flags, words = bad_inputs(tmp_path, toy_pictures, toy_backbone)[case]
    done = call("finetune", "run", *settings(tmp_path, toy_pictures, toy_backbone), *flags)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_in_extraction_keeps_finished_chunks(tmp_path, toy_backbone):
    pictures = draw_toys(tmp_path / "many", {"train": 500, "eval": 100}, RED_GREEN)
    command = ["finetune", "train", *settings(tmp_path, pictures, toy_backbone)]
    running = subprocess.Popen([sys.executable, "-m", *map(str, command)], cwd=CHECKOUT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("*.keys.npy")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    said = running.communicate()[1].decode("utf-8")
    assert running.returncode == 130 and "the same command continues" in said
    kept = sum(len(np.load(path)) for path in tmp_path.rglob("*.keys.npy"))
    assert 0 < kept < 1200
    done = call(*command)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "runs" / "many-2")["features"] == {"computed": 1200 - kept, "cached": kept}


def test_checks_prints_what_it_found(tmp_path):
    done = call("finetune", "checks")
    assert done.returncode == 0, done.stderr
    for words in ("mindspore", "device used     CPU", "threads", "memory", "times", "cache_dir", "writable"):
        assert words in done.stdout
