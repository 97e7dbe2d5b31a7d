"""Every way in which the server says no: one exception, one form of JSON."""

from __future__ import annotations

import json

from starlette.responses import Response


class Json(Response):
    """ASCII only: a file name may hold what no encoding can write."""

    media_type = "application/json"

    def render(self, content) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


class Refusal(Exception):
    """`reason` is a word for programs and for the page's languages, `message` is for people."""

    def __init__(self, status: int, reason: str, message: str, close: bool = False):
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.close = close  # the rest of the request was not read: the connection cannot be used again

    def facts(self) -> dict:
        return {"status": self.status, "reason": self.reason, "message": self.message}

    def response(self, more_headers: dict | None = None) -> Json:
        headers = {**(more_headers or {}), **({"Connection": "close"} if self.close else {})}
        if self.status in (429, 503):
            headers["Retry-After"] = "1"
        return Json({"error": self.facts()}, status_code=self.status, headers=headers)
