"""Networks without a backbone: real trainings on what needs no download, and the whole journey of a run."""

import csv
import json
import shutil
from dataclasses import replace

import mindspore as ms
import numpy as np
import odd_pictures
import pytest
from conftest import CHECKOUT, SHARED, call, draw_toys
from PIL import Image, ImageDraw

from datasets.base import InputError, Split
from datasets.load import load
from datasets.split import make_split
from export.predictors import load_predictor
from export.serving.model import open_served
from finetune.config import AugmentConfig, ModelConfig, TrainConfig, load_config
from finetune.training.networks import from_scratch
from finetune.training.optimizers import phases
from finetune.training.predictor import Predictor
from finetune.training.scratch import make_network, normalise_pixels, read_pixels
from finetune.training.trainer import Trainer, draw_order

CONFIGS = CHECKOUT / "finetune" / "configs"
LENET_CKPT = SHARED / "pretrained" / "lenet_ckpt"
needs_shared = pytest.mark.skipif(not LENET_CKPT.is_dir(), reason="the real files are not here")

FILES = (
    "config.yaml split.json environment.json log.txt results.csv metrics.json predictions.csv report.html "
    "pictures/eval.npy ckpt/mlp_best.ckpt ckpt/mlp_best.ckpt.yaml figures/before_after.png figures/curves.png "
    "figures/confusion.png export/mlp.mindir export/mlp_image.mindir export/manifest.json export/parity.json"
).split()


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The recipe as a user runs it, with fewer epochs and both input forms."""
    runs = tmp_path_factory.mktemp("scratch")
    done = call(
        *("finetune", "run", CONFIGS / "digits_bp.yaml", "--epochs", 60, "--runs_dir", runs, "--name", "digits"),
        *("--set", "export.input_form=tensor,image"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return runs / "digits"


def read(run, name):
    return json.loads((run / name).read_text(encoding="utf-8"))


def test_digits_are_learnt_and_everything_is_there(digits_run):
    assert [name for name in FILES if not (digits_run / name).is_file()] == []
    metrics = read(digits_run, "metrics.json")
    assert metrics["before"]["accuracy"] < 0.3 and metrics["after"]["accuracy"] > 0.95
    assert metrics["parameters"] == 64 * 100 + 100 + 100 * 10 + 10
    assert metrics["peak_memory_mb"] is None or metrics["peak_memory_mb"] > 100


def test_the_mindir_is_the_network_on_every_picture(digits_run):
    parity = read(digits_run, "export/parity.json")
    assert parity["equal"] and parity["pictures"] == parity["same_class"] == 450
    wanted = read(digits_run, "export/manifest.json")["models"]["mlp_image.mindir"]["input"]
    assert wanted["shape"] == [-1, 8, 8, 1] and wanted["colour_order"] == "grey"


def test_no_evaluation_row_was_trained_on_or_chosen_by(digits_run):
    split = read(digits_run, "split.json")
    parts = [set(split[part]) for part in ("train", "valid", "eval")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_eval_repeats_the_accuracy(digits_run):
    done = call("finetune", "eval", digits_run)
    assert done.returncode == 0, done.stderr
    assert f"accuracy {100 * read(digits_run, 'metrics.json')['after']['accuracy']:.1f} %" in done.stdout


def test_predict_reads_prepared_pictures_and_ink_on_paper(digits_run, tmp_path):
    """Evaluation pictures as files give what was evaluated, and inverted ones the same."""
    pixels = np.load(digits_run / "pictures" / "eval.npy")[:20, ..., 0]
    with (digits_run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        evaluated = list(csv.DictReader(file))[:20]
    for number, digit in enumerate(pixels):
        Image.fromarray(digit).save(tmp_path / f"{number:02d}_black.png")
    table = tmp_path / "out.csv"
    done = call("finetune", "predict", digits_run / "export" / "mlp.mindir", tmp_path, "--csv", table)
    assert done.returncode == 0, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    for row, again in zip(evaluated, found):
        assert again["predicted"] == row["predicted"]
        assert float(again["p_3"]) == pytest.approx(float(row["p_3"]), abs=1e-4)


def test_the_copied_bundle_verifies_itself(digits_run):
    done = call("export", "verify", digits_run / "export")
    assert done.returncode == 0 and "4 golden pictures give the stored inputs" in done.stdout, done.stderr


def test_onnx_of_a_network_from_scratch_is_the_network(digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "digits")
    done = call("export", run, "--file_format", "MINDIR", "ONNX", "--input_form", "tensor", "image")
    assert done.returncode == 0, done.stderr
    models = read(run, "export/parity.json")["models"]
    assert set(models) == {"mlp.mindir", "mlp_image.mindir", "mlp.onnx", "mlp_image.onnx"}
    assert all(one["equal"] and one["same_class"] == 450 for one in models.values())
    pixels = np.load(run / "pictures" / "eval.npy")[:20]
    served = open_served(run / "export", threads=1)
    assert served.source == "mlp_image.onnx"
    np.testing.assert_allclose(served(pixels).probabilities, load_predictor(run)(pixels), atol=1e-4)


def xor(seed: int) -> float:
    config = load_config(str(CONFIGS / "xor_mlp.yaml"), {"seed": seed})
    dataset = load("xor", "unused")
    split = make_split(dataset, config.data.valid_fraction, config.data.eval_fraction, seed)
    found, spec = normalise_pixels(read_pixels(dataset, config.model), dataset, split)
    network = make_network(config, spec, 2)
    train, valid = ((found.rows[rows], dataset.labels[rows]) for rows in (split.train, split.valid))
    Trainer(network, train, valid, config.train, 2, seed).fit(on_epoch=lambda line: None)
    return float((Predictor(network)(found.rows[split.eval]).argmax(1) == dataset.labels[split.eval]).mean())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_xor_is_learnt(seed):
    assert xor(seed) == 1.0


@pytest.mark.slow
def test_xor_is_learnt_from_each_of_50_seeds():
    assert [xor(seed) for seed in range(1, 51)] == [1.0] * 50


def bars(count=120, seed=0):
    """x (N, 1, 12, 12) with a bar, y (N,): 0 across, 1 down."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 0.3, (count, 1, 12, 12)), rng.integers(0, 2, count)
    for row, label in enumerate(y):
        place = rng.integers(2, 10)
        if label:
            x[row, 0, :, place] += 2
        else:
            x[row, 0, place, :] += 2
    return x.astype(np.float32), y.astype(np.int32)


