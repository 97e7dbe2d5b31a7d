"""Who may ask, how much and how slowly: the ASGI layer around the whole server.

Host       A foreign page can point its own name at this machine (DNS rebinding) and would then count as the same
           origin. Names are refused unless they are this server's; an address written in numbers cannot be rebound.
Origin     A foreign page can post a form without asking. What browsers send along tells, and is refused.
Size       Bodies are counted while they are read, whatever Content-Length says.
Time       A body may stand still for STANDSTILL_SECONDS, and take READ_SECONDS; headers take HEADER_SECONDS.
Number     So many requests at once, and so many from one address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from export.serving.refusal import Refusal

UPLOAD_BYTES = 32 * 2**20  # of one request
READ_SECONDS = 600.0  # a telephone on a slow line
STANDSTILL_SECONDS = 20.0
HEADER_SECONDS = 10.0
HEADER_BYTES = 2**16
REQUESTS = 256  # at once
REQUESTS_AN_ADDRESS = 64
DRAIN_SECONDS = 3.0  # a refusal would be lost if the connection were closed on data still under way

SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]

log = logging.getLogger("export.serving.server")


class Guard:
    """ASGI middleware. `host` is the one that the server listens on, `public_urls` are those of proxies before it."""

    def __init__(self, app, host: str, public_urls: Sequence[str] = ()):
        self.app = app
        public = [urlsplit(url) for url in public_urls]
        self.names = {"localhost", host.lower(), socket.gethostname().lower(), *(url.hostname for url in public)}
        self.origins = {f"{url.scheme}://{url.netloc}".lower() for url in public}
        self.prefixes = sorted({url.path.rstrip("/") for url in public} - {""}, key=len, reverse=True)
        self.running: Counter[str] = Counter()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_safely(message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS]
            await send(message)

        scope = self.without_prefix(scope)
        address = (scope.get("client") or ("",))[0]
        body = Body(scope, receive)
        self.running[address] += 1
        try:
            self.check(scope, address)
            await self.app(scope, body, send_safely)
        except Refusal as refusal:
            if refusal.close and not body.complete:
                await drain(receive)
            await refusal.response()(scope, receive, send_safely)
        except HTTPException as error:  # the router's way to say so
            wrong = Refusal(error.status_code, "method", "This path does not know the method; see /openapi.json.", True)
            await wrong.response(error.headers)(scope, receive, send_safely)
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            if not begun:
                wrong = Refusal(500, "internal", "Something went wrong here; the server's log says what.", close=True)
                await wrong.response()(scope, receive, send_safely)
        finally:
            self.running[address] -= 1
            if not self.running[address]:
                del self.running[address]

    def check(self, scope, address: str) -> None:
        if self.running[address] > REQUESTS_AN_ADDRESS and not self.origins:  # a proxy asks for all
            raise Refusal(429, "too_many", f"More than {REQUESTS_AN_ADDRESS} requests at once from one address.", True)
        if self.running.total() > REQUESTS:
            raise Refusal(503, "too_many", f"More than {REQUESTS} requests at once.", close=True)
        if scope["path"] == "/health":  # asked by programs, under any name or none, and it tells nothing
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.knows(host):
            message = (
                "This name is not this server's. Use the address that it printed, or start it with --public_url URL."
            )
            raise Refusal(400, "host", message, close=True)
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        foreign = origin and urlsplit_netloc(origin) != host.lower() and origin not in self.origins
        navigation = headers.get(b"sec-fetch-mode") == b"navigate" and scope["method"] == "GET"
        if (foreign or headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")) and not navigation:
            message = "Asked by a page of another origin. Behind a proxy, give the server --public_url URL."
            raise Refusal(403, "origin", message, close=True)

    def without_prefix(self, scope):
        """The same request as if the server stood at the root, where a proxy has left its prefix on the path."""
        for prefix in self.prefixes:
            if scope["path"].startswith(f"{prefix}/"):
                return {**scope, "path": scope["path"][len(prefix) :], "app": self}
        return {**scope, "app": self}

    def knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self.names:
                return True
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return False


def urlsplit_netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


class Body:
    """`receive` with the bounds of size and time."""

    def __init__(self, scope, receive):
        self.receive = receive
        self.left = UPLOAD_BYTES
        self.deadline = time.monotonic() + READ_SECONDS
        self.complete = False
        length = dict(scope["headers"]).get(b"content-length", b"0")
        self.stated_too_large = length.isdigit() and int(length[:20]) > UPLOAD_BYTES

    async def __call__(self) -> dict:
        if self.complete:  # all that can follow is that the client leaves
            return await self.receive()
        if self.stated_too_large:
            raise too_large()
        try:
            left = min(STANDSTILL_SECONDS, max(0.0, self.deadline - time.monotonic()))
            message = await asyncio.wait_for(self.receive(), left)
        except asyncio.TimeoutError:
            message = f"Nothing arrived for {STANDSTILL_SECONDS:.0f} s, or not all within {READ_SECONDS:.0f} s."
            raise Refusal(408, "too_slow", message, close=True) from None
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise too_large()
        self.complete = not message.get("more_body", False)
        return message


def too_large() -> Refusal:
    return Refusal(413, "upload_too_large", f"A request may have up to {UPLOAD_BYTES / 2**20:.0f} MiB.", close=True)


async def drain(receive) -> None:
    """Read and forget what is still under way, for a little while."""

    async def forget() -> None:
        left = 2 * UPLOAD_BYTES
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    try:
        await asyncio.wait_for(forget(), DRAIN_SECONDS)
    except asyncio.TimeoutError:
        return


class PatientProtocol(AutoHTTPProtocol):
    """uvicorn's, which itself waits for ever for the end of the headers, however long they are."""

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP at all: in the form of all the other errors."""
        content = json.dumps({"error": Refusal(400, "not_http", msg).facts()}).encode()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + content)
        self.transport.close()

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        # asyncio does so only for sockets that say IPPROTO_TCP, which uvicorn's do not: an answer's second part
        # would wait 40 ms for the acknowledgement of its first.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.header_timer, self.header_bytes = None, 0
        self.await_headers(0)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.await_headers(len(data))

    def await_headers(self, received: int) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.header_bytes += received
            if self.header_bytes > HEADER_BYTES:
                self.transport.close()
            elif self.header_timer is None:
                self.header_timer = self.loop.call_later(HEADER_SECONDS, self.give_up)
        else:
            self.forget_timer()

    def give_up(self) -> None:
        self.header_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def forget_timer(self) -> None:
        self.header_bytes = 0
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None

    def connection_lost(self, error) -> None:
        self.forget_timer()
        super().connection_lost(error)
