"""Small chunks become large ones: no row is lost, whatever happens meanwhile, and damage is found."""

import errno
import multiprocessing
import os
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datasets.base import MachineFault
from finetune.storage import chunk, index, merge, rows, store
from finetune.storage.chunk import KEY, name_of
from finetune.storage.index import ENTRY, Index, Pieces, entries_of
from finetune.storage.rows import StoredRows
from finetune.storage.store import FeatureStore

D, ROWS = 50, 8  # of a small chunk


def keys_of(numbers) -> np.ndarray:
    """32 bytes each, of which some end with zeros."""
    return np.array([zlib.crc32(b"%d" % n).to_bytes(4, "big") + b"%d" % n for n in numbers], KEY)


def features_of(numbers) -> np.ndarray:
    return (np.asarray(numbers)[:, None] * 100 + np.arange(D)).astype(np.float32)


def fill(cache, count=6, first=0) -> FeatureStore:
    """`count` chunks of ROWS rows."""
    made = FeatureStore(cache, {})
    for n in range(first, first + count):
        numbers = range(n * ROWS, (n + 1) * ROWS)
        made.write_chunk([key.ljust(32, b"\0") for key in keys_of(numbers).tolist()], features_of(numbers))
    return made


def read(cache, count=6) -> np.ndarray:
    return StoredRows(FeatureStore(cache, {}), keys_of(range(count * ROWS)))


def is_whole(cache, count=6) -> bool:
    found = read(cache, count)
    return found.there.all() and np.array_equal(found[:], features_of(range(count * ROWS)))


def names(made: FeatureStore, suffix: str) -> list[str]:
    return sorted(file.name.removesuffix(suffix) for file in made.folder.glob(f"*{suffix}"))


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """A large chunk is one of at least 20 rows."""
    monkeypatch.setattr(merge, "LARGE_BYTES", 20 * D * 4)
    monkeypatch.setattr(index, "AT_ONCE", 7)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_small_chunks_become_large_ones(cache):
    made = fill(cache)
    before = names(made, ".keys.npy")
    made.merge()
    after = names(made, ".keys.npy")
    assert len(before) == 6 and len(after) == 2 and not set(before) & set(after)
    assert after == names(made, ".features.npy") == names(made, ".checks.npy")
    assert sorted(len(np.load(made.folder / f"{name}.features.npy")) for name in after) == [24, 24]
    assert is_whole(cache) and not list(cache.rglob("*.tmp"))
    found = made.read_index()
    assert (
        len(found.loose) == 0 and sorted(found.names) == after and (np.diff(np.argsort(found.merged["key"])) == 1).all()
    )


def test_what_comes_later_is_merged_with_what_is_small(cache):
    fill(cache, 1).merge()
    made = fill(cache, 1, first=1)
    made.merge()
    assert len(names(made, ".keys.npy")) == 1 and is_whole(cache, 2)
    made = fill(cache, 3, first=2)
    made.merge()
    large = names(made, ".keys.npy")
    fill(cache, 4, first=5).merge()
    assert set(large) <= set(names(made, ".keys.npy")) and is_whole(cache, 9)  # large ones are not written again
    assert len(names(made, ".index.npy")) == 1


def test_many_small_ones_are_merged_by_themselves(cache, monkeypatch):
    monkeypatch.setattr(store, "many", lambda merged_rows: 5)
    made = fill(cache, 7)
    assert len(names(made, ".keys.npy")) == 4 and is_whole(cache, 7)  # 5 became 2, and 2 were written after that
    fill(cache, 4, first=7)
    FeatureStore(cache, {}).merge_if_many()
    assert made.read_index().merged_count == len(names(made, ".keys.npy")) and is_whole(cache, 11)


def test_rows_that_were_computed_together_are_read_together(cache):
    made = fill(cache)
    for name in names(made, ".keys.npy"):
        first = int(np.load(made.folder / f"{name}.keys.npy").view(KEY)[0, 0][4:])
        os.utime(made.folder / f"{name}.features.npy", (first, first))
    made.merge()
    found = read(cache)
    for number in set(found.chunk):
        assert (np.diff(np.flatnonzero(found.chunk == number)) == 1).all()


class Killed(BaseException):
    """Nothing catches it."""


def kill_after(monkeypatch, steps: int) -> None:
    """The process ends at a step on the disk: nothing that comes after it happens, no clearing up either."""
    left = [steps]
    for name in ("replace", "unlink", "open"):
        original = getattr(Path, name)

        def step(self, *arguments, original=original, reads=name == "open", **options):
            if reads and "w" not in "".join(map(str, arguments)):
                return original(self, *arguments, **options)
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            return original(self, *arguments, **options)

        monkeypatch.setattr(Path, name, step)


