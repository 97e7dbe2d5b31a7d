"""Downloads from a server that the test starts."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from datasets import fetch as fetching
from datasets.base import InputError, MachineFault, RemoteFile, Source
from datasets.fetch import fetch, record_of
from datasets.load import module_of

CONTENT = np.random.default_rng(0).bytes(300_000)


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT at /file.bin; the server's attributes say with which faults."""

    def do_GET(self):
        faults = self.server.faults
        begin = self.headers.get("Range")
        self.server.ranges.append(begin)
        if self.path == "/moved.bin":
            self.send_response(302)
            self.send_header("Location", "/file.bin")
            self.end_headers()
            return
        if "status" in faults or not self.path.endswith("/file.bin"):
            self.send_error(faults.get("status", 404))
            return
        same = self.headers.get("If-Range") in (None, self.server.etag)
        start = int(begin.removeprefix("bytes=").removesuffix("-")) if begin and same else 0
        start = 0 if "no ranges" in faults else start
        if start > len(self.server.content) or (start and start == len(self.server.content)):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if "no length" not in faults:
            self.send_header("Content-Length", str(len(body)))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        self.wfile.write(body[: faults.get("breaks after")])
        if "stands still" in faults:
            self.wfile.flush()
            faults["stands still"].wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.ranges, server.content, server.etag, server.faults = [], CONTENT, None, {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def source(server, name="file.bin", **changed) -> Source:
    facts = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "bytes": len(CONTENT), **changed}
    return Source("toy", "", "", (RemoteFile("toy.bin", address(server, name), **facts),))


def address(server, name="file.bin") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def names(folder):
    return [file.name for file in folder.iterdir() if not file.name.startswith(".")]


def test_a_file_comes_whole_and_is_not_fetched_twice(server, tmp_path):
    (path,) = fetch(source(server), tmp_path / "new")
    assert path.read_bytes() == CONTENT and names(path.parent) == ["toy.bin"]
    fetch(source(server), tmp_path / "new")
    assert server.ranges == [None]


