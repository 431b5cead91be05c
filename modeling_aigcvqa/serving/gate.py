"""What is checked of a request before its body is read: the token, the size, and whether there is room."""

import hmac
import time
from typing import Any

from starlette.responses import JSONResponse

from .clip_queue import QueueFull
from .metrics import Metrics
from .settings import ServiceSettings

SCORING = ("/score", "/score_tensors")
GUARDED = (*SCORING, "/metrics")


class Gate:
    """ASGI middleware."""

    def __init__(self, app: Any, settings: ServiceSettings, token: str | None, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics
        self.authorization = None if token is None else f"Bearer {token}".encode()
        self.open_bytes = 0

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in GUARDED:
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def counted(message: dict) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = dict(scope["headers"])
        size = headers.get(b"content-length", b"")
        held = int(size) if size.isdigit() else 0
        refusal = self._refusal(scope, headers, size, held)
        try:
            if refusal is not None:
                await refusal(scope, receive, counted)
                return
            self.open_bytes += held
            try:
                await self.app(scope, receive, counted)
            finally:
                self.open_bytes -= held
        finally:
            self.metrics.requests.labels(scope["path"], status).inc()
            self.metrics.seconds.labels(scope["path"]).observe(time.monotonic() - start)

    def _refusal(self, scope: dict, headers: dict, size: bytes, held: int) -> JSONResponse | None:
        given = headers.get(b"authorization", b"")
        if self.authorization is not None and not hmac.compare_digest(given, self.authorization):
            needed = {"WWW-Authenticate": "Bearer"}
            return refused(401, "this service needs a token: send the header Authorization: Bearer TOKEN.", needed)
        if scope["path"] not in SCORING or scope["method"] != "POST":
            return None
        if not size.isdigit():
            return refused(411, "the request does not say how large it is; send the header Content-Length.")
        if held > self.settings.max_body:
            most = self.settings.max_body
            return refused(413, f"the request has {held} bytes, above the {most} allowed; send fewer clips at once.")
        if self.open_bytes + held > self.settings.max_open:
            return refused(429, "the service holds as many requests as it can; send it again.", {"Retry-After": "1"})
        try:
            scope["app"].state.queue.check_room(1)
        except QueueFull as error:
            return of_full_queue(error)
        return None


def refused(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


def of_full_queue(error: QueueFull) -> JSONResponse:
    return refused(429, str(error), {"Retry-After": str(error.retry_after)})