def test_a_kill_at_any_moment_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "STALE_SECONDS", -1)
    for steps in range(1000):
        cache = tmp_path / str(steps)
        made = fill(cache, 2)
        made.write_tones({b"a" * 32: "flat"})
        made.merge()
        fill(cache, 4, first=2).write_tones({b"b" * 32: "flat"})
        try:
            with monkeypatch.context() as patch:
                kill_after(patch, steps)
                made.merge()
        except Killed:
            assert is_whole(cache), steps
            fill(cache, 1, first=6).merge()
            FeatureStore(cache, {})
            assert is_whole(cache, 7), steps
            assert made.read_tones() == {b"a" * 32: "flat", b"b" * 32: "flat"}
            there = sum(len(np.load(file)) for file in made.folder.glob("*.keys.npy"))
            assert there == 7 * ROWS, steps  # each row once
            stems = {file.name.partition(".")[0] for file in made.folder.iterdir()}
            files = {*made.read_index().names, made.read_index().file.name.partition(".")[0]}
            assert len(stems - files - {"facts", "index", "merge"}) <= 2, steps  # the tones; nothing is left over
        else:
            break
    assert 20 < steps < 999  # it was killed at that many moments


def merge_often(cache) -> None:
    for first in range(6, 26):
        fill(cache, 1, first).merge()


def read_often(cache) -> bool:
    return all(is_whole(cache) for _ in range(60))


def test_merges_and_readers_at_once(cache):
    fill(cache)
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        writers = [pool.submit(merge_often, cache) for _ in range(2)]
        readers = [pool.submit(read_often, cache) for _ in range(2)]
        assert all(reader.result() for reader in readers)
        for writer in writers:
            writer.result()
    assert is_whole(cache, 26)


def test_a_reader_whose_chunk_was_merged_meanwhile_looks_again(cache):
    made = fill(cache)
    early, part = read(cache), read(cache).part(np.array([3, 40, 3]))
    some = early[:5]
    made.merge()
    assert np.array_equal(early[:], features_of(range(6 * ROWS))) and np.array_equal(some, early[:5])
    assert np.array_equal(part[:], features_of([3, 40, 3]))


@pytest.mark.parametrize("when", ["loose", "merged"])
def test_a_chunk_that_somebody_removed_is_said(cache, when):
    made = fill(cache)
    if when == "merged":
        made.merge()
    found = read(cache)
    for file in made.folder.glob("*.npy"):
        file.unlink()
    with pytest.raises(MachineFault, match="Repeat the command"):
        found[:]
    assert not read(cache).there.any()


def test_a_merge_leaves_a_locked_store_alone(cache):
    made = fill(cache)
    with store.one_at_a_time(made.folder / merge.LOCK):
        made.merge()
    assert len(names(made, ".keys.npy")) == 6 and is_whole(cache)


def test_a_full_disk_costs_nothing(cache, monkeypatch, caplog):
    made = fill(cache)

    def refuse(path, write):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(chunk, "replace_file", refuse)
        made.merge()
    assert "No space left" in caplog.text and is_whole(cache)


def test_a_read_only_store_is_read_as_it_is(cache, monkeypatch):
    fill(cache, 4).merge()
    fill(cache, 2, first=4)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(merge.FileLock, "acquire", refuse)
    FeatureStore(cache, {}).merge()
    assert is_whole(cache)


# Chunks of earlier versions


def as_before(made: FeatureStore, with_crc: bool) -> None:
    """As earlier versions left them."""
    for name in names(made, ".checks.npy"):
        (made.folder / f"{name}.checks.npy").unlink()
        if with_crc:
            value = zlib.crc32((made.folder / f"{name}.features.npy").read_bytes())
            (made.folder / f"{name}.crc32").write_text(f"{value:08x}", encoding="ascii")


@pytest.mark.parametrize("with_crc", [True, False])
def test_chunks_of_earlier_versions_are_read_and_merged(cache, with_crc):
    made = fill(cache)
    as_before(made, with_crc)
    assert is_whole(cache)
    made.merge()
    assert is_whole(cache) and len(names(made, ".checks.npy")) == 2 and not names(made, ".crc32")


def change(file: Path, at: int = -3) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def test_a_changed_chunk_of_an_earlier_version_is_not_merged(cache, caplog):
    made = fill(cache)
    as_before(made, with_crc=True)
    change(made.folder / f"{names(made, '.crc32')[0]}.features.npy")
    made.merge()
    assert "damaged chunk" in caplog.text
    found = read(cache)
    assert found.there.sum() == 5 * ROWS
    assert np.array_equal(found[found.there], features_of(np.flatnonzero(found.there)))


# Damage


def merged(cache) -> FeatureStore:
    made = fill(cache)
    made.merge()
    return made


