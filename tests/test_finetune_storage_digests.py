"""The shortcut past reading unchanged files: taken when it is safe, and never wrong."""

import hashlib
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.storage import digests
from finetune.storage.digests import SETTLED_SECONDS, hash_files, packed


def digest(path):
    return hashlib.sha256(path.read_bytes()).digest()


@pytest.fixture
def reads(monkeypatch):
    """The files whose content was hashed."""
    seen = []
    original = digests.sha256_of
    monkeypatch.setattr(digests, "sha256_of", lambda file: seen.append(file.name) or original(file))
    return seen


@pytest.fixture
def much_later(monkeypatch):
    """The clock stands an hour ahead, so that files written now are settled."""
    later = SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
    monkeypatch.setattr(digests, "time", later)


def files_in(folder, count=5):
    for i in range(count):
        (folder / f"{i}.png").write_bytes(bytes([i]) * 1000)
    return sorted(folder.glob("*.png"))


def test_settled_files_are_read_once(tmp_path, reads, much_later):
    paths = files_in(tmp_path)
    for _ in range(3):
        keys, damaged = hash_files(paths, tmp_path, threads=2)
        assert keys == [digest(path) for path in paths] and damaged == {}
    assert len(reads) == 5


def test_fresh_files_are_read_every_time(tmp_path, reads):
    paths = files_in(tmp_path)
    for _ in range(3):
        hash_files(paths, tmp_path, threads=2)
    assert len(reads) == 15


def test_moved_files_are_right(tmp_path, much_later):
    paths = files_in(tmp_path)
    hash_files(paths, tmp_path, threads=2)
    paths[0].rename(tmp_path / "x")
    paths[1].rename(paths[0])
    (tmp_path / "x").rename(paths[1])
    keys, _ = hash_files(paths, tmp_path, threads=2)
    assert keys == [digest(path) for path in paths]


def rewrite(path, content):
    path.write_bytes(content)


def rewrite_with_the_old_time(path, content):
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_with_the_old_time(path, content):
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [rewrite, rewrite_with_the_old_time, replace_with_the_old_time])
def test_a_remembered_file_of_the_same_size_is_read_again_when_it_changed(tmp_path, much_later, change):
    (path,) = files_in(tmp_path, 1)
    for i in range(1, 30):
        hash_files([path], tmp_path, threads=1)
        time.sleep(0.02)  # the margin is switched off here, and the kernel's clock moves every 1 to 10 ms
        change(path, bytes([i]) * 1000)
        assert hash_files([path], tmp_path, threads=1)[0] == [digest(path)]


def test_a_write_in_the_same_tick_of_a_coarse_clock_is_seen(tmp_path, monkeypatch):
    """The racy case itself: two contents of one size with one and the same stat."""
    tick = 2 * 10**9

    def coarse(number):
        stat = os.fstat(number)
        return SimpleNamespace(
            st_dev=stat.st_dev,
            st_ino=stat.st_ino,
            st_size=stat.st_size,
            st_mtime_ns=stat.st_mtime_ns // tick * tick,
            st_ctime_ns=stat.st_ctime_ns // tick * tick,
        )

    monkeypatch.setattr(digests, "os", SimpleNamespace(fstat=coarse, name=os.name))
    (path,) = files_in(tmp_path, 1)
    stats = set()
    for i in range(40):
        path.write_bytes(bytes([i]) * 1000)
        assert hash_files([path], tmp_path, threads=1)[0] == [digest(path)]
        with path.open("rb") as file:
            stats.add(packed(coarse(file.fileno())))
    assert len(stats) < 40  # else the case did not arise


@pytest.mark.parametrize("seconds, remembered", [(SETTLED_SECONDS - 5, False), (SETTLED_SECONDS + 5, True)])
def test_the_margin_counts_from_the_newest_time(tmp_path, monkeypatch, reads, seconds, remembered):
    (path,) = files_in(tmp_path, 1)
    os.utime(path, (0, 0))  # an old time of modification does not hide a fresh time of change
    later = SimpleNamespace(time_ns=lambda: path.stat().st_ctime_ns + seconds * 10**9)
    monkeypatch.setattr(digests, "time", later)
    for _ in range(2):
        hash_files([path], tmp_path, threads=1)
    assert len(reads) == (1 if remembered else 2)


def test_a_file_written_while_it_is_read_is_not_remembered(tmp_path, monkeypatch, much_later):
    (path,) = files_in(tmp_path, 1)

    original = digests.sha256_of

    def sha256_of(file):
        found = original(file)
        time.sleep(0.02)
        path.write_bytes(b"x" * 1000)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(digests, "sha256_of", sha256_of)
        hash_files([path], tmp_path, threads=1)
    assert hash_files([path], tmp_path, threads=1)[0] == [digest(path)]


def test_without_a_change_time_every_file_is_read(tmp_path, monkeypatch, reads, much_later):
    monkeypatch.setattr(digests, "HAS_CHANGE_TIME", False)
    paths = files_in(tmp_path)
    for _ in range(2):
        hash_files(paths, tmp_path, threads=2)
    assert len(reads) == 10


@pytest.mark.parametrize("left", [0, 50, 300])
def test_a_damaged_memory_costs_reading_only(tmp_path, reads, much_later, left):
    paths = files_in(tmp_path)
    hash_files(paths, tmp_path, threads=2)
    memory = tmp_path / "files.npy"
    memory.write_bytes(memory.read_bytes()[:left])
    keys, _ = hash_files(paths, tmp_path, threads=2)
    assert keys == [digest(path) for path in paths] and len(reads) == 10


def test_a_missing_file_is_named_and_the_others_are_read(tmp_path):
    paths = [*files_in(tmp_path, 2), tmp_path / "gone.png"]
    keys, damaged = hash_files(paths, tmp_path, threads=2)
    assert keys == [digest(paths[0]), digest(paths[1]), str(paths[2])]
    assert list(damaged) == [str(paths[2])]


def test_what_earlier_versions_remembered_is_used(tmp_path, reads, much_later):
    paths = files_in(tmp_path)
    hash_files(paths, tmp_path, threads=2)
    records = np.load(tmp_path / "files.npy")
    earlier = np.zeros(5, digests.EARLIER)
    earlier["stat"], earlier["sha256"] = np.ascontiguousarray(records["stat"]).view("V40"), records["sha256"]
    np.save(tmp_path / "files.npy", earlier[[3, 0, 4, 2, 1]])
    keys, _ = hash_files(paths, tmp_path, threads=2)
    assert keys == [digest(path) for path in paths] and len(reads) == 5


def test_many_files_in_any_order_are_known_again(tmp_path, reads, much_later, monkeypatch):
    monkeypatch.setattr(digests, "AT_ONCE", 7)
    paths = files_in(tmp_path, 60)[::-1]
    hash_files(paths[:20], tmp_path, threads=2)
    for some in (paths[10:], paths, paths[::2]):
        assert hash_files(some, tmp_path, threads=2)[0] == [digest(path) for path in some]
    assert len(reads) == 60


def test_the_files_that_were_not_seen_for_the_longest_time_are_forgotten(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(digests, "MOST_REMEMBERED", 4)
    paths = files_in(tmp_path, 5)
    for days, some in ((1, paths[:3]), (2, paths[1:4]), (3, paths[4:])):
        later = SimpleNamespace(time_ns=lambda days=days: time.time_ns() + days * digests.DAY_NS)
        monkeypatch.setattr(digests, "time", later)
        hash_files(some, tmp_path, threads=1)
    reads.clear()
    hash_files(paths, tmp_path, threads=1)
    assert list(map(str, reads)) == [str(paths[0])]
