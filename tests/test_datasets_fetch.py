"""Downloads from a server that the test starts."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from datasets.base import InputError, RemoteFile, Source
from datasets.fetch import fetch
from datasets.load import module_of

CONTENT = np.random.default_rng(0).bytes(300_000)


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the server's attributes say with which faults."""

    def do_GET(self):
        begin = self.headers.get("Range")
        self.server.ranges.append(begin)
        if self.path != "/file.bin":
            self.send_error(404)
            return
        start = int(begin.removeprefix("bytes=").removesuffix("-")) if begin and self.server.knows_ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after] if self.server.breaks_after else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.ranges, server.content, server.breaks_after, server.knows_ranges = [], CONTENT, 0, True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def source(server, name="file.bin") -> Source:
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return Source("toy", "", "", (RemoteFile("toy.bin", url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)),))


def test_a_file_comes_whole_and_is_not_fetched_twice(server, tmp_path):
    (path,) = fetch(source(server), tmp_path / "new")
    assert path.read_bytes() == CONTENT and [file.name for file in path.parent.iterdir()] == ["toy.bin"]
    fetch(source(server), tmp_path / "new")
    assert server.ranges == [None]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, knows_ranges):
    server.breaks_after, server.knows_ranges = 100_000, knows_ranges
    with pytest.raises(InputError, match="the same command goes on from there"):
        fetch(source(server), tmp_path)
    assert not (tmp_path / "toy.bin").exists() and (tmp_path / "toy.bin.part").stat().st_size == 100_000
    server.breaks_after = 0
    (path,) = fetch(source(server), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert not (tmp_path / "toy.bin.part").exists()


def test_another_content_never_gets_the_name(server, tmp_path):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(InputError, match="with sha256"):
        fetch(source(server), tmp_path)
    assert list(tmp_path.iterdir()) == []
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
    with pytest.raises(InputError, match="Or put the file into"):
        fetch(source(server), tmp_path)
    with pytest.raises(InputError, match="nothing to fetch"):
        fetch(module_of("digits").SOURCE, tmp_path)