def test_a_changed_bit_costs_its_row_only(cache, caplog):
    made = merged(cache)
    change(next(made.folder.glob("*.features.npy")))
    found = read(cache)
    found.drop_changed()
    assert found.there.sum() == 6 * ROWS - 1 and "damaged chunk" in caplog.text
    assert read(cache).there.sum() == 6 * ROWS - 1  # also for the next run
    fill(cache)  # which computes again
    assert is_whole(cache)
    made.merge()
    assert is_whole(cache)


def test_more_rows_than_are_checked_at_the_start_are_checked_when_they_are_read(cache, monkeypatch):
    monkeypatch.setattr(rows, "CHECKED_AT_START", 10)
    made = merged(cache)
    change(next(made.folder.glob("*.features.npy")))
    found = read(cache)
    found.drop_changed()
    assert found.there.all()
    with pytest.raises(MachineFault, match=r"1 rows .* were changed on the disk, and are removed. Repeat the command"):
        found[:]
    assert read(cache).there.sum() == 6 * ROWS - 1


@pytest.mark.parametrize("suffix", [".features.npy", ".checks.npy"])
@pytest.mark.parametrize("left", [0, 60, 200])
def test_a_cut_off_large_chunk_costs_its_rows_only(cache, suffix, left):
    made = merged(cache)
    file = next(made.folder.glob(f"*{suffix}"))
    file.write_bytes(file.read_bytes()[:left])
    found = read(cache)
    found.drop_changed()
    assert found.there.sum() == 24
    assert np.array_equal(found[found.there], features_of(np.flatnonzero(found.there)))
    fill(cache)
    assert is_whole(cache)


@pytest.mark.parametrize(("field", "value"), [("row", 5), ("row", 999), ("chunk", 1), ("chunk", 999)])
def test_a_wrong_place_in_the_index_is_no_wrong_row(cache, field, value):
    file = merged(cache).read_index().file
    entries = np.load(file)
    entries[field] = value
    np.save(file, entries)
    found = read(cache)
    found.drop_changed()
    assert 0 <= found.there.sum() < 6 * ROWS
    if found.there.any():
        assert np.array_equal(found[found.there], features_of(np.flatnonzero(found.there)))
    fill(cache)
    assert is_whole(cache)


@pytest.mark.parametrize("file", ["index.json", "*.index.npy"])
@pytest.mark.parametrize("damage", ["cut", "lost", "changed", "junk"])
def test_a_damaged_index_is_made_anew(cache, file, damage):
    made = merged(cache)
    (path,) = made.folder.glob(file)
    if damage == "lost":
        path.unlink()
    elif damage == "changed":
        change(path, 10)
    else:
        path.write_bytes(path.read_bytes()[:90] if damage == "cut" else b"junk" * 50)
    assert is_whole(cache)
    fill(cache, 1, first=6)
    made.merge()
    assert is_whole(cache, 7) and made.read_index().merged_count


# The index


def test_pieces_are_one_sorted_sequence():
    rng = np.random.default_rng(1)
    for old_count, new_count in ((0, 0), (0, 3), (5, 0), (7, 7), (20, 50), (50, 3)):
        keys = keys_of(rng.permutation(1000)[: old_count + new_count])
        old, new = np.sort(entries_of(0, keys[:old_count])), entries_of(9, keys[old_count:])
        old["chunk"] = rng.integers(3, size=old_count)
        without = np.sort(keys[:old_count:4])
        found = np.concatenate([np.empty(0, ENTRY), *Pieces(old, new, np.array([4, -1, 2]), without)])
        wanted = {tuple(entry) for entry in new.tolist()}
        wanted |= {(key, {0: 4, 2: 2}[n], row) for key, n, row in old.tolist() if n != 1 and key not in without}
        assert {tuple(entry) for entry in found.tolist()} == wanted and len(found) == len(wanted)
        assert (found["key"][:-1] <= found["key"][1:]).all()


def test_find_is_a_dictionary():
    keys = keys_of(range(200))
    merged_entries, loose = np.sort(entries_of(0, keys[:120])), np.sort(entries_of(1, keys[120:150]))
    found = Index(["a", "b"], merged_entries, 1, loose, None)
    order = np.random.default_rng(1).permutation(200)
    chunks, places = found.find(keys[order])
    wanted = {n: (0, n) if n < 120 else (1, n - 120) if n < 150 else (-1, -1) for n in range(200)}
    assert [(chunks[i], places[i]) for i in range(200)] == [wanted[n] for n in order]
    assert [len(part) for part in found.find(keys[:0])] == [0, 0]


def test_a_name_is_of_the_keys():
    assert name_of(keys_of([1])) != name_of(keys_of([2]))