QUICK = TrainConfig(epochs=8, batch_size=16, learning_rate=0.01, l2=0.0, patience=0)
SMALL = ModelConfig(backbone=None, filters=[4, 8], paddings=[2, 0], layers=[16], dropout=0.1)


def trained_on_bars(model=SMALL, train=QUICK, seed=1):
    network = from_scratch(model, (1, 12, 12), 2, seed)
    x, y = bars()
    fitted = Trainer(network, (x, y), (x[:0], y[:0]), train, 2, seed).fit(on_epoch=lambda line: None)
    held_x, held_y = bars(100, seed=9)
    return network, fitted, float((Predictor(network)(held_x).argmax(1) == held_y).mean())


@pytest.mark.parametrize("optimizer, rate", [("sgd", 0.1), ("momentum", 0.02), ("adam", 0.01), ("rmsprop", 0.005),
                                             ("adadelta", 1.0), ("adagrad", 0.05)])  # fmt: skip
def test_every_optimizer_learns(optimizer, rate):
    assert trained_on_bars(train=replace(QUICK, optimizer=optimizer, learning_rate=rate, epochs=15))[2] > 0.9


@pytest.mark.parametrize("changes", [{"activation": "prelu"}, {"activation": "tanh"}, {"activation": "leaky_relu"},
                                     {"dilation": 2, "paddings": [4, 2]}, {"separable": True}], ids=str)  # fmt: skip
def test_every_kind_of_layer_learns(changes):
    assert trained_on_bars(replace(SMALL, **changes), replace(QUICK, epochs=15))[2] > 0.9


def test_one_seed_gives_the_same_bytes_with_augmentation():
    model = replace(SMALL, dropout=0.3)
    config = replace(QUICK, epochs=2, augment=AugmentConfig(shift=1, rotate=5, elastic=0.5), sampling="balanced")
    first, second, other = (
        [p.asnumpy().tobytes() for p in trained_on_bars(model, config, seed)[0].get_parameters()] for seed in (1, 1, 2)
    )
    assert first == second != other


@pytest.mark.slow
def test_one_seed_gives_the_same_bytes_in_two_processes(tmp_path):
    """Convolutions, two layers with dropout, augmentation and two optimizers."""
    settings = ("model.network=lenet5", "model.filters=4,8", "model.paddings=2,2", "model.dropout=0.3",
                "train.augment.rotate=5", "train.second_optimizer=adam")  # fmt: skip
    wanted = [word for setting in settings for word in ("--set", setting)]
    for name in ("one", "two"):
        arguments = ("--epochs", 2, "--runs_dir", tmp_path, "--name", name)
        done = call("finetune", "train", CONFIGS / "digits_bp.yaml", *arguments, *wanted)
        assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / name / "ckpt" / "lenet5_best.ckpt").read_bytes() for name in ("one", "two"))
    assert first == second


