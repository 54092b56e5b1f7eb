"""The server process: uvicorn with patience for slow clients, and signals."""

from __future__ import annotations

import asyncio
from typing import Any

from recdistill.errors import MissingExtraError
from recdistill.serve.limits import Limits
from recdistill.serve.logs import configure, log


def run(
    app: Any, *, host: str, port: int, limits: Limits, log_level: str = "info", grace: float = 20.0
) -> None:
    """Serve until SIGTERM or SIGINT; requests that are being answered are finished first, for up to `grace` seconds.

    Parameters
    ----------
    app
        What `create_app` returned.
    host
        Address, such as ``127.0.0.1`` or ``0.0.0.0``.
    port
        0..65535; 0: any that is free.
    limits
        Of connections and their pace.
    log_level
        ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.
    grace
        Seconds.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("uvicorn", "serve") from None
    configure(log_level)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_patient_protocol(limits),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(grace),
        limit_concurrency=limits.connections,
    )
    log("start", host=host, port=port)
    uvicorn.Server(config).run()
    log("stop")


def _patient_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, closing connections on which no request's head arrives in time."""
    base: Any
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as base
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as base

    class Patient(base):  # type: ignore[misc]
        """The first head must be there `body_seconds` after the connection; uvicorn itself times the later ones."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.head_timer = self.loop.call_later(limits.body_seconds, self.close_if_silent)

        def connection_lost(self, error: Exception | None) -> None:
            self.head_timer.cancel()
            super().connection_lost(error)

        def close_if_silent(self) -> None:
            """Close a connection that has not finished the head of a request."""
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Patient
