"""The JSON API: good pictures, hostile ones, foreign pages, slow clients, a full queue, and stopping."""

import contextlib
import csv
import http.client
import io
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import odd_pictures
import onnx
import pytest
from conftest import CHECKOUT, draw_toy, served_at
from PIL import Image

from datasets.base import InputError
from datasets.files import digest
from export.manifest import MANIFEST
from export.serving import guard
from export.serving import server as serve
from export.serving.model import open_served


@pytest.fixture(scope="module")
def served(exported):
    return open_served(exported)


@pytest.fixture(scope="module")
def url(served):
    with served_at(served) as address:
        yield address


def pictures(*contents, field="picture"):
    return [(field, (f"{i}.png", content)) for i, content in enumerate(contents)]


def png(picture) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def good(toy_pictures):
    return next((toy_pictures / "eval" / "red").iterdir()).read_bytes()


def reason(response) -> str:
    found = response.json()["error"]
    assert found["status"] == response.status_code and found["message"]
    return found["reason"]


def test_the_second_part_of_an_answer_does_not_wait_for_an_acknowledgement(url, monkeypatch):
    at_once, made = [], guard.PatientProtocol.connection_made

    def connection_made(self, transport):
        made(self, transport)
        at_once.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(guard.PatientProtocol, "connection_made", connection_made)
    httpx.get(f"{url}/health")
    assert len(at_once) == 1 and at_once[0]


def test_every_evaluation_picture_is_answered_as_it_was_evaluated(exported, url, toy_pictures):
    with (exported / "predictions.csv").open(encoding="utf-8", newline="") as file:
        evaluated = list(csv.DictReader(file))
    contents = [(toy_pictures / row["path"]).read_bytes() for row in evaluated]
    answers = httpx.post(f"{url}/predict", files=pictures(*contents)).json()["pictures"]
    assert [answer["name"] for answer in answers] == [f"{i}.png" for i in range(16)]
    for answer, row in zip(answers, evaluated):
        assert answer["predicted"] == row["predicted"]
        assert answer["probabilities"]["red"] == pytest.approx(float(row["p_red"]), abs=1e-4)
        assert answer["maps"] is None


def test_the_maps_average_to_the_probabilities(url, good):
    (answer,) = httpx.post(f"{url}/predict?maps=true", files=pictures(good)).json()["pictures"]
    logits = {name: np.mean(rows) for name, rows in answer["maps"].items()}
    share = 1 / (1 + np.exp(logits["green"] - logits["red"]))
    assert share == pytest.approx(answer["probabilities"]["red"], abs=1e-3)
    assert answer["size"] == [40, 40] and answer["seen"] == pytest.approx([1 / 18, 1 / 18, 8 / 9, 8 / 9])


def test_confidence_and_sure_follow_the_manifest(exported, good, tmp_path):
    folder = shutil.copytree(exported / "export", tmp_path / "bundle")
    facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    found = []
    for threshold in (0.0, 1.0):
        facts["confidence"].update(temperature=3.0, threshold=threshold)
        facts["digest"] = digest(facts)
        (folder / MANIFEST).write_text(json.dumps(facts), encoding="utf-8")
        with served_at(open_served(folder)) as address:
            found += httpx.post(f"{address}/predict", files=pictures(good)).json()["pictures"]
    assert [answer["sure"] for answer in found] == [True, False]
    p = np.array(list(found[0]["probabilities"].values()))
    assert found[0]["confidence"] == pytest.approx((p ** (1 / 3)).max() / (p ** (1 / 3)).sum(), abs=1e-6)


def test_a_foreign_picture_is_unlike_the_training_pictures(url, good):
    blue = png(Image.new("RGB", (40, 40), (0, 0, 255)))
    foreign, own = httpx.post(f"{url}/predict", files=pictures(blue, good)).json()["pictures"]
    assert foreign["unlike"] is True and foreign["novelty"] > 1
    assert own["unlike"] is False and own["novelty"] < 1


