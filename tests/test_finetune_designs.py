"""Pruning, members, and rows made of rows: what their papers say, in small trainings and in whole runs."""

import csv
import json
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from conftest import CHECKOUT, call, draw_toys

from datasets.base import InputError, Split
from datasets.image import ImageSpec
from export.writers.onnx_file import onnx_model
from finetune.config import ModelConfig, TrainConfig, load_config, to_yaml
from finetune.config_values import flatten
from finetune.evaluation import compare
from finetune.features.resample import resampled, smote
from finetune.features.usable import thinned
from finetune.run_folder import create
from finetune.trained import Trained, load_trained
from finetune.training.cost import cost
from finetune.training.ensemble import Ensemble, assembled, make_trainer
from finetune.training.networks import Head, from_scratch
from finetune.training.optimizers import decayed
from finetune.training.predictor import Predictor
from finetune.training.prune import kept, share_in
from finetune.training.trainer import Trainer

QUICK = TrainConfig(epochs=10, batch_size=16, learning_rate=0.01, l2=0.0, patience=0)
MODEL = ModelConfig(backbone=None, network="mlp", layers=[24])
DIGITS = CHECKOUT / "finetune" / "configs" / "digits_bp.yaml"
DESIGNS = CHECKOUT / "finetune" / "configs" / "designs"
WHAT_DIFFERS = {  # each from plain.yaml
    "augmented": {"train.augment.shift", "train.augment.rotate", "train.augment.zoom"},
    "binary": {"model.convolution", "train.learning_rate"},
    "dropout": {"model.dropout"},
    "members": {"train.members"},
    "narrow": {"model.width"},
    "plain": set(),
    "pruned": {"train.prune"},
    "random": {"train.oversample"},
    "residual": {"model.residual"},
    "separable": {"model.separable"},
    "shuffle": {"model.convolution"},
    "smote": {"train.oversample"},
    "under": {"train.undersample"},
    "wide": {"model.width"},
}