def test_dropout_acts_in_training_only():
    network = from_scratch(replace(SMALL, dropout=0.5), (1, 12, 12), 2, 1)
    x = ms.Tensor(bars(4)[0])
    network.set_train(True)
    noisy = [network(x).asnumpy() for _ in range(2)]
    network.set_train(False)
    quiet = [network(x).asnumpy() for _ in range(2)]
    assert not np.array_equal(*noisy) and np.array_equal(*quiet)


def test_the_second_optimizer_takes_over():
    config = replace(QUICK, epochs=10, second_optimizer="sgd", second_learning_rate=0.002, second_part=0.3)
    first, second = phases(config)
    assert (first.optimizer, first.epochs) == ("adam", 7) and (second.optimizer, second.epochs) == ("sgd", 3)
    _, fitted, accuracy = trained_on_bars(train=config)
    rates = [row.learning_rate for row in fitted.history]
    assert len(rates) == 10 and [row.epoch for row in fitted.history] == list(range(1, 11))
    assert max(rates[:7]) > 0.005 and max(rates[7:]) <= 0.002 and accuracy > 0.9
    assert phases(replace(config, second_optimizer=None)) == [replace(config, second_optimizer=None)]


def test_balanced_sampling_draws_each_class_alike():
    y = np.array([0] * 900 + [1] * 100)
    order = draw_order(y, "balanced", np.random.default_rng(0))
    assert len(order) == 1000 and 0.45 < y[order].mean() < 0.55
    assert sorted(draw_order(y, "each", np.random.default_rng(0))) == list(range(1000))


def test_layers_that_do_not_fit_are_an_error_in_words():
    with pytest.raises(InputError, match=r"nothing is left .* after convolution 2"):
        from_scratch(replace(SMALL, paddings=[0, 0]), (1, 8, 8), 2, 1)
    with pytest.raises(InputError, match="differ in length"):
        from_scratch(replace(SMALL, paddings=[0]), (1, 12, 12), 2, 1)


def test_pixels_are_normalised_by_the_training_rows_alone(tmp_path):
    dataset = load("digits", tmp_path)
    split = make_split(dataset, 0.1, 0.25, seed=1)
    found, spec = normalise_pixels(read_pixels(dataset, ModelConfig(backbone=None)), dataset, split)
    train = dataset.pixels[split.train] / 255
    assert spec.mean_unit == (round(train.mean(), 4),) and spec.std_unit == (round(train.std(), 4),)
    assert found.rows[split.train].mean() == pytest.approx(0, abs=1e-3)


def test_the_first_picture_may_be_one_that_was_mended(tmp_path):
    folder = tmp_path / "toys"
    draw_toys(folder, {"": 2}, {"green": (60, 150, 60), "red": (150, 60, 60)})
    grey = odd_pictures.saved(odd_pictures.GREY, "PNG", dpi=(9, 9))
    (folder / "green" / "0.png").write_bytes(odd_pictures.wrong_checksum(grey, b"pHYs"))
    found = read_pixels(load(str(folder), tmp_path), ModelConfig(backbone=None))
    assert found.readable.all() and found.rows.shape == (5, 80, 96, 1)
    smaller = read_pixels(load(str(folder), tmp_path), ModelConfig(backbone=None, image_size=[20, 20]))
    assert smaller.keys == found.keys  # by the files, whatever becomes of them


def test_a_folder_of_photographs_from_scratch(tmp_path):
    """Colour pictures of different sizes, a damaged one, and the recipe's size."""
    pictures = draw_toys(tmp_path / "toys", {"train": 12, "eval": 4}, {"green": (60, 150, 60), "red": (150, 60, 60)})
    (pictures / "train" / "red" / "bad.png").write_bytes(b"damaged")
    done = call(
        *("finetune", "train", "--dataset_path", pictures, "--runs_dir", tmp_path / "runs", "--epochs", 6),
        *("--set", "model.backbone=null", "--set", "model.image_size=16,20", "--set", "train.calibration_folds=0"),
    )
    assert done.returncode == 0, done.stderr
    metrics = read(tmp_path / "runs" / "toys", "metrics.json")
    assert metrics["after"]["accuracy"] == 1 and len(metrics["damaged"]) == 1
    assert not (tmp_path / "runs" / "toys" / "pictures").exists()


@pytest.mark.slow
def test_compare_draws_a_table_and_a_figure(tmp_path):
    arguments = [*("finetune", "compare", CONFIGS / "xor_mlp.yaml", "--vary", "model.activation=tanh,sigmoid"),
                 *("--epochs", 3, "--runs_dir", tmp_path, "--seeds", "1,2")]  # fmt: skip
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "xor_mlp_by_activation"
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["tanh", "sigmoid"] and {row["parameters"] for row in rows} == {"52"}
    with Image.open(folder / "comparison.png") as figure:
        assert min(figure.size) > 300
    times = {path: path.stat().st_mtime for path in folder.rglob("metrics.json")}
    assert len(times) == 4 and call(*arguments).returncode == 0
    assert times == {path: path.stat().st_mtime for path in folder.rglob("metrics.json")}  # nothing was repeated
    done = call("finetune", "compare", CONFIGS / "xor_mlp.yaml", "--vary", "model.activation=tanh")
    assert done.returncode == 2 and "expected KEY=VALUE,VALUE" in done.stderr


