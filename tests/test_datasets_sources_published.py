"""Published sets by name, on tiny imitations of their layouts."""

import gzip
import hashlib
import io
import struct
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import mindspore as ms
import numpy as np
import pytest
from conftest import CHECKOUT
from PIL import Image

from datasets.__main__ import main
from datasets.base import InputError
from datasets.load import load, sources
from datasets.sources import cifar10, emnist, photographs
from finetune.config import load_config
from finetune.training.networks import from_scratch


def jpeg(seed):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(content, "JPEG")
    return content.getvalue()


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def test_records_are_whole():
    found = sources()
    assert len({source.name for source in found}) == len(found) == 16
    for source in found:
        assert source.about and source.credit and source.licence
        for file in source.files:
            assert len(file.sha256) in (0, 64) and file.name == file.name.strip("/") and file.url.startswith("http")


@pytest.mark.parametrize("named", ["by name", "by folder"])
def test_fashion_mnist_is_told_from_mnist_by_its_name(tmp_path, named):
    folder = tmp_path / "fashion_mnist"
    for prefix, count in (("train", 6), ("t10k", 4)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", np.full((count, 28, 28), 7))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count))
    found = load("fashion_mnist" if named == "by name" else str(folder), tmp_path)
    assert found.name == "fashion_mnist" and found.classes[9] == "ankle boot" and len(found) == 10
    assert not found.strokes  # pieces of clothing are no handwriting
    assert load(str(folder.rename(tmp_path / "digits of mine")), tmp_path).name == "mnist"


def test_emnist_letters_stand_upright_and_begin_at_a(tmp_path):
    folder = tmp_path / "emnist" / "pictures" / "gzip"
    lying = np.zeros((3, 28, 28))
    lying[:, 2, 20] = 255  # third column, low: as the files have it
    for prefix in ("emnist-letters-train", "emnist-letters-test"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", lying)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.array([1, 2, 26]))
    found = load("emnist", tmp_path)
    assert found.labels.tolist() == [0, 1, 25] * 2 and len(found.classes) == 26 and found.parts.count("eval") == 3
    assert found.pixels[0, 20, 2] == 255 and found.pixels[0, 2, 20] == 0
    assert emnist.holds(tmp_path / "emnist")


def write_cifar(folder, rows=3):
    folder.mkdir(parents=True)
    record = np.zeros((rows, cifar10.RECORD_BYTES), np.uint8)
    record[:, 0] = np.arange(rows)
    record[:, 1 + 5] = 200  # red of the first row, sixth column
    for names in cifar10.BATCHES.values():
        for name in names:
            (folder / name).write_bytes(record.tobytes())


def test_cifar10_is_read_from_its_binary_form(tmp_path):
    write_cifar(tmp_path / "cifar10/pictures/cifar-10-batches-bin")
    found = load("cifar10", tmp_path)
    assert found.pixels.shape == (18, 32, 32, 3) and found.labels[:3].tolist() == [0, 1, 2]
    assert found.pixels[0, 0, 5].tolist() == [200, 0, 0] and found.pixels[0].sum() == 200
    assert found.parts == ("train",) * 15 + ("eval",) * 3


@pytest.mark.parametrize("content", [b"", b"\0" * 3072, b"\x0b" + b"\0" * 3072], ids=["empty", "cut", "label"])
def test_damaged_cifar10_is_named(tmp_path, content):
    write_cifar(tmp_path / "c")
    (tmp_path / "c" / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"data_batch_3\.bin"):
        cifar10.load(tmp_path / "c")


def test_breeds_of_oxford_pets_come_from_the_names(tmp_path):
    folder = tmp_path / "oxford_pets" / "pictures" / "images"
    folder.mkdir(parents=True)
    for number, name in enumerate(("Abyssinian_1", "Abyssinian_22", "great_pyrenees_3")):
        (folder / f"{name}.jpg").write_bytes(jpeg(number))
    found = load("oxford_pets", tmp_path)
    assert found.classes == ("abyssinian", "great pyrenees") and found.labels.tolist() == [0, 0, 1]
    assert found.picture_name(2) == "great_pyrenees_3.jpg"


def test_a_set_that_somebody_put_there_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASETS_PATH", str(tmp_path / "sets"))
    for number, name in enumerate(("rose/1.jpg", "rose/2.jpg", "tulip/3.jpg", "tulip/4.jpg")):
        path = tmp_path / "sets" / "flowers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    assert load("flowers", tmp_path / "cache").classes == ("rose", "tulip")
    with pytest.raises(InputError, match="python -m datasets fetch beans"):  # not the folder of all sets
        load("beans", tmp_path / "cache")


def test_a_set_that_is_not_here_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="python -m datasets fetch flowers"):
        load("flowers", tmp_path)


FOLDERS = ("set/train/cat/1.jpg", "set/train/dog/2.jpg", "set/validation/cat/3.jpg", "set/validation/dog/4.jpg")


def as_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate((*FOLDERS, "set/vectorize.py")):
            archive.writestr(name, jpeg(number))


def as_tgz(path):
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(FOLDERS):
            info, content = tarfile.TarInfo(name), jpeg(number)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(("name", "write"), [("cats_vs_dogs", as_zip), ("flowers", as_tgz)])
def test_fetch_unpack_and_load(tmp_path, monkeypatch, capsys, name, write):
    source = photographs.BY_NAME[name]
    (tmp_path / "server").mkdir()
    file = tmp_path / "server" / source.files[0].name
    write(file)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "server"))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        facts = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size, "mirrors": ()}
        remote = replace(source.files[0], url=f"http://127.0.0.1:{server.server_port}/{file.name}", **facts)
        changed = tuple(replace(s, files=(remote,)) if s is source else s for s in photographs.SOURCES)
        monkeypatch.setattr(photographs, "SOURCES", changed)
        assert main(["fetch", name, "--cache_dir", str(tmp_path / "cache")]) == 0
        server.shutdown()
    assert str(tmp_path / "cache" / name / "pictures") in capsys.readouterr().out
    found = load(name, tmp_path / "cache")
    assert found.classes == ("cat", "dog") and found.parts == ("train", "train", "eval", "eval")
    assert main(["list", "--cache_dir", str(tmp_path / "cache")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name} "))
    assert str(tmp_path / "cache" / name) in line and source.licence in line


@pytest.mark.parametrize(("recipe", "shape"), [("cifar10_lenet", (3, 32, 32)), ("fashion_mnist_lenet", (1, 28, 28))])
def test_the_recipes_fit_the_pictures(recipe, shape):
    config = load_config(str(CHECKOUT / "finetune" / "configs" / f"{recipe}.yaml"))
    network = from_scratch(config.model, shape, 10, seed=0)
    assert network(ms.Tensor(np.zeros((2, *shape), np.float32))).shape == (2, 10)