def blobs(counts=(60, 60), seed=0):
    """x (N, 1, 4, 4) around a point a class, y (N,), shuffled."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    middle = np.random.default_rng(99).normal(0, 1, (len(counts), 1, 4, 4))
    return (middle[y] + rng.normal(0, 0.5, (len(y), 1, 4, 4))).astype(np.float32), y


def run(tmp_path, *settings, verb="train", recipe=DIGITS):
    """A whole run of digits; (folder, metrics)."""
    done = call(
        *("finetune", verb, recipe, "--epochs", 6, "--runs_dir", tmp_path, "--name", "net"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "net", json.loads((tmp_path / "net" / "metrics.json").read_text(encoding="utf-8"))


def test_the_share_of_zeros_is_the_papers_cubic():
    shares = [share_in(epoch, 10, 0.8) for epoch in range(1, 11)]  # t = 0, 1/5, ... 1 in epoch 6
    assert shares[0] == 0 and shares[5:] == [0.8] * 5
    assert shares[1:5] == pytest.approx([0.8 * (1 - (1 - t) ** 3) for t in (0.2, 0.4, 0.6, 0.8)])
    assert share_in(2, 2, 0.5) == 0.5 and share_in(1, 2, 0.5) == 0


def test_the_smallest_weights_go_first():
    assert kept(np.float32([[3, -1, 0.5], [-2, 0, 4]]), 0.5).tolist() == [[1, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_pruned_weights_are_zero_in_each_layer_and_stay_so(optimizer):
    network, (x, y) = from_scratch(MODEL, (1, 4, 4), 2, 1), blobs()
    config = replace(QUICK, prune=0.8, optimizer=optimizer, second_optimizer="adam", weight_decay=1e-3)
    trainer = Trainer(network, (x, y), blobs(seed=1), config, 2, 1)
    fitted = trainer.fit(on_epoch=lambda line: None)
    assert fitted.best_epoch >= 6  # the first with all the zeros
    zeros = [float((p.asnumpy() == 0).mean()) for p in decayed(network)]
    assert zeros == pytest.approx([0.8, 0.8], abs=0.02)
    assert (Predictor(network)(blobs(seed=2)[0]).argmax(1) == blobs(seed=2)[1]).mean() > 0.9
    first = [p.asnumpy().tobytes() for p in network.get_parameters()]
    trainer.fit(on_epoch=lambda line: None)  # from the start again, masks too
    assert first == [p.asnumpy().tobytes() for p in network.get_parameters()]


@pytest.mark.slow
def test_zeros_reach_metrics_and_export(tmp_path):
    folder, metrics = run(tmp_path, "train.prune=0.7", "export.file_format=MINDIR,ONNX", verb="run")
    assert metrics["zeros"] == pytest.approx(0.7, abs=0.001)
    dense = cost(from_scratch(ModelConfig(backbone=None, network="mlp", layers=[100]), (1, 8, 8), 10, 1))
    assert dense["zeros"] < 0.001 and dense["multiply_adds"] == 7400 and dense["weights_bytes"] == 4 * 7510
    assert metrics["weights_bytes"] == pytest.approx(7400 / 8 + 4 * 0.3 * 7400 + 4 * 110, abs=8)
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(folder / "export" / "mlp.onnx").graph
    weights = [onnx.numpy_helper.to_array(array) for array in graph.initializer if len(array.dims) == 2]
    assert sum((one == 0).sum() for one in weights) == round(0.7 * 6400) + round(0.7 * 1000)
    assert json.loads((folder / "export" / "parity.json").read_text(encoding="utf-8"))["equal"]


def members(count=3):
    return assembled(lambda seed: from_scratch(MODEL, (1, 4, 4), 2, seed), 1, count)


def test_members_are_the_networks_of_their_seeds():
    x, y = blobs()
    ensemble, alone = members(), from_scratch(MODEL, (1, 4, 4), 2, 2)
    assert isinstance(ensemble, Ensemble) and not isinstance(members(1), Ensemble)
    make_trainer(ensemble, (x, y), (x[:0], y[:0]), QUICK, 2, 1).fit(on_epoch=lambda line: None)
    Trainer(alone, (x, y), (x[:0], y[:0]), QUICK, 2, 2).fit(on_epoch=lambda line: None)
    for one, other in zip(alone.get_parameters(), ensemble.members[1].get_parameters()):
        assert np.array_equal(one.asnumpy(), other.asnumpy())


def test_the_graph_is_the_mean_of_its_members():
    ensemble, (x, _) = members(), blobs()
    mean = np.mean([Predictor(member)(x) for member in ensemble.members], 0)
    np.testing.assert_allclose(Predictor(ensemble)(x), mean, atol=1e-6)
    logits = np.mean([member(ms.Tensor(x)).asnumpy() for member in ensemble.members], 0)
    of_logits = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(of_logits - mean).max() > 1e-3  # it could have been told from the other mean
    spec = ImageSpec(size=(4, 4), resize=(4, 4), mean_unit=(0.5,), std_unit=(0.5,))
    graph = onnx_model(Trained(ensemble, None, ensemble, ("a", "b"), spec, "net"), "tensor")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"tensor": x})[0], mean, atol=1e-6)


def test_a_certain_member_leaves_no_infinity():
    sure = [Head(1, 2, seed=seed) for seed in (1, 2)]
    for member, weight in zip(sure, ([[500.0], [-500.0]], [[400.0], [-400.0]])):
        member.dense.weight.set_data(ms.Tensor(np.float32(weight)))
    found = Predictor(Ensemble(sure))(np.float32([[1], [-1]]))
    np.testing.assert_allclose(found, [[1, 0], [0, 1]], atol=1e-20)


@pytest.mark.slow
def test_a_run_of_members_is_calibrated_and_exported_with_parity(tmp_path):
    folder, metrics = run(
        *(tmp_path, "train.members=3", "train.calibration_folds=2", "export.file_format=MINDIR,ONNX"), verb="run"
    )
    assert metrics["parameters"] == 3 * 7510 and metrics["confidence"]["folds"] == 2
    parity = json.loads((folder / "export" / "parity.json").read_text(encoding="utf-8"))
    assert parity["equal"] and len(parity["models"]) == 2
    pixels = np.load(folder / "pictures" / "eval.npy")[:50]
    network = load_trained(folder)
    from datasets.image import normalise

    x = normalise(pixels, network.image)
    mean = np.mean([Predictor(member)(x) for member in network.network.members], 0)
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:50]
    np.testing.assert_allclose([[float(row[f"p_{digit}"]) for digit in range(10)] for row in rows], mean, atol=1e-5)


@pytest.mark.slow
def test_members_of_a_head_on_a_backbone(tmp_path, toy_backbone):
    pictures = draw_toys(tmp_path / "toys", {"train": 8, "eval": 3}, {"green": (60, 150, 60), "red": (150, 60, 60)})
    done = call(
        *("finetune", "run", "--dataset_path", pictures, "--pretrain_ckpt", toy_backbone, "--epochs", 3),
        *("--name", "net", "--runs_dir", tmp_path, "--cache_dir", tmp_path / "cache", "--set", "train.members=3"),
        *("--set", "export.file_format=MINDIR,ONNX", "--set", "data.views=false"),
    )
    assert done.returncode == 0, done.stderr
    parity = json.loads((tmp_path / "net" / "export" / "parity.json").read_text(encoding="utf-8"))
    assert parity["equal"] and len(parity["models"]) == 2
    again = call(
        *("finetune", "train", "--dataset_path", pictures, "--epochs", 1, "--name", "after", "--runs_dir", tmp_path),
        *("--pretrain_ckpt", tmp_path / "net" / "ckpt" / "mobilenetv2_best.ckpt", "--cache_dir", tmp_path / "cache"),
    )
    assert again.returncode == 0, again.stderr  # its CKPT is a backbone for the next training


def test_smote_rows_lie_between_a_row_and_a_near_one_of_its_class():
    x, _ = blobs((30,))
    new = smote(x, 200, np.random.default_rng(1)).reshape(200, -1)
    flat = x.reshape(30, -1)
    distance = np.linalg.norm(flat[:, None] - flat, axis=2)
    near = np.argsort(distance, 1)[:, 1:6]
    starts = set()
    for row in new:
        gaps = []  # to the line from each row to each of its five
        for one in range(30):
            for other in near[one]:
                line = flat[other] - flat[one]
                u = (row - flat[one]) @ line / (line @ line)
                gap = np.linalg.norm(flat[one] + np.clip(u, 0, 1) * line - row)
                gaps.append((gap, one))
        best = min(gaps)
        assert best[0] < 1e-5
        starts.add(best[1])
    assert len(starts) > 20  # not always the same
    assert len(np.unique(new, axis=0)) == 200


@pytest.mark.parametrize("kind", ["random", "smote"])
def test_oversampling_adds_to_the_smaller_classes_only(kind):
    x, y = blobs((40, 9, 1))
    new_x, new_y = resampled(x, y, replace(QUICK, oversample=kind), 1)
    assert np.bincount(new_y).tolist() == [40, 40, 40] and new_x.dtype == np.float32 and new_y.dtype == y.dtype
    assert np.array_equal(new_x[: len(x)], x) and np.array_equal(new_y[: len(y)], y)
    known = {row.tobytes() for row in x}
    copies = [row.tobytes() in known for row in new_x[len(x) :][new_y[len(x) :] == 1]]
    assert all(copies) if kind == "random" else not any(copies)
    again = resampled(x, y, replace(QUICK, oversample=kind), 1)
    assert np.array_equal(again[0], new_x)


def test_undersampling_leaves_rows_out():
    x, y = blobs((40, 9))
    new_x, new_y = resampled(x, y, replace(QUICK, undersample=True), 1)
    assert np.bincount(new_y).tolist() == [9, 9]
    assert {row.tobytes() for row in new_x} <= {row.tobytes() for row in x} and len(np.unique(new_x, axis=0)) == 18
    assert resampled(x, y, QUICK, 1)[0] is x


@pytest.mark.slow
def test_smote_of_a_run_touches_training_rows_only(tmp_path):
    settings = ("train.calibration_folds=2",)
    plain, _ = run(tmp_path / "plain", *settings)
    folder, metrics = run(tmp_path / "smote", *settings, "train.oversample=smote")
    assert (plain / "split.json").read_bytes() == (folder / "split.json").read_bytes()
    assert np.array_equal(np.load(plain / "pictures" / "eval.npy"), np.load(folder / "pictures" / "eval.npy"))
    valid = len(json.loads((folder / "split.json").read_text(encoding="utf-8"))["valid"])
    assert metrics["confidence"]["pictures"] == valid  # not by folds, where a neighbour would be on the other side


def test_a_fraction_of_the_rows_keeps_the_classes():
    labels = np.array([0] * 100 + [1] * 30 + [2])
    rows = np.arange(131)
    found = thinned(rows, labels, 0.1, 1)
    assert np.bincount(labels[found]).tolist() == [10, 3, 1] and np.all(np.diff(found) > 0)
    assert thinned(rows, labels, 1, 1) is rows and Split(found, found[:0], rows).eval is rows


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"train.prune": 0.5, "train.epochs": 1}, "2 train.epochs"),
        ({"train.prune": 0.5, "model.backbone": None, "model.convolution": "binary"}, "the sign of a weight"),
        ({"train.prune": 0.5, "model.train_from": "block_15"}, r"train\.prune .* block_15"),
        ({"train.members": 2, "model.train_from": "block_15"}, r"train\.members .* block_15"),
        ({"train.oversample": "smote", "train.undersample": True}, "Choose one"),
        ({"train.oversample": "random", "train.sampling": "balanced"}, "make classes equal"),
        ({"train.oversample": "smote", "data.views_per_picture": 4}, "Set it to 1"),
        ({"train.oversample": "adasyn"}, "none, random, smote"),
        ({"train.prune": 1}, "at most 0.99"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        load_config(None, settings)


@pytest.fixture(scope="module")
def bars_run(tmp_path_factory):
    """LeNet on the digits, from which `look` and `shift` draw."""
    settings = ("model.network=lenet5", "model.paddings=2,2", "model.layers=20", "model.activation=relu")
    return run(tmp_path_factory.mktemp("lenet"), *settings)[0]


@pytest.mark.slow
def test_the_average_picture_is_shown_at_each_shift(bars_run):
    done = call("finetune", "shift", bars_run, "--pixels", 1, "--average", "1")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("average 1 by net"))
    assert [part.split(":")[0].strip() for part in line.split("net: ")[1].split(",")] == [
        *("-3", "-2", "-1", "+0", "+1", "+2", "+3")
    ]
    from PIL import Image

    with Image.open(bars_run / "figures" / "shift.png") as figure:
        assert figure.width > 1.5 * figure.height * 1.5  # the curves and the pictures side by side
    done = call("finetune", "shift", bars_run, "--average", "eleven")
    assert done.returncode == 2 and "no class of" in done.stderr


def test_what_is_said_of_the_average_is_said_of_the_mean_picture(bars_run):
    from finetune.evaluation.shift import Opened

    opened = Opened(bars_run)
    pixels = np.load(bars_run / "pictures" / "eval.npy")
    mean = pixels[opened.labels == 3].mean(0).round()
    shown = opened.average("3", [-1, 0, 2])
    assert np.array_equal(shown[1], mean) and np.array_equal(shown[0][:, :-1], mean[:, 1:])
    assert np.array_equal(shown[2][:, 2:], mean[:, :-2])
    said = opened.say(shown, "3")
    expected = opened.predictor(((shown / 255 - opened.spec.mean_unit) / opened.spec.std_unit).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(said.of_true, expected[:, 3], atol=1e-5)
    assert said.answers == [str(row) for row in expected.argmax(1)]


@pytest.mark.slow
def test_look_draws_filters_and_the_maps_of_every_block(bars_run, tmp_path):
    from PIL import Image

    from finetune.evaluation.look_inside import after_each_block, first_filters

    trained = load_trained(bars_run)
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    rows = after_each_block(trained.network, x)
    assert list(rows) == ["conv1", "conv2", "fc1", "fc2", "answer"]
    assert rows["conv1"].shape == (6, 4, 4) and rows["conv2"].shape == (16, 2, 2) and rows["conv1"].min() >= 0
    np.testing.assert_allclose(rows["answer"], Predictor(trained.network)(x)[0], atol=1e-6)
    assert np.array_equal(first_filters(trained.network, (8, 8, 1))[2],
                          trained.network.conv1.convolution.weight.asnumpy()[2, 0])  # fmt: skip
    Image.fromarray(np.load(bars_run / "pictures" / "eval.npy")[4, ..., 0]).save(tmp_path / "digit.png")
    told = []
    for given in (4, tmp_path / "digit.png"):
        done = call("finetune", "look", bars_run, given)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.splitlines()[0])
    assert told[0] == told[1] and told[0].startswith("answer: ")
    for name in ("filters.png", "blocks.png"):
        with Image.open(bars_run / "figures" / name) as figure:
            assert min(figure.size) > 150
    for given, words in ((450, "0 to 449"), ("nothing.png", "no such file")):
        done = call("finetune", "look", bars_run, given)
        assert done.returncode == 2 and words in done.stderr


def test_a_recipe_differs_from_plain_in_its_design():
    flat = {recipe.stem: flatten(asdict(load_config(str(recipe)))) for recipe in DESIGNS.glob("*.yaml")}
    plain = flat["plain"]
    changed = {name: {key for key in plain if plain[key] != one[key]} - {"name"} for name, one in flat.items()}
    assert changed == WHAT_DIFFERS


def test_every_design_has_its_row_in_both_languages():
    tables = [rows_of(CHECKOUT / "docs" / page) for page in ("designs.md", "designs_CN.md")]
    assert sorted(tables[0]) == sorted(recipe.stem for recipe in DESIGNS.glob("*.yaml"))
    assert tables[0] == tables[1]


def rows_of(page: Path) -> dict[str, list[str]]:
    """Of the first table, {design: its numbers}."""
    text = page.read_text(encoding="utf-8").partition("\n## ")[0]
    return {name: re.findall(r"[\d.,]+", rest) for name, rest in re.findall(r"(?m)^\| `(\w+)` \|(.+)$", text)}


@pytest.fixture
def trainings(monkeypatch):
    """The command of each training that `compare` begins; instead of it a finished run folder appears."""
    begun = []

    def train(command, **_):
        begun.append(command)
        pairs = [word.split("=", 1) for word in command if "=" in word]
        config = load_config(command[4], dict(pairs))
        run = Path(config.runs_dir, config.name)
        run.mkdir(parents=True, exist_ok=config.exist_ok)
        (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        (run / "report.html").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(compare.subprocess, "run", train)
    return begun


def test_a_run_that_begins_anew_in_its_folder_is_not_finished(tmp_path):
    config = load_config(None, {"runs_dir": str(tmp_path), "name": "net", "exist_ok": True})
    run = create(config, "other")
    for name in ("report.html", "metrics.json", "notes.txt"):
        (run / name).touch()
    assert create(config, "other") == run
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "notes.txt"]


def test_only_a_run_with_the_same_settings_is_not_repeated(trainings, tmp_path, capsys):
    recipe = tmp_path / "net.yaml"
    recipe.write_text("model:\n  backbone: null\ntrain:\n  epochs: 3\n", encoding="utf-8")
    runs = tmp_path / "runs"

    def run_of(seed=1, **settings):
        return compare.run_of(compare.Variant("net", str(recipe), settings), seed, runs)

    first = run_of()
    assert first == runs / "net_seed1" and len(trainings) == 1
    assert run_of() == first and len(trainings) == 1
    assert f"net, seed 1: finished before, {first}" in capsys.readouterr().out
    assert run_of(seed=2) == runs / "net_seed2" and len(trainings) == 2

    kept = (first / "config.yaml").read_bytes()
    recipe.write_text("model:\n  backbone: null\ntrain:\n  epochs: 4\n", encoding="utf-8")
    assert run_of() == runs / "net_seed1-2" and len(trainings) == 3
    assert "net_seed1 has another train.epochs" in capsys.readouterr().out
    assert (first / "config.yaml").read_bytes() == kept
    assert run_of() == runs / "net_seed1-2" and run_of(**{"train.epochs": "3"}) == first and len(trainings) == 3
    assert run_of(**{"data.fraction": "0.5"}) == runs / "net_seed1-3" and len(trainings) == 4


def test_what_is_unfinished_or_damaged_is_no_result(trainings, tmp_path, capsys):
    variant = compare.Variant("net", str(DIGITS), {})
    run = compare.run_of(variant, 1, tmp_path)
    (run / "report.html").unlink()  # killed before its end: the same folder again
    assert compare.run_of(variant, 1, tmp_path) == run and len(trainings) == 2
    (run / "config.yaml").write_text("train:\n  gone: 1\n", encoding="utf-8")
    assert compare.run_of(variant, 1, tmp_path) == tmp_path / "net_seed1-2" and len(trainings) == 3
    assert "net_seed1 has another config.yaml" in capsys.readouterr().out


@pytest.mark.slow
def test_recipes_are_compared_in_one_table(tmp_path):
    recipes = [DESIGNS / f"{name}.yaml" for name in ("members", "narrow", "plain")]
    done = call(
        *("finetune", "compare", "--recipes", *recipes, "--seeds", "1,2", "--epochs", 2, "--runs_dir", tmp_path),
        *("--dataset_path", "digits", "--set", "train.members=2", "--set", "model.network=mlp"),
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "designs_on_digits"
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        table = {row["variant"]: row for row in csv.DictReader(file)}
    assert list(table) == ["members", "narrow", "plain"] and (folder / "comparison.png").is_file()
    weights = 64 * 120 + 120 * 84 + 84 * 10
    costs = [int(table["plain"][column]) for column in ("multiply_adds", "parameters")]
    assert costs == [2 * weights, 2 * (weights + 214)]
    assert float(table["plain"]["weights_kb"]) == pytest.approx(8 * (weights + 214) / 1000, abs=0.06)
    low, high = map(float, table["plain"]["interval"].split(".."))
    assert low < float(table["plain"]["accuracy"]) < high
    assert "plain and members: of " in done.stdout and "plain and narrow: of " in done.stdout
    done = call("finetune", "compare", "--recipes", recipes[0])
    assert done.returncode == 2 and "two or more" in done.stderr
    done = call("finetune", "compare", recipes[0])
    assert done.returncode == 2 and "--vary" in done.stderr


def test_members_cost_what_each_of_them_costs():
    heads = [Head(8, 3, seed=seed) for seed in range(2)]
    alone, both = cost(heads[0]), cost(Ensemble(heads))
    assert alone["multiply_adds"] == 24 and both["multiply_adds"] == 48
    assert both["parameters"] == 2 * alone["parameters"]
