"""What stands between the network and the routes: token, size and pace of a request, headers, counts, one log line."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from recdistill.serve.limits import Limits
from recdistill.serve.logs import log, place_of
from recdistill.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: Answered without a token: nothing of a model is in them.
OPEN: Final = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})
_OPEN_FOLDER: Final = "/page/"
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The request ends here with a status and a sentence."""

    def __init__(self, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class Guard:
    """An ASGI application around another.

    Parameters
    ----------
    app
        The routes.
    limits
        Of the body.
    metrics
        Where requests are counted.
    paths
        The known paths; all others are counted together, so that nobody can fill the memory with labels.
    token
        The bearer token, or None: no token is asked for.
    """

    def __init__(
        self, app: Any, *, limits: Limits, metrics: Metrics, paths: frozenset[str], token: str | None
    ) -> None:
        self.app = app
        self.limits = limits
        self.metrics = metrics
        self.paths = paths
        self.token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        scope["facts"] = facts = {"id": secrets.token_hex(8)}
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", facts["id"].encode())]
            await send(message)

        self.metrics.add("recdistill_in_flight")
        try:
            await self._answer(scope, receive, sending)
        except Refused as refused:
            await _reply(sending, refused.status, refused.message, *refused.headers)
        except Exception as error:
            log("failed", level=logging.ERROR, error=type(error).__name__, at=place_of(error), **facts)
            if not status:
                await _reply(
                    sending,
                    500,
                    f"something went wrong here. Tell the operator the request id {facts['id']}.",
                )
        finally:
            self._note(scope, status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        path = scope["path"]
        if self.token is not None and path not in OPEN and not path.startswith(_OPEN_FOLDER):
            self._check_token(headers.get(b"authorization", b""))
        body = await self._body(headers, receive)
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _check_token(self, given: bytes) -> None:
        """Compare in constant time, so that the time of a refusal tells nothing of the token."""
        kind, _, token = given.partition(b" ")
        same = hmac.compare_digest(token.strip(), self.token or b"")
        if not (same and kind.lower() == b"bearer"):
            raise Refused(
                401,
                "a token is needed. Allowed: the header 'Authorization: Bearer TOKEN'.",
                (b"www-authenticate", b"Bearer"),
            )

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read the whole body before anything works on it."""
        most = self.limits.body
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > most:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        deadline = asyncio.get_running_loop().time() + self.limits.body_seconds
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the request ended before its body.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise self._too_large()
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            seconds = self.limits.body_seconds
            raise Refused(
                408,
                f"the body took too long. Allowed: all of it within {seconds:g} seconds.",
                (b"connection", b"close"),
            ) from None

    def _too_large(self) -> Refused:
        most = f"{self.limits.body:,}"
        return Refused(
            413, f"the body is too large. Allowed: at most {most} bytes.", (b"connection", b"close")
        )

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = path if path in self.paths else "other"
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
        self.metrics.add("recdistill_in_flight", -1)
        self.metrics.add("recdistill_requests_total", route=route, method=method, status=str(status))
        self.metrics.observe("recdistill_request_seconds", seconds, route=route)
        log(
            "request", method=method, route=route, status=status, ms=round(1e3 * seconds, 3), **scope["facts"]
        )


async def _reply(send: Send, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
    body = json.dumps({"error": message}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
