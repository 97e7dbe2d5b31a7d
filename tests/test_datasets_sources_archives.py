"""Archives that nobody would publish, and one that was not unpacked to its end."""

import io
import stat
import struct
import tarfile
import zipfile

import pytest

from datasets.base import InputError, MachineFault
from datasets.sources import archives
from datasets.sources.archives import unpack


def zipped(path, *names, content=b"picture"):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def tarred(path, *members, mode="w:gz"):
    """Members are names, or TarInfo."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            content = b"picture" if info.isfile() else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refused(tmp_path, archive, words):
    with pytest.raises(InputError, match=words) as caught:
        unpack([archive], tmp_path / "out")
    assert str(archive) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name]  # nothing of it is left, nothing outside


@pytest.mark.parametrize("make", [zipped, tarred])
def test_whole_folders_come_out(tmp_path, make):
    names = ("set/train/cat/1.jpg", "set/train/猫/2 b.jpg", "set/eval/cat/3.jpg")
    unpack([make(tmp_path / "a", *names, "__MACOSX/set/._1.jpg", "set/.DS_Store")], tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == sorted(names)
    assert all((tmp_path / "out" / name).read_bytes() == b"picture" for name in names)


def test_several_archives_fill_one_folder(tmp_path):
    parts = [zipped(tmp_path / f"{part}.zip", f"{part}/cat/1.jpg") for part in ("train", "test")]
    unpack(parts, tmp_path / "out")
    assert (tmp_path / "out/train/cat/1.jpg").is_file() and (tmp_path / "out/test/cat/1.jpg").is_file()


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "C:/evil", "a\\..\\..\\evil"])
def test_names_that_lead_outside(tmp_path, make, name):
    refused(tmp_path, make(tmp_path / "a", "fine.jpg", name), "leads out of the folder")


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("names", [("a/1.jpg", "A/1.JPG"), ("é.jpg", "e\u0301.jpg")])
def test_names_that_meet_on_some_disks(tmp_path, make, names):
    refused(tmp_path, make(tmp_path / "a", *names), "is in it twice")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zipped, tarred])
def test_one_name_twice(tmp_path, make):
    refused(tmp_path, make(tmp_path / "a", "a.jpg", "a.jpg"), "is in it twice")


def test_a_file_that_is_a_folder_too(tmp_path):
    refused(tmp_path, tarred(tmp_path / "a", "a", "a/1.jpg"), "is a file and a folder in it")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path, kind):
    info = tarfile.TarInfo("train")
    info.type, info.linkname = kind, "/etc"
    refused(tmp_path, tarred(tmp_path / "a", info), "is a link or a device")


def test_links_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("train")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr(info, "/etc")
    refused(tmp_path, tmp_path / "a", "is a link")


def test_a_million_entries_are_refused_before_they_are_listed(tmp_path, monkeypatch):
    """The end of a zip states how many; a tar is counted as it comes."""
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, 0, 0)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "a").write_bytes(b"PK\3\4" + bytes(100) + end64 + struct.pack("<4sIQI", b"PK\6\7", 0, 104, 1) + end)
    monkeypatch.setattr(archives.zipfile, "ZipFile", None)
    refused(tmp_path, tmp_path / "a", "it has 1,000,000 entries")
    (tmp_path / "a").unlink()
    monkeypatch.setattr(archives, "MOST_ENTRIES", 5)
    refused(tmp_path, tarred(tmp_path / "a", *map(str, range(7))), "more than 5 entries")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MOST_BYTES", 10 << 20)
    content = bytes(12 << 20)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jpg", content)
    else:
        with tarfile.open(tmp_path / "a", "w:gz") as archive:
            info = tarfile.TarInfo("a.jpg")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    refused(tmp_path, tmp_path / "a", "it unpacks to more than 10 MiB")


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_archives_that_were_cut_short(tmp_path, make, share):
    archive = make(tmp_path / "a", *(f"{number}.jpg" for number in range(50)))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    refused(tmp_path, archive, r"damaged \(")


@pytest.mark.parametrize("blocks", [0, 1, 2, 7])
def test_a_plain_tar_that_ends_between_two_files(tmp_path, blocks):
    """Each file is a block of head and one of content."""
    archive = tarred(tmp_path / "a", *(f"{number}.jpg" for number in range(50)), mode="w")
    archive.write_bytes(archive.read_bytes()[: 1024 * blocks])
    refused(tmp_path, archive, r"damaged \(")


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a").write_bytes(b"<!doctype html>" + bytes(2000))
    refused(tmp_path, tmp_path / "a", r"damaged \(")


def test_a_full_disk_is_the_machines_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(MachineFault, match="the disk is full"):
        unpack([zipped(tmp_path / "a", "a.jpg")], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "out.unfinished" / "half").mkdir(parents=True)
    unpack([zipped(tmp_path / "a", "a.jpg")], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]
