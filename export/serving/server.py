"""Try the model: a page and a JSON API, on this machine only unless told otherwise.

    python -m export serve runs/cats_vs_dogs
    curl -F picture=@photo.jpg http://127.0.0.1:8000/predict

Pictures wait in one bounded queue; a few workers decode them and compute them in batches. Nothing that is sent is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from datasets.base import InputError
from export.predictors import Seen
from export.serving.batcher import Batcher, Full
from export.serving.card import Card
from export.serving.guard import STANDSTILL_SECONDS, UPLOAD_BYTES, Guard, PatientProtocol
from export.serving.model import Served, open_served
from export.serving.openapi import description
from export.serving.refusal import Json, Refusal
from export.serving.uploads import PICTURES, Prepared, prepare, uploaded
from finetune.evaluation.calibrate import temper

WAITING = 128  # pictures that were accepted and have no answer yet
MAPS = 10  # classes of a picture, the likeliest
PAGE = Path(__file__).parents[1] / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Application:
    """`app` is the ASGI application. `host` is the one that the server listens on."""

    def __init__(self, served: Served, host: str, public_urls: Sequence[str] = ()):
        self.served = served
        self.card = Card(served, limits={"pictures": PICTURES, "bytes": UPLOAD_BYTES})
        self.accepted = 0
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health),
            Route("/manifest", fixed(served.manifest)),
            Route("/card", fixed(self.card.facts)),
            Route("/mistakes/{number}", self.mistake),
            Route("/openapi.json", fixed(description(served.manifest["name"]))),
            *page_routes(),
        ]
        self.app = Guard(Router(routes, default=not_found, lifespan=self.lifespan), host, public_urls)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app):
        decode = functools.partial(prepare, spec=self.served.image)
        self.batcher = Batcher(decode, self.served, self.served.together, WAITING, self.served.workers)
        yield
        self.batcher.close()

    async def health(self, _request: Request) -> Json:
        return Json({"status": "ok", "name": self.served.manifest["name"], "waiting": self.accepted})

    async def mistake(self, request: Request) -> Response:
        number = request.path_params["number"]
        row = int(number) if number.isascii() and number.isdigit() and len(number) < 9 else -1
        content = await asyncio.get_running_loop().run_in_executor(None, self.card.thumbnail, row)
        return Response(content, media_type="image/jpeg")

    async def predict(self, request: Request) -> Json:
        pictures = await uploaded(request)
        if self.accepted + len(pictures) > WAITING:
            raise Refusal(503, "busy", f"More than {WAITING} pictures are waiting. Ask again in a moment.")
        self.accepted += len(pictures)
        try:
            with_maps = request.query_params.get("maps") == "true"
            answers = await asyncio.gather(*(self.answer(name, content, with_maps) for name, content in pictures))
        finally:
            self.accepted -= len(pictures)
        refusals = [answer for answer in answers if isinstance(answer, Refusal)]
        if len(refusals) == len(answers):
            raise refusals[0]
        return Json(
            {
                "pictures": [
                    {"name": name, "error": answer.facts()} if isinstance(answer, Refusal) else answer
                    for (name, _), answer in zip(pictures, answers)
                ]
            }
        )

    async def answer(self, name: str, content: bytes, with_maps: bool) -> dict | Refusal:
        try:
            prepared, seen = await asyncio.wrap_future(self.batcher.submit(content))
        except Refusal as refusal:
            return refusal
        except Full:
            return Refusal(503, "busy", "The server is stopping, or too many pictures are waiting.")
        return self.facts(name, prepared, seen, with_maps)

    def facts(self, name: str, prepared: Prepared, seen: Seen, with_maps: bool) -> dict:
        """What the description calls an answer. `seen`: of one picture."""
        classes, confidence = self.served.classes, self.served.confidence
        probabilities, maps = seen.probabilities, seen.maps if with_maps else None
        certain, sure = float(probabilities.max()), None
        if confidence:
            certain = float(temper(probabilities[None], confidence["temperature"]).max())
            sure = certain >= confidence["threshold"]
        likeliest = np.argsort(-probabilities, kind="stable")[:MAPS]
        return {
            "name": name,
            "predicted": classes[probabilities.argmax()],
            "confidence": certain,
            "sure": sure,
            "unlike": None if seen.novelty is None else bool(seen.novelty > self.served.novelty_threshold),
            "novelty": None if seen.novelty is None else float(seen.novelty),
            "probabilities": dict(zip(classes, probabilities.astype(float).tolist())),
            "size": list(prepared.size),
            "seen": list(prepared.seen),
            "maps": None if maps is None else {classes[c]: maps[c].astype(float).round(4).tolist() for c in likeliest},
        }


def fixed(content: dict):
    async def answer(_request: Request) -> Json:
        return Json(content)

    return answer


def page_routes() -> list[Route]:
    """The files of page/, read once; index.html is at /."""

    def route(path: Path) -> Route:
        content = path.read_bytes()

        async def answer(_request: Request) -> Response:
            return Response(content, headers={"Content-Type": KINDS[path.suffix]})

        return Route("/" if path.name == "index.html" else f"/{path.name}", answer)

    return [route(path) for path in sorted(PAGE.iterdir()) if path.suffix in KINDS]


async def not_found(scope, receive, send) -> None:
    raise Refusal(404, "not_found", "There is nothing here. The page is at /, the description at /openapi.json.")


def make_server(served: Served, host: str, port: int, public_urls: Sequence[str] = ()) -> uvicorn.Server:
    config = uvicorn.Config(
        Application(served, host, public_urls).app,
        host=host,
        port=port,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(STANDSTILL_SECONDS) + 10,
    )
    return uvicorn.Server(config)


def serve(
    path: Path,
    host: str,
    port: int,
    threads: int = 0,
    key: bytes | None = None,
    public_urls: Sequence[str] = (),
) -> None:
    """Serve a run folder or a bundle until it is told to stop; what was accepted by then is answered.

    Raises:
        InputError: there is no model to serve, or the port cannot be had.
    """
    served = open_served(path, threads, key)
    server = make_server(served, host, port, public_urls)
    try:
        listening = server.config.bind_socket()
        listening.listen(server.config.backlog)  # the address is printed next, and may be asked at once
    except (SystemExit, OSError) as error:  # uvicorn's way to say so
        raise InputError(f"{host} port {port} cannot be listened on. Choose another --port or --host.") from error
    address = f"[{host}]" if ":" in host else host
    print(f"serving {served.source} of {served.bundle} by {served.runtime}")
    print(f"http://{address}:{listening.getsockname()[1]}/  (Ctrl-C stops)", flush=True)
    for url in public_urls:
        print(f"behind a proxy: {url}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.run([listening])
    print("stopped; what was accepted has been answered.")