def test_health_manifest_and_description(url, exported):
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    manifest = json.loads((exported / "export" / MANIFEST).read_text(encoding="utf-8"))
    assert httpx.get(f"{url}/manifest").json() == manifest
    assert "/predict" in httpx.get(f"{url}/openapi.json").json()["paths"]


def test_a_bad_picture_among_good_ones_has_an_error_in_its_place(url, good):
    response = httpx.post(f"{url}/predict", files=pictures(good, b"no picture", good))
    first, bad, last = response.json()["pictures"]
    assert response.status_code == 200 and first["predicted"] == last["predicted"] == "red"
    assert bad["error"]["reason"] == "not_a_picture" and "predicted" not in bad


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claims(width, height) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
HOSTILE = {
    "empty": (b"", 422, "empty"),
    "text": (b"hello", 415, "not_a_picture"),
    "html": (b"<script>alert(1)</script>", 415, "not_a_picture"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "not_a_picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", 415, "not_a_picture"),
    "truncated": (png(Image.fromarray(NOISE))[:5000], 422, "damaged"),
    "a header only": (png(Image.fromarray(NOISE))[:60], 422, "damaged"),
    "a real bomb": (png(Image.new("1", (15_000, 15_000))), 413, "too_many_pixels"),
    "claims to be huge": (claims(2**31 - 1, 2**31 - 1), 413, "too_many_pixels"),
    "claims to be large": (claims(40_000, 30_000), 413, "too_many_pixels"),
    "claims more than it has": (claims(500, 500), 422, "damaged"),
    "no width": (claims(0, 10), 422, "damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pictures_are_refused(url, kind):
    content, status, word = HOSTILE[kind]
    response = httpx.post(f"{url}/predict", files=pictures(content))
    assert (response.status_code, reason(response)) == (status, word)


def test_too_little_memory_is_not_a_damaged_picture(url, good, monkeypatch):
    def load(self):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", load)
    response = httpx.post(f"{url}/predict", files=pictures(good))
    assert (response.status_code, reason(response)) == (503, "no_memory") and "Retry-After" in response.headers


def test_pictures_in_many_scans_silence_nobody(url, good):
    """Eight of them at once: each would take a minute, and they are refused in time for the others."""
    slow = odd_pictures.with_scans(4000)
    with ThreadPoolExecutor(9) as clients:
        hostile = [clients.submit(httpx.post, f"{url}/predict", files=pictures(slow)) for _ in range(8)]
        answer = clients.submit(httpx.post, f"{url}/predict", files=pictures(good), timeout=10).result()
    assert answer.status_code == 200
    assert {reason(one.result()) for one in hostile} == {"too_much_work"}


@pytest.mark.parametrize(
    "content, kind, status, word",
    [
        (b"", "image/png", 415, "not_a_form"),
        (b"{}", "application/json", 415, "not_a_form"),
        (b"", "multipart/form-data", 400, "damaged_form"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, "damaged_form"),
        (b"--x\r\n\r\nno disposition\r\n--x--\r\n", "multipart/form-data; boundary=x", 400, "damaged_form"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n', None, 422, "no_picture"),
    ],
)
def test_hostile_forms_are_refused(url, content, kind, status, word):
    headers = {"Content-Type": kind or "multipart/form-data; boundary=x"}
    response = httpx.post(f"{url}/predict", content=content, headers=headers)
    assert (response.status_code, reason(response)) == (status, word)


def test_a_file_name_can_be_anything(url, good):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="picture"; filename="<b>\\ud800\xff\xfe.png"\r\n\r\n'
        + good
        + b"\r\n--x--\r\n"
    )
    for charset in (b"", b"; charset=raw_unicode_escape", b"; charset=utf-7", b"; charset=hex"):
        headers = {"Content-Type": b"multipart/form-data; boundary=x" + charset}
        response = httpx.post(f"{url}/predict", content=body, headers=headers)
        assert response.status_code == 200 and "<b>" in response.json()["pictures"][0]["name"]


def test_too_many_pictures_and_too_large_a_request(url, good, monkeypatch):
    response = httpx.post(f"{url}/predict", files=pictures(*[good] * 17))
    assert (response.status_code, reason(response)) == (413, "too_many_pictures")
    monkeypatch.setattr(guard, "UPLOAD_BYTES", 10_000)
    response = httpx.post(f"{url}/predict", files=pictures(bytes(20_000)))
    assert (response.status_code, reason(response)) == (413, "upload_too_large")

    def unannounced():
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        yield from [bytes(5_000)] * 4
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{url}/predict", content=unannounced(), headers=headers)
    assert (response.status_code, reason(response)) == (413, "upload_too_large")


@pytest.mark.parametrize(
    "headers, status, word",
    [
        ({"Host": "example.org"}, 400, "host"),
        ({"Host": "127.0.0.1.example.org:80"}, 400, "host"),
        ({"Host": ""}, 400, "host"),
        ({"Host": "[::1"}, 400, "host"),
        ({"Origin": "http://example.org"}, 403, "origin"),
        ({"Origin": "null"}, 403, "origin"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "origin"),
        ({"Sec-Fetch-Site": "same-site"}, 403, "origin"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/card"])
def test_foreign_names_and_pages_are_refused(url, good, headers, status, word, path):
    method = "POST" if path == "/predict" else "GET"
    response = httpx.request(method, url + path, headers=headers, files=pictures(good))
    assert (response.status_code, reason(response)) == (status, word)


def test_its_own_page_and_its_own_names_are_not_refused(url, good):
    port = urlsplit(url).port
    for headers in (
        {"Origin": url, "Sec-Fetch-Site": "same-origin"},
        {"Host": f"localhost:{port}"},
        {"Host": f"[::1]:{port}"},
        {"Host": "192.168.1.7"},
    ):
        assert httpx.post(f"{url}/predict", headers=headers, files=pictures(good)).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}  # a link to the page on a foreign page
    assert httpx.get(url, headers=link).status_code == 200
    assert httpx.post(f"{url}/predict", headers=link, files=pictures(good)).status_code == 403


def test_every_answer_forbids_foreign_content_and_guessing(url):
    for path in ("/", "/page.js", "/card", "/none"):
        headers = httpx.get(url + path).headers
        assert (
            "default-src 'none'" in headers["content-security-policy"]
            and "'self'" in headers["content-security-policy"]
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers and "server" not in headers


@pytest.mark.parametrize(
    "path", ["/../bundle.py", "/page/index.html", "/%2e%2e/bundle.py", "/mistakes/-1", "/mistakes/x"]
)
def test_there_is_nothing_else(url, path):
    response = httpx.get(url + path)
    assert (response.status_code, reason(response)) == (404, "not_found")


def test_the_card_of_a_run_and_of_a_bundle(exported, tmp_path, toy_pictures):
    run = shutil.copytree(exported, tmp_path / "run")
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["predicted"] = row["true"]
    for row, p in ((rows[2], 0.8), (rows[5], 0.9)):
        wrong = {"green": "red", "red": "green"}[row["true"]]
        row.update({"predicted": wrong, f"p_{wrong}": p, f"p_{row['true']}": 1 - p})
    rows[5]["path"] = "eval/red/not there.png"
    with (run / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    with served_at(open_served(run)) as address:
        card = httpx.get(f"{address}/card").json()
        first, second = card["mistakes"]
        assert card["mistakes_in_all"] == 2 and card["confusion"] == metrics["after"]["confusion"]
        assert first["name"] == "eval/red/not there.png" and not first["there"]
        assert second["name"] == rows[2]["path"] and second["there"]
        assert httpx.get(f"{address}/mistakes/0").status_code == 404
        thumbnail = Image.open(io.BytesIO(httpx.get(f"{address}/mistakes/1").content))
        original = Image.open(toy_pictures / rows[2]["path"])
        assert thumbnail.size == original.size
        assert np.abs(np.asarray(thumbnail, float).mean((0, 1)) - np.asarray(original, float).mean((0, 1))).max() < 3
        assert httpx.get(f"{address}/mistakes/2").status_code == 404
    bundle = shutil.copytree(exported / "export", tmp_path / "bundle")
    with served_at(open_served(bundle)) as address:
        card = httpx.get(f"{address}/card").json()
    assert card["confusion"] is None and card["mistakes"] is None
    assert card["measured"] == json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["measured"]


class Gate:
    """A network that answers when it is let to."""

    def __init__(self, served):
        self.network, self.workers = served.network, 1
        self.open, self.entered = threading.Event(), threading.Event()
        self.runtime, self.no_maps = served.runtime, served.no_maps

    def __call__(self, images):
        self.entered.set()
        assert self.open.wait(60), "a test that failed has left the gate shut"
        return self.network(images)


@pytest.fixture
def gated(exported):
    served = open_served(exported)
    served.network = Gate(served)
    gate = served.network
    yield served
    gate.open.set()


def in_background(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return lambda: thread.join() or found[0]


def until(condition):
    while not condition():
        time.sleep(0.01)


def test_a_full_queue_says_so_and_forgets_nobody(gated, good, monkeypatch):
    monkeypatch.setattr(serve, "WAITING", 2)
    with served_at(gated) as address:
        accepted = [in_background(lambda: httpx.post(f"{address}/predict", files=pictures(good))) for _ in range(2)]
        until(lambda: httpx.get(f"{address}/health").json()["waiting"] == 2)
        response = httpx.post(f"{address}/predict", files=pictures(good))
        assert (response.status_code, reason(response)) == (503, "busy")
        assert response.headers["retry-after"] == "1"
        gated.network.open.set()
        assert [wait().status_code for wait in accepted] == [200, 200]
        assert httpx.post(f"{address}/predict", files=pictures(good)).status_code == 200


@pytest.mark.parametrize("bound, status", [("REQUESTS_AN_ADDRESS", 429), ("REQUESTS", 503)])
def test_too_many_requests_at_once_are_refused(gated, good, monkeypatch, bound, status):
    monkeypatch.setattr(guard, bound, 1)
    with served_at(gated) as address:
        accepted = in_background(lambda: httpx.post(f"{address}/predict", files=pictures(good)))
        gated.network.entered.wait()
        response = httpx.get(f"{address}/health")
        assert (response.status_code, reason(response)) == (status, "too_many")
        gated.network.open.set()
        assert accepted().status_code == 200
        assert httpx.get(f"{address}/health").status_code == 200


def begin(url, good) -> tuple[http.client.HTTPConnection, bytes]:
    """A request of which half was sent, and its other half."""
    body = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n' + good + b"\r\n--x--\r\n"
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    return connection, body[len(body) // 2 :]


def test_a_slow_client_holds_nobody_and_is_told(url, good, monkeypatch):
    monkeypatch.setattr(guard, "STANDSTILL_SECONDS", 1.0)
    slow, _ = begin(url, good)
    assert httpx.post(f"{url}/predict", files=pictures(good)).status_code == 200
    response = slow.getresponse()
    assert response.status == 408 and json.loads(response.read())["error"]["reason"] == "too_slow"


def test_a_telephone_on_a_slow_line_is_waited_for(url, good, monkeypatch):
    """Longer in all than it may stand still; but not for ever."""
    monkeypatch.setattr(guard, "STANDSTILL_SECONDS", 1.0)
    for whole, status in ((600.0, 200), (2.0, 408)):
        monkeypatch.setattr(guard, "READ_SECONDS", whole)
        place = urlsplit(url)
        body = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n' + good + b"\r\n--x--\r\n"
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        step = len(body) // 8 + 1
        with contextlib.suppress(OSError):
            for start in range(0, len(body), step):
                connection.send(body[start : start + step])
                time.sleep(0.4)
        assert connection.getresponse().status == status


def raw(url: str, sent: bytes) -> tuple[int, dict]:
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), 60) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(4096):
            received += part
    head, _, content = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


def test_health_under_any_name_and_errors_of_http_in_json(url):
    assert raw(url, b"GET /health HTTP/1.0\r\n\r\n")[0] == 200
    assert raw(url, b"GET /health HTTP/1.1\r\nHost: 10.1.2.3.nip.io\r\nConnection: close\r\n\r\n")[0] == 200
    status, answer = raw(url, b"GARBAGE\r\n\r\n")
    assert status == 400 and answer["error"]["reason"] == "not_http"
    response = httpx.put(f"{url}/predict")
    assert (response.status_code, reason(response)) == (405, "method") and response.headers["Allow"] == "POST"


def test_a_proxy_is_told_by_its_public_url(exported, good):
    public = ["https://demo.example.org/model/", "http://other.example.org:8080"]
    with served_at(open_served(exported), public_urls=public) as url:
        for host, origin, path, status in (
            ("demo.example.org", "https://demo.example.org", "/predict", 200),
            ("demo.example.org", "https://demo.example.org", "/model/predict", 200),  # the proxy leaves its prefix
            ("127.0.0.1:9", "https://demo.example.org", "/predict", 200),  # the proxy names itself
            ("other.example.org:8080", "http://other.example.org:8080", "/predict", 200),
            ("demo.example.org", "https://evil.example.org", "/predict", 403),
            ("evil.example.org", "https://evil.example.org", "/predict", 400),
        ):
            response = httpx.post(f"{url}{path}", files=pictures(good), headers={"Host": host, "Origin": origin})
            assert response.status_code == status, (host, origin, response.text)
            assert status == 200 or "--public_url" in response.text


def test_headers_that_never_end_are_given_up(url, monkeypatch):
    monkeypatch.setattr(guard, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(guard, "HEADER_BYTES", 20_000)
    place = urlsplit(url)
    for sent in (b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT"):
        with socket.create_connection((place.hostname, place.port), 60) as connection:
            connection.sendall(sent)
            received = b""
            while part := connection.recv(4096):
                received += part
            assert received.count(b"HTTP/1.1") == sent.count(b"/health")
    monkeypatch.setattr(guard, "HEADER_SECONDS", 600)
    with socket.create_connection((place.hostname, place.port), 60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            while True:
                connection.sendall(b"A: " + b"b" * 10_000 + b"\r\n")


def test_who_leaves_early_stops_nothing(url, good):
    for _ in range(5):
        connection, _ = begin(url, good)
        connection.close()
    assert httpx.post(f"{url}/predict", files=pictures(good)).status_code == 200


def test_an_error_of_ours_is_json_and_stops_nothing(gated, good):
    gated.network = lambda images: 1 / 0
    with served_at(gated) as address:
        response = httpx.post(f"{address}/predict", files=pictures(good))
        assert (response.status_code, reason(response)) == (500, "internal")
        assert "ZeroDivisionError" not in response.text
        assert httpx.get(f"{address}/health").status_code == 200


def start(folder, *arguments):
    command = [sys.executable, "-m", "export", "serve", str(folder), "--port", "0", *arguments]
    server = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    for line in server.stdout:
        if line.startswith("http://"):
            return server, line.split()[0].rstrip("/")
    raise AssertionError(server.stderr.read())


def refuses(url) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 5).close()
        return False
    except OSError:
        return True


@pytest.mark.parametrize("runtime", ["OpenVINO", "MindSpore"])
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_stopping_finishes_what_was_begun(exported, finished, good, tmp_path, runtime, kind):
    source = exported if runtime == "OpenVINO" else finished.folder
    server, url = start(shutil.copytree(source / "export", tmp_path / "bundle"))
    try:
        assert httpx.get(f"{url}/card").json()["runtime"] == runtime
        connection, rest = begin(url, good)
        assert httpx.get(f"{url}/health").status_code == 200  # asked later: the server has the beginning by now
        server.send_signal(kind)
        until(lambda: refuses(url))
        connection.send(rest)
        response = connection.getresponse()
        assert response.status == 200 and json.loads(response.read())["pictures"][0]["predicted"] == "red"
        out, err = server.communicate(timeout=60)
        assert server.returncode == 0 and "what was accepted has been answered" in out and not err
    finally:
        server.kill()


def test_a_bundle_with_onnx_starts_no_mindspore(exported):
    code = (
        "import sys\nfrom pathlib import Path\nfrom export.serving.server import Application\n"
        "from export.serving.model import open_served\n"
        f"Application(open_served(Path({str(exported / 'export')!r})), '127.0.0.1')\n"
        "assert 'mindspore' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_a_mindir_alone_is_served_by_mindspore_without_maps(finished, good, tmp_path):
    served = open_served(shutil.copytree(finished.folder / "export", tmp_path / "bundle"))
    assert (served.runtime, served.no_maps, served.workers) == ("MindSpore", "mindir", 1)
    with served_at(served) as address:
        (answer,) = httpx.post(f"{address}/predict?maps=true", files=pictures(good)).json()["pictures"]
    assert answer["predicted"] == "red" and answer["maps"] is None and answer["unlike"] is False


def test_a_run_without_onnx_is_served_from_its_ckpt_with_maps(finished, good):
    served = open_served(finished.folder)
    assert served.runtime == "OpenVINO" and served.no_maps is None and "mobilenetv2_best.ckpt" in served.source
    with served_at(served) as address:
        (answer,) = httpx.post(f"{address}/predict?maps=true", files=pictures(good)).json()["pictures"]
    assert answer["predicted"] == "red" and set(answer["maps"]) == {"green", "red"} and answer["unlike"] is False


def test_a_changed_or_unfitting_model_is_not_served(exported, tmp_path):
    bundle = shutil.copytree(exported / "export", tmp_path / "bundle")
    path = bundle / "mobilenetv2_image.onnx"
    model = onnx.load(path)
    bias = next(array for array in model.graph.initializer if array.name == "dense_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32([0.1, 0]), bias.name))
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"mobilenetv2_image\.onnx: missing, or changed since it was exported"):
        open_served(bundle)
    facts = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    del facts["files"][path.name], facts["models"][path.name]
    facts["models"]["mobilenetv2.onnx"]["input_form"] = "tensor"
    (bundle / MANIFEST).write_text(json.dumps({**facts, "digest": digest(facts)}), encoding="utf-8")
    assert open_served(bundle).source == "mobilenetv2.onnx"
    facts["classes"] = facts["classes"][::-1]
    (bundle / MANIFEST).write_text(json.dumps({**facts, "digest": digest(facts)}), encoding="utf-8")
    with pytest.raises(InputError, match="on the golden pictures probabilities differ"):
        open_served(bundle)


def test_what_cannot_be_served_is_an_error_that_says_what_to_do(tmp_path, exported, toy_pictures):
    with pytest.raises(InputError, match="python -m export"):
        open_served(toy_pictures)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="Choose another --port"):
            serve.serve(exported, "127.0.0.1", taken.getsockname()[1])


def test_pictures_of_all_kinds_are_read_as_in_training(url, tmp_path):
    path = draw_toy(tmp_path / "a.png", (150, 60, 60), 3, side=80)
    contents = []
    for kind in ("PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG"):
        content = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
        Image.open(path).save(content, kind, **options)
        contents.append(content.getvalue())
    answers = httpx.post(f"{url}/predict", files=pictures(*contents)).json()["pictures"]
    shares = [answer["probabilities"]["red"] for answer in answers]
    assert shares[:5] == pytest.approx([shares[0]] * 5, abs=1e-5)
    assert shares == pytest.approx([shares[0]] * 7, abs=0.05)
