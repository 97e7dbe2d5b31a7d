"""The cache, with an engine that is a plain NumPy function and counts its pictures."""

import errno
import multiprocessing
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import RED_GREEN, TOY_RECORD, TOY_SPEC, draw_toy, draw_toys
from PIL import Image

import finetune.storage.chunk
import finetune.storage.digests
import finetune.storage.store
from datasets.base import InputError
from datasets.files import replace_file
from datasets.folder import load_folder
from datasets.image import load_images, normalise
from datasets.listing import find_pictures
from datasets.split import make_split
from finetune.features.cache import extract, write_views
from finetune.features.compute import CHUNK_ROWS


def fake_features(batch: np.ndarray) -> np.ndarray:
    """(B, 3, H, W) -> (B, 6): something that depends on every pixel."""
    return np.concatenate([batch.mean((2, 3)), batch.std((2, 3))], axis=1)


class CountingEngine:
    numeric_class = "f32"
    batch_size = 8

    def __init__(self, stop_after: int = 10**9):
        self.pictures, self.stop_after = 0, stop_after
        self.counting = threading.Lock()

    def __call__(self, images):
        assert len(images) <= self.batch_size
        with self.counting:
            if self.pictures >= self.stop_after:
                raise KeyboardInterrupt
            self.pictures += len(images)
        return fake_features(normalise(images, TOY_SPEC))


def backbone(digest="weights", spec=TOY_SPEC):
    return SimpleNamespace(digest=digest, record=replace(TOY_RECORD, image=spec))


def run(paths, cache, engine=None, weights=None):
    engine = engine or CountingEngine()
    found = extract(paths, weights or backbone(), engine, cache, threads=2)
    assert found.computed == engine.pictures
    return found


def truth(paths):
    images, _ = load_images(paths, TOY_SPEC)
    return fake_features(normalise(images, TOY_SPEC))


@pytest.fixture
def pictures(tmp_path):
    return find_pictures(draw_toys(tmp_path / "pictures", {"": 10}, RED_GREEN))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_rows_are_right_and_in_order(pictures, cache):
    first = run(pictures, cache)
    assert first.computed == 20 and first.readable.all()
    assert np.allclose(first.rows, truth(pictures), atol=1e-6)
    backwards = run(pictures[::-1], cache)
    assert backwards.computed == 0
    assert np.array_equal(backwards.rows, first.rows[::-1])


def test_nothing_changed_computes_nothing(pictures, cache):
    first, second = run(pictures, cache), run(pictures, cache)
    assert second.computed == 0 and np.array_equal(first.rows, second.rows)


def test_adding_three_computes_three(pictures, cache, tmp_path):
    run(pictures, cache)
    more = [draw_toy(tmp_path / "more" / f"{i}.png", (1, 2, 3), 1000 + i) for i in range(3)]
    found = run(more[:2] + pictures + more[2:], cache)
    assert found.computed == 3
    assert np.allclose(found.rows, truth(more[:2] + pictures + more[2:]), atol=1e-6)


def test_deleting_renaming_and_moving_compute_nothing(pictures, cache, tmp_path):
    first = run(pictures, cache)
    moved = [Path(shutil.move(path, tmp_path / f"renamed {i}.png")) for i, path in enumerate(pictures[5:])]
    found = run(moved, cache)
    assert found.computed == 0 and np.array_equal(found.rows, first.rows[5:])


def test_a_picture_changed_under_its_old_name_is_computed_again(pictures, cache):
    run(pictures, cache)
    draw_toy(pictures[4], (1, 2, 3), 1000)
    found = run(pictures, cache)
    assert found.computed == 1
    assert np.allclose(found.rows[4], truth(pictures[4:5])[0], atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        {"weights": backbone(digest="other weights")},
        {"weights": backbone(spec=replace(TOY_SPEC, resize=40))},
        {"weights": backbone(spec=replace(TOY_SPEC, mean_unit=(0.4, 0.4, 0.4)))},
    ],
    ids=["weights", "size", "normalisation"],
)
def test_changed_facts_compute_everything(pictures, cache, other):
    run(pictures, cache)
    assert run(pictures, cache, **other).computed == 20
    assert run(pictures, cache).computed == 0  # and the old rows are still there


def test_another_numeric_class_computes_everything(pictures, cache):
    run(pictures, cache)
    engine = CountingEngine()
    engine.numeric_class = "bf16"
    assert run(pictures, cache, engine).computed == 20


