"""The loaders, on tiny files made here and on the real ones where they are."""

import gzip
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, call
from PIL import Image

from datasets.base import InputError, MachineFault
from datasets.load import load
from datasets.sources import arabic, mnist, orl
from datasets.split import make_split

DATA = SHARED / "data"
needs_shared = pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="the real data sets are not here")


def write_idx(path, values):
    head = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    content = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder, suffix=".gz", train=5, test=3):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return folder


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_mnist_packed_or_not(tmp_path, suffix):
    dataset = load(str(write_mnist(tmp_path / "files", suffix)), tmp_path)
    first = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    assert np.array_equal(dataset.pixels[:5], first) and dataset.pixels.shape == (8, 28, 28)
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert dataset.parts == ("train",) * 5 + ("eval",) * 3
    assert dataset.picture_name(6) == "eval/00006"


def test_mnist_faults_of_the_machine_and_of_size(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    opened = Path.open

    def refuse(self, *arguments, **options):
        if self.name.startswith("train-images"):
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(MachineFault, match="Permission denied"):
            mnist.load(tmp_path)
    for shape in ((3, 32, 32), (3, 0, 28)):
        write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros(shape))
        with pytest.raises(InputError, match="Files of two data sets are mixed"):
            mnist.load(tmp_path)


def test_mnist_where_others_put_it(tmp_path):
    plain = write_mnist(tmp_path / "plain", "")
    for place in ("course/{part}/{name}", "torchvision/MNIST/raw/{name}", "raw/raw/{name}", "folders/{name}/{dotted}"):
        for path in plain.iterdir():
            part = "test" if path.name.startswith("t10k") else "train"
            where = tmp_path / place.format(part=part, name=path.name, dotted=path.name.replace("-idx", ".idx"))
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, where)
        assert len(load(str(tmp_path / place.split("/")[0]), tmp_path)) == 8


@pytest.mark.parametrize("suffixes", [("", ".gz"), (".gz", "")], ids=["plain, called .gz", "packed, without suffix"])
def test_the_content_decides_whether_it_is_packed(tmp_path, suffixes):
    for path in list(write_mnist(tmp_path, suffixes[0]).iterdir()):
        path.rename(path.with_name(path.name.removesuffix(".gz") + suffixes[1]))
    assert len(mnist.load(tmp_path)) == 8


def test_a_file_that_unpacks_to_much_costs_no_memory(tmp_path):
    write_mnist(tmp_path)
    head = struct.pack(">HBBI", 0, 8, 1, 3)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes(200_000_000), 1))
    tracemalloc.start()
    with pytest.raises(InputError, match="more bytes of data"):
        mnist.load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_mnist_with_a_dot_before_idx(tmp_path):
    for path in list(write_mnist(tmp_path, "").iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(mnist.load(tmp_path)) == 8


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda f: (f / "t10k-labels-idx1-ubyte.gz").unlink(), "t10k-labels-idx1-ubyte is missing"),
        (lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no"), "damaged"),
        (lambda f: write_idx(f / "t10k-labels-idx1-ubyte.gz", np.zeros(4)), "3 pictures but 4 labels"),
        (lambda f: write_idx(f / "train-images-idx3-ubyte.gz", np.zeros(4)), "with 3 axes"),
        (lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 9))),
         "0 bytes of data"),
        (lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<!DOCTYPE html><html>"), "a web page"),
        (lambda f: write_idx(f / "t10k-labels-idx1-ubyte.gz", np.array([1, 11, 2])), "a label 11 in the t10k files"),
        (lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 1 << 31, 1 << 31, 4)),
         "more than 256 MiB"),
    ],
)  # fmt: skip
def test_mnist_errors_name_the_file(tmp_path, spoil, words):
    write_mnist(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        mnist.load(tmp_path)


def test_a_name_is_looked_up_in_the_variable_then_in_the_cache(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="python -m datasets fetch mnist"):
        load("mnist", tmp_path)
    (tmp_path / "cache").mkdir()
    write_mnist(tmp_path / "cache" / "mnist", train=6)
    assert len(load("mnist", tmp_path / "cache")) == 9
    (tmp_path / "mine").mkdir()
    write_mnist(tmp_path / "mine" / "mnist", train=7)
    monkeypatch.setenv("DATASETS_PATH", str(tmp_path / "mine"))
    assert len(load("mnist", tmp_path / "cache")) == 10


def letters(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32)), rng.integers(1, 29, count)


