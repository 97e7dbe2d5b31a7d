"""The server under load: the single-picture API, good requests only and then with hostile ones among them.

    python -m benchmarks.load runs/cats_vs_dogs --pictures PICTURES --seconds 60

Clients are threads of this process on plain sockets that stay open, each with one request at a time, and the
server is a process of its own, so that both share the machine. Every good answer is compared with what the
same network gave here. "engine" is the way from file to answer without any server: decoded by as many threads,
computed in batches.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from datasets.image import DamagedPicture, to_array
from datasets.listing import find_pictures
from export.serving.model import BATCH_SIZE, open_served

TOLERANCE = 1e-4  # of a probability: another batch, another order of adding
PICTURES = 200  # different ones, again and again
HOSTILE_SHARE = 0.3
BOUNDARY = b"load-boundary"


def request(content: bytes, host: bytes = b"", path: bytes = b"/predict", extra: bytes = b"") -> bytes:
    """One POST as it goes over the wire."""
    head = b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n\r\n'
    body = head + content + b"\r\n--" + BOUNDARY + b"--\r\n"
    lines = [
        b"POST " + path + b" HTTP/1.1",
        b"Host: " + (host or b"127.0.0.1"),
        *([extra] if extra else []),
        b"Content-Type: multipart/form-data; boundary=" + BOUNDARY,
        b"Content-Length: " + str(len(body)).encode(),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def hostile_requests(good: bytes) -> dict[str, bytes]:
    """By what is wrong with them. Each must be answered by 4xx."""
    png = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(png, "PNG")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    claims = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    half = request(good)
    return {
        "truncated": request(good[: len(good) // 2]),
        "noise": request(random.Random(0).randbytes(20_000)),
        "empty": request(b""),
        "a bomb": request(png.getvalue()),
        "1,000 scans": request(with_scans(good, 1000)),
        "claims to be huge": request(claims),
        "a script": request(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "another form": half.replace(BOUNDARY, b"nonsense", 1),
        "another name": request(good, host=b"example.org"),
        "another origin": request(good, extra=b"Origin: http://example.org"),
        "too large": request(b"\xff\xd8\xff" + bytes(33 * 2**20)),
        "no such path": request(good, path=b"/predict/../../secret"),
    }


def with_scans(jpeg: bytes, count: int) -> bytes:
    """The picture as a progressive JPEG of 100 KB whose last scan stands there `count` times: seconds of work."""
    small = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).convert("L").resize((256, 256)).save(small, "JPEG", progressive=True, quality=30)
    content = small.getvalue()[:-2]
    scan = content[content.rindex(b"\xff\xda") :]
    return content + scan * (count - 1) + b"\xff\xd9"


class Connection:
    """A socket that stays open and is opened again when the server has closed it."""

    def __init__(self, port: int):
        self.port, self.file = port, None

    def exchange(self, message: bytes) -> tuple[int, bytes]:
        """(status, body); status 0 where the connection broke."""
        try:
            if self.file is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), 60)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.file = self.socket.makefile("rb")
            self.socket.sendall(message)
            status = int(self.file.readline().split()[1])
            headers = {}
            while (line := self.file.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            body = self.file.read(int(headers[b"content-length"]))
            if headers.get(b"connection", b"").lower() == b"close":
                self.close()
            return status, body
        except (OSError, IndexError, KeyError, ValueError):
            self.close()
            return 0, b""

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.socket.close()
            self.file = None


def client(port: int, good: list, hostile: dict, until: float, seed: int, out: list, lock: threading.Lock) -> None:
    draw = random.Random(seed)
    connection = Connection(port)
    mine = []
    while time.perf_counter() < until:
        if hostile and draw.random() < HOSTILE_SHARE:
            kind = draw.choice(list(hostile))
            status, _ = connection.exchange(hostile[kind])
            mine.append((kind, 0.0, 400 <= status < 500, status))
            continue
        message, wanted = draw.choice(good)
        start = time.perf_counter()
        status, body = connection.exchange(message)
        seconds = time.perf_counter() - start
        mine.append(("good", seconds, status == 200 and right(body, wanted), status))
    connection.close()
    with lock:
        out += mine


def right(body: bytes, wanted: dict[str, float]) -> bool:
    found = json.loads(body)["pictures"][0]["probabilities"]
    return found.keys() == wanted.keys() and all(abs(found[name] - wanted[name]) <= TOLERANCE for name in wanted)


def phase(name: str, port: int, process: psutil.Process, good: list, hostile: dict, arguments, engine: float) -> bool:
    """Run all clients; print a line of results. Returns whether everything was as it should be."""
    before = process.memory_info().rss
    out, lock = [], threading.Lock()
    start = time.perf_counter()
    until = start + arguments.seconds
    threads = [
        threading.Thread(target=client, args=(port, good, hostile, until, seed, out, lock))
        for seed in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    latencies = np.array([latency for kind, latency, _, _ in out if kind == "good"]) * 1000
    wrong = Counter((kind, status) for kind, _, fine, status in out if not fine)
    rate = len(latencies) / seconds
    p50, p99 = np.percentile(latencies, (50, 99))
    print(
        f"{name}: {len(latencies)} good and {len(out) - len(latencies)} hostile requests in {seconds:.1f} s; "
        f"{rate:.1f} good/s = {rate / engine:.2f} x engine; p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"longest {latencies.max():.1f} ms; wrong {dict(wrong) or 0}; "
        f"memory {before / 2**20:.0f} -> {process.memory_info().rss / 2**20:.0f} MiB"
    )
    return not wrong


def prepare(run: Path, pictures: Path, seconds: float) -> tuple[list[bytes], list[dict[str, float]], float]:
    """(contents, the probabilities each must get, pictures a second of the engine without a server)."""
    served = open_served(run)
    contents, probabilities = [], []
    for path in random.Random(0).sample(paths := find_pictures(pictures), min(PICTURES, len(paths))):
        try:
            (found,), _ = served(to_array(path.read_bytes(), served.image)[None])
        except DamagedPicture:
            continue
        contents.append(path.read_bytes())
        probabilities.append(dict(zip(served.classes, found.astype(float).tolist())))
    return contents, probabilities, measure_engine(served, contents, seconds)


def measure_engine(served, contents: list[bytes], seconds: float) -> float:
    """Pictures a second: each thread takes a batch the whole way, as the features of a training are computed."""

    def work(first: int) -> int:
        served(np.stack([to_array(content, served.image) for content in contents[first : first + BATCH_SIZE]]))
        return BATCH_SIZE

    starts = list(range(0, len(contents) - BATCH_SIZE + 1, BATCH_SIZE))
    with ThreadPoolExecutor(served.workers) as threads:
        list(threads.map(work, starts[: served.workers]))
        computed, begin = 0, time.perf_counter()
        while time.perf_counter() < begin + seconds:
            computed += sum(threads.map(work, starts))
        return computed / (time.perf_counter() - begin)


def main() -> int:
    parser = argparse.ArgumentParser(description="Load the server and check every answer.")
    parser.add_argument("run", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument("--pictures", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60, help="of each of the phases")
    arguments = parser.parse_args()

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as another:
        contents, probabilities, engine = another.submit(
            prepare, arguments.run, arguments.pictures, min(10.0, arguments.seconds)
        ).result()
    print(f"engine: {engine:.1f} pictures/s, decoded and computed in batches of {BATCH_SIZE}")
    good = [(request(content), wanted) for content, wanted in zip(contents, probabilities)]
    hostile = hostile_requests(contents[0])

    command = [sys.executable, "-m", "export", "serve", str(arguments.run), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        port = next(int(line.split(":")[2].split("/")[0]) for line in server.stdout if line.startswith("http://"))
        process = psutil.Process(server.pid)
        warm = argparse.Namespace(clients=arguments.clients, seconds=2)
        phase("warm-up", port, process, good, {}, warm, engine)
        fine = phase("good only", port, process, good, {}, arguments, engine)
        fine &= phase("hostile too", port, process, good, hostile, arguments, engine)
    finally:
        server.terminate()
        left = server.wait(60)
    print(f"server's exit code: {left}")
    return 0 if fine and left == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