def test_rows_in_front_of_a_cut_are_another_layer_stored_in_half_the_bytes(pictures, cache):
    class CutEngine(CountingEngine):
        def __call__(self, images):
            return super().__call__(images).reshape(-1, 3, 1, 2)

    run(pictures, cache)
    found = extract(pictures, backbone(), CutEngine(), cache, 2, cut=14)
    assert found.computed == 20 and found.rows.dtype == np.float16 and found.rows.shape == (20, 3, 1, 2)
    assert np.array_equal(found.rows, truth(pictures).astype(np.float16).reshape(-1, 3, 1, 2))
    assert extract(pictures, backbone(), CutEngine(), cache, 2, cut=14).computed == 0
    assert extract(pictures, backbone(), CutEngine(), cache, 2, cut=15).computed == 20
    assert run(pictures, cache).rows.dtype == np.float32


def test_another_batch_size_computes_nothing(pictures, cache):
    run(pictures, cache)
    engine = CountingEngine()
    engine.batch_size = 3
    assert run(pictures, cache, engine).computed == 0


def test_the_same_picture_twice_is_computed_once(pictures, cache, tmp_path):
    copy = Path(shutil.copy(pictures[0], tmp_path / "copy.png"))
    found = run([*pictures, copy], cache)
    assert found.computed == 20
    assert np.array_equal(found.rows[0], found.rows[-1])


def test_damaged_pictures_are_named_and_left_out(pictures, cache, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("not a picture", encoding="utf-8")
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[0].read_bytes()[:300])
    for _ in range(2):  # said again in the second run, when everything else is cached
        found = run([text, *pictures, cut, tmp_path / "gone.png"], cache)
        assert set(found.damaged) == {str(text), str(cut), str(tmp_path / "gone.png")}
        assert found.readable.tolist() == [False] + [True] * 20 + [False, False]
        assert np.isnan(found.rows[[0, -1]]).all() and np.isfinite(found.rows[1:21]).all()


def test_all_damaged(cache, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    found = run([tmp_path / "a.jpg"], cache)
    assert not found.readable.any() and found.computed == 0


def test_an_interrupted_run_continues(tmp_path, cache):
    pictures = find_pictures(draw_toys(tmp_path / "many", {"": CHUNK_ROWS}, RED_GREEN))
    stopped = CountingEngine(stop_after=CHUNK_ROWS + 16)
    with pytest.raises(KeyboardInterrupt):
        run(pictures, cache, stopped)
    found = run(pictures, cache)
    assert found.computed == 2 * CHUNK_ROWS - stopped.pictures
    assert np.allclose(found.rows, truth(pictures), atol=1e-6)


def test_a_kill_between_the_two_files_of_a_chunk_loses_that_chunk_only(pictures, cache):
    run(pictures, cache)
    for keys in cache.rglob("*.keys.npy"):  # written last
        keys.unlink()
    assert run(pictures, cache).computed == 20
    assert run(pictures, cache).computed == 0


@pytest.mark.parametrize("kind", ["keys", "features"])
@pytest.mark.parametrize("left", [0, 100, 200])
def test_a_cut_off_chunk_is_computed_again(pictures, cache, kind, left):
    run(pictures, cache)
    (chunk,) = cache.rglob(f"*.{kind}.npy")
    chunk.write_bytes(chunk.read_bytes()[:left])
    found = run(pictures, cache)
    assert found.computed == 20
    assert np.allclose(found.rows, truth(pictures), atol=1e-6)


def test_no_temporary_files_are_left(pictures, cache):
    run(pictures, cache)
    assert not list(cache.rglob("*.tmp"))


def extract_all(folder, cache):
    return extract(find_pictures(folder), backbone(), CountingEngine(), cache, threads=1).rows


def test_two_runs_at_once(tmp_path, cache):
    folder = draw_toys(tmp_path / "many", {"": CHUNK_ROWS}, RED_GREEN)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(extract_all, folder, cache) for _ in range(2)]
        found = [run.result() for run in runs]
    wanted = truth(find_pictures(folder))
    assert np.allclose(found[0], wanted, atol=1e-6) and np.allclose(found[1], wanted, atol=1e-6)
    assert run(find_pictures(folder), cache).computed == 0


def test_a_cache_that_cannot_be_written(pictures, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="Choose another folder with --cache_dir"):
        run(pictures, tmp_path / "file" / "cache")