@pytest.mark.parametrize("packed", [True, False])
def test_arabic_letters_stand_upright(tmp_path, packed):
    files = {}
    for part, count, seed in (("train", 4, 0), ("eval", 2, 1)):
        pixels, labels = letters(count, seed)
        rows = pixels.swapaxes(1, 2).reshape(count, -1)  # as published: column by column
        files[arabic.PARTS[part][0]] = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
        files[arabic.PARTS[part][1]] = "".join(f"{label}\n" for label in labels)
    if packed:
        with zipfile.ZipFile(tmp_path / arabic.ARCHIVE, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
    else:
        for name, text in files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
    dataset = load(str(tmp_path), tmp_path)
    assert np.array_equal(dataset.pixels[:4], letters(4, 0)[0]) and np.array_equal(dataset.pixels[4:], letters(2, 1)[0])
    assert dataset.labels.tolist() == [*(letters(4, 0)[1] - 1), *(letters(2, 1)[1] - 1)]


def test_arabic_errors_name_the_file(tmp_path):
    (tmp_path / arabic.ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"csvTrainImages.*python -m datasets fetch arabic"):
        arabic.load(tmp_path)


def test_a_tile_of_the_sheet_is_a_face(tmp_path):
    """Each tile is drawn in a level of its own, with white lines as on the real sheet."""
    sheet = np.full((1140, 942), 255, np.uint8)
    for number in range(400):
        row, column = divmod(number, 20)
        left = column * 47 + (column >= 10)  # one more line in the middle
        sheet[row * 57 : row * 57 + 56, left : left + 46] = number // 2
    Image.fromarray(sheet).save(tmp_path / orl.SHEET)
    dataset = load(str(tmp_path), tmp_path)
    assert dataset.pixels.shape == (400, 57, 47)
    assert (dataset.pixels == (np.arange(400) // 2)[:, None, None]).all()
    assert dataset.classes[39] == "s40" and np.array_equal(dataset.labels, np.arange(400) // 10)


def test_another_picture_is_not_the_sheet(tmp_path):
    Image.new("L", (100, 90)).save(tmp_path / orl.SHEET)
    with pytest.raises(InputError, match="100 x 90 pixels, expected 942 x 1140"):
        orl.load(tmp_path)


def test_rotations_use_each_picture_once_to_evaluate(tmp_path):
    dataset = load("digits", tmp_path)
    splits = [make_split(dataset, 0.1, 0.2, seed=1, rotation=r) for r in range(174)]  # the smallest class has 174
    seen = np.concatenate([split.eval for split in splits])
    assert len(set(seen)) == len(seen) == 1740
    for split in splits[:3]:
        assert sorted(dataset.labels[split.eval]) == sorted(dataset.labels[split.valid]) == list(range(10))
        assert len(split.train) == 1777 and not set(split.train) & {*split.eval, *split.valid}


def test_digits_and_xor_need_no_file(tmp_path):
    digits, xor = load("digits", tmp_path), load("xor", tmp_path)
    assert digits.pixels.shape == (1797, 8, 8) and digits.pixels.max() == 255 and digits.parts is None
    assert xor.pixels[:4, 0].tolist() == [[0, 0], [0, 255], [255, 0], [255, 255]]
    assert xor.labels.tolist() == [0, 1, 1, 0] * 2


@needs_shared
def test_the_real_files(monkeypatch, tmp_path):
    monkeypatch.setenv("DATASETS_PATH", str(DATA))
    digits, letters = load("mnist", tmp_path), load("arabic", tmp_path)
    assert np.bincount(digits.labels[60000:]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(letters) == 16800 and np.bincount(letters.labels[13440:]).tolist() == [120] * 28
    sheet, files = load("orl", tmp_path), load("orl_pgm", tmp_path)
    assert len(sheet) == len(files) == 400 and len(files.classes) == 40


@needs_shared
def test_letters_are_taller_than_wide_where_they_are():
    """Alef is a vertical stroke: on its side it would be wide."""
    letters = arabic.load(DATA / "arabic")
    alefs = letters.pixels[letters.labels == 0] > 128
    heights, widths = alefs.any(2).sum(1), alefs.any(1).sum(1)
    assert (heights > widths).mean() > 0.95


def test_the_command_line_lists_and_refuses_by_name():
    done = call("datasets", "list")
    assert done.returncode == 0
    for name in ("drawn", "mnist", "orl", "orl_pgm", "arabic", "digits", "xor"):
        assert f"\n{name} " in f"\n{done.stdout}"
    done = call("datasets", "fetch", "mnits")
    assert done.returncode == 2 and "There are mnist, fashion_mnist" in done.stderr


def test_rotation_errors(tmp_path):
    with pytest.raises(InputError, match="has a split of its own"):
        make_split(load("xor", tmp_path), 0.1, 0.2, seed=1, rotation=0)