def test_shift_draws_a_curve_a_run(digits_run):
    done = call("finetune", "shift", digits_run, "--pixels", 2)
    assert done.returncode == 0, done.stderr
    with (digits_run / "figures" / "shift.csv").open(encoding="utf-8", newline="") as file:
        curve = {int(row["shift"]): float(row["digits"]) for row in csv.DictReader(file)}
    assert curve[0] == pytest.approx(read(digits_run, "metrics.json")["after"]["accuracy"], abs=1e-4)
    assert max(curve[-2], curve[2]) < curve[0] - 0.2


@pytest.fixture(scope="module")
def mnist():
    from datasets.sources import mnist

    return mnist.load(SHARED / "data" / "mnist")


FOREIGN = ModelConfig(backbone=None, image_size=[32, 32], filters=[6, 16], paddings=[0, 0], layers=[120, 84])


@needs_shared
@pytest.mark.parametrize(
    "name, accuracy, within",
    [
        ("ythlml__checkpoint_lenet-1_1875.ckpt", 0.96, 0.004),
        ("ythlml__checkpoint_lenet_1-1_1875.ckpt", 0.952, 0.004),
        ("Qishna__Task-01__LeNet5_19_step.ckpt", 0.1, 0.05),  # loads, but was hardly trained: it guesses
    ],
)
def test_other_peoples_lenet_reaches_its_accuracy(mnist, name, accuracy, within):
    """The first two with optimizer slots in the file. On the first 2,000 test digits."""
    first = replace(mnist, pixels=mnist.pixels[60000:62000], labels=mnist.labels[60000:62000], parts=None)
    rows = np.arange(2000)
    found, spec = normalise_pixels(read_pixels(first, FOREIGN), first, Split(rows, rows[:0], rows))
    config = load_config(None, {"model.backbone": None, "model.pretrain_ckpt": str(LENET_CKPT / name),
                                "model.image_size": [32, 32], "model.paddings": [0, 0]})  # fmt: skip
    network = make_network(config, spec, 10)
    assert (Predictor(network)(found.rows).argmax(1) == first.labels).mean() == pytest.approx(accuracy, abs=within)


@needs_shared
@pytest.mark.parametrize("steps", [1, 19])
def test_a_foreign_file_that_does_not_fit_is_refused_with_its_differences(mnist, steps):
    first = replace(mnist, pixels=mnist.pixels[:50], labels=mnist.labels[:50], parts=None)
    rows = np.arange(50)
    _, spec = normalise_pixels(read_pixels(first, ModelConfig(backbone=None)), first, Split(rows, rows[:0], rows))
    toy = str(LENET_CKPT / f"Qishna__Task-02__LinearNet_{steps}_step.ckpt")
    with pytest.raises(InputError) as caught:
        make_network(load_config(None, {"model.backbone": None, "model.pretrain_ckpt": toy}), spec, 10)
    for words in ("8 missing", "conv1.weight", "fc3.bias", "2 unexpected", "fc.weight", "change model.network"):
        assert words in str(caught.value)
    lenet = str(LENET_CKPT / "ythlml__checkpoint_lenet-1_1875.ckpt")
    flags = {"model.backbone": None, "model.pretrain_ckpt": lenet, "model.layers": [100, 84]}
    with pytest.raises(InputError, match=r"fc1\.weight: \(120, 400\) in the file, \(100, 400\) in the network"):
        make_network(load_config(None, flags), spec, 10)


@needs_shared
@pytest.mark.slow
def test_a_drawn_digit_is_read_by_a_trained_lenet(tmp_path):
    """A one in blue ink on grey-white paper, far from the middle and large."""
    runs = tmp_path / "runs"
    done = call(
        *("finetune", "train", CONFIGS / "mnist_lenet.yaml", "--dataset_path", SHARED / "data" / "mnist"),
        *("--epochs", 2, "--runs_dir", runs, "--name", "lenet"),
    )
    assert done.returncode == 0, done.stderr
    page = Image.new("RGB", (600, 400), (240, 238, 230))
    ImageDraw.Draw(page).line([(420, 60), (400, 300)], fill=(20, 30, 120), width=22)
    page.save(tmp_path / "one.jpg")
    done = call("finetune", "predict", runs / "lenet", tmp_path / "one.jpg")
    assert done.returncode == 0 and "one.jpg  1  " in done.stdout, done.stdout + done.stderr