def test_a_cache_that_is_read_only_is_used_when_it_has_everything(pictures, cache, monkeypatch, tmp_path):
    first = run(pictures, cache).rows[:]

    def refuse(path, write):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for module in (finetune.storage.store, finetune.storage.chunk, finetune.storage.digests):
        monkeypatch.setattr(module, "replace_file", refuse)
    monkeypatch.setattr(finetune.storage.digests, "SETTLED_SECONDS", -1)  # it wants to remember them
    assert np.array_equal(run(pictures, cache).rows, first)
    engine = CountingEngine()
    new = draw_toy(tmp_path / "new.png", (1, 2, 3), 777)
    with pytest.raises(InputError, match=r"Read-only file system.*--cache_dir"):
        run([*pictures, new], cache, engine)
    assert engine.pictures == 0

    (chunk,) = cache.rglob("*.features.npy")
    changed = bytearray(chunk.read_bytes())
    changed[-3] ^= 1
    chunk.write_bytes(changed)
    monkeypatch.setattr(finetune.storage.chunk.Chunk, "remove", lambda *_: None)
    with pytest.raises(InputError, match="cannot be written"):  # and the changed rows are not taken for right
        run(pictures, cache)


def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(tmp_path):
    target = tmp_path / "chunk.npy"

    def write(file):
        file.write(b"half")
        raise OSError("112640 requested and 29664 written")  # as NumPy says it

    with pytest.raises(OSError) as caught:
        replace_file(target, write)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == []


def test_views_have_the_known_names(tmp_path, cache):
    data = load_folder(draw_toys(tmp_path / "pictures", {"train": 6, "eval": 3}, RED_GREEN))
    split = make_split(data, 0.2, 0.2, seed=1)
    found = run(data.paths, cache)
    write_views(data, found, split)
    views = {name: np.load(data.root / "features" / f"{name}.npy") for name in
             ("train_feature", "train_label", "eval_feature", "eval_label")}  # fmt: skip
    assert np.array_equal(views["train_feature"], found.rows[:12]) and len(split.valid) == 2
    assert np.array_equal(views["eval_feature"], found.rows[12:])
    assert np.array_equal(np.concatenate([views["train_label"], views["eval_label"]]), data.labels)
    assert load_folder(data.root).classes == data.classes  # the views are not taken for a class


def test_a_file_that_cannot_be_read_is_a_fault_of_the_machine(pictures, cache, monkeypatch):
    opened = Path.open

    def refuse(self, *arguments, **options):
        if self == pictures[3]:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\): a fault of its rights"):
        run(pictures, cache)


def test_a_vanished_folder_is_a_fault_and_a_removed_file_is_not(pictures, cache, tmp_path):
    pictures[3].unlink()
    found = run(pictures, cache)
    assert found.damaged == {str(pictures[3]): "not there any more"} and not found.readable[3]
    shutil.rmtree(pictures[3].parent)
    with pytest.raises(InputError, match="a fault of its rights, the disk or the network"):
        run(pictures, cache)


def test_too_little_memory_stops_the_run_and_keeps_what_is_computed(pictures, cache):
    class Hungry(CountingEngine):
        def __call__(self, images):
            if self.pictures >= 8:
                raise MemoryError
            return super().__call__(images)

    with pytest.raises(MemoryError):
        run(pictures, cache, Hungry())
    assert run(pictures, cache).computed <= 12


def test_a_changed_bit_is_noticed_and_computed_again(pictures, cache):
    first = run(pictures, cache).rows[:]
    for at in (-3, 2000, 130):
        (chunk,) = cache.rglob("*.features.npy")
        changed = bytearray(chunk.read_bytes())
        changed[at % len(changed)] ^= 1
        chunk.write_bytes(changed)
        again = run(pictures, cache)
        assert again.computed == 20 and np.array_equal(again.rows, first)
    assert run(pictures, cache).computed == 0


@pytest.mark.parametrize("pattern", ["*.features.npy", "*.keys.npy", "files.npy"])
def test_damaged_heads_cost_computing_only(pictures, cache, pattern):
    first = run(pictures, cache).rows[:]
    (cache / "files.npy").touch()
    for head in (b"\x93NUMPY\x01\x00v\x00{'descr'", b"", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 999, b"\0" * 200):
        for path in cache.rglob(pattern):
            path.write_bytes(head)
        assert np.array_equal(run(pictures, cache).rows, first)


def test_what_is_odd_about_a_picture_is_known_from_the_cache_too(pictures, cache):
    Image.new("RGB", (40, 40), "white").save(pictures[5])
    Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (40, 5))).save(pictures[7])
    first, second = run(pictures, cache), run(pictures[::-1], cache)
    assert first.tones == {5: "one flat tone", 7: "less than a sixteenth of the range of brightness"}
    assert second.computed == 0 and second.tones == {14: first.tones[5], 12: first.tones[7]}


def test_a_flat_picture_is_flat_in_a_letterbox_too(pictures, cache):
    Image.new("RGB", (60, 40), "white").save(pictures[5])
    boxed = replace(TOY_SPEC, resize=TOY_SPEC.size, letterbox=True)
    assert run(pictures, cache, weights=backbone(spec=boxed)).tones == {5: "one flat tone"}