@pytest.mark.parametrize("faults", [{}, {"no ranges": True}], ids=["ranges", "no ranges"])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, faults):
    server.faults = {"breaks after": 100_000, **faults}
    with pytest.raises(MachineFault, match="100,000 bytes are kept, and the same command goes on from there"):
        fetch(source(server), tmp_path)
    assert not (tmp_path / "toy.bin").exists() and (tmp_path / "toy.bin.part").stat().st_size == 100_000
    server.faults = faults
    (path,) = fetch(source(server), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert names(tmp_path) == ["toy.bin"]


def test_another_content_never_gets_the_name(server, tmp_path):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(InputError, match="with sha256"):
        fetch(source(server), tmp_path)
    assert names(tmp_path) == []
    server.content = CONTENT
    fetch(source(server), tmp_path)


def test_a_damaged_file_under_the_name_is_replaced(server, tmp_path):
    (tmp_path / "toy.bin").write_bytes(CONTENT[:-7])
    (path,) = fetch(source(server), tmp_path)
    assert path.read_bytes() == CONTENT


def test_errors_say_what_to_do(server, tmp_path):
    with pytest.raises(InputError, match=r"nothing\.bin: Not Found"):
        fetch(source(server, "nothing.bin"), tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=r"in another way and put it there: .*toy\.bin"):
        fetch(source(server), tmp_path)
    with pytest.raises(InputError, match="nothing to fetch"):
        fetch(module_of("digits").SOURCE, tmp_path)


def test_mirrors_take_over_and_all_failures_are_named(server, tmp_path):
    server.faults = {"status": 500}
    mirrors = (address(server, "gone.bin"), "http://127.0.0.1:9/file.bin")
    with pytest.raises(MachineFault) as caught:
        fetch(source(server, mirrors=mirrors), tmp_path)
    assert all(f"{url}: " in str(caught.value) for url in (address(server), *mirrors))
    server.faults = {}
    (path,) = fetch(source(server, "gone.bin", mirrors=(address(server),)), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_part_of_another_mirror_is_resumed_only_where_the_whole_is_checked(server, tmp_path):
    server.faults = {"breaks after": 100_000}
    unchecked = {"sha256": "", "bytes": 0}
    with pytest.raises(MachineFault):
        fetch(source(server, **unchecked), tmp_path)
    server.faults = {}
    (path,) = fetch(source(server, "gone.bin", mirrors=(address(server),), **unchecked), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges[-1] is None  # begun anew


def test_two_versions_are_never_glued(server, tmp_path):
    server.etag, server.faults = '"one"', {"breaks after": 100_000}
    unchecked = {"sha256": "", "bytes": 0}
    with pytest.raises(MachineFault):
        fetch(source(server, **unchecked), tmp_path)
    server.etag, server.content, server.faults = '"two"', CONTENT[::-1], {}
    (path,) = fetch(source(server, **unchecked), tmp_path)
    assert server.ranges[-1] == "bytes=100000-" and path.read_bytes() == CONTENT[::-1]


def test_the_same_version_is_resumed_without_a_published_sum(server, tmp_path):
    server.etag, server.faults = '"one"', {"breaks after": 100_000}
    with pytest.raises(MachineFault):
        fetch(source(server, sha256="", bytes=0), tmp_path)
    server.faults = {}
    (path,) = fetch(source(server, sha256="", bytes=0), tmp_path)
    assert server.ranges[-1] == "bytes=100000-" and path.read_bytes() == CONTENT


def test_an_unpublished_sum_is_recorded_said_and_held(server, tmp_path, caplog):
    (path,) = fetch(source(server, sha256="", bytes=0), tmp_path)
    found = hashlib.sha256(CONTENT).hexdigest()
    assert record_of(path).read_text(encoding="utf-8") == f"{found}  toy.bin\n"
    assert "no sha256 is published" in caplog.text and found in caplog.text
    path.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(MachineFault, match=f"expected {found}"):
        fetch(source(server, sha256="", bytes=0), tmp_path)
    assert not path.exists()


def test_the_published_beginning_of_a_sum_is_compared(server, tmp_path):
    found = hashlib.sha256(CONTENT).hexdigest()
    (path,) = fetch(source(server, sha256=found[:8]), tmp_path)
    assert path.read_bytes() == CONTENT
    path.unlink()
    record_of(path).unlink()
    with pytest.raises(MachineFault, match="expected 00000000"):
        fetch(source(server, sha256="00000000"), tmp_path)


def test_another_length_is_another_file(server, tmp_path):
    with pytest.raises(MachineFault, match="sends 300,000 bytes, 299,999 expected"):
        fetch(source(server, bytes=299_999), tmp_path)
    server.faults = {"no length": True}
    with pytest.raises(MachineFault, match="sends more than the 100,000 bytes"):
        fetch(source(server, bytes=100_000), tmp_path)
    assert names(tmp_path) == []


def test_redirects_are_followed(server, tmp_path):
    (path,) = fetch(source(server, "moved.bin"), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "toy.bin.part").write_bytes(bytes(400_000))
    (path,) = fetch(source(server, bytes=0), tmp_path)
    assert path.read_bytes() == CONTENT


def test_standstill_ends(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.3)
    server.faults = {"breaks after": 100_000, "stands still": threading.Event()}
    with pytest.raises(MachineFault, match="timed out"):
        fetch(source(server), tmp_path)
    server.faults["stands still"].set()


def test_a_disk_that_is_too_small_is_said_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: SimpleNamespace(free=99))
    with pytest.raises(MachineFault, match=r"300,000 bytes are needed for toy\.bin, and 99 are free"):
        fetch(source(server), tmp_path)
    assert names(tmp_path) == []


def test_proxies_of_the_environment(server, tmp_path, monkeypatch):
    """The server stands for a proxy: it is asked for the whole address of a host that does not exist."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    away = source(server)
    away = replace(away, files=(replace(away.files[0], url="http://no-such-host.invalid/file.bin"),))
    (path,) = fetch(away, tmp_path / "proxy")
    assert path.read_bytes() == CONTENT
    monkeypatch.setenv("no_proxy", "no-such-host.invalid")
    with pytest.raises(MachineFault, match=r"no-such-host\.invalid/file\.bin: "):
        fetch(away, tmp_path / "no proxy")


def test_two_at_once_wait_for_each_other(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(source(server), tmp_path)[0], range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT} and server.ranges == [None]
