"""The server process: uvicorn with patience for slow clients, and signals."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from recdistill.extras import extra
from recdistill.serve.limits import Limits
from recdistill.serve.logs import configure, log

#: Bytes of a request's line and headers.
_MOST_HEAD: Final = 1 << 16


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
    with extra("serve"):
        import uvicorn
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
    """Return uvicorn's protocol, closing connections whose requests start slowly or without end."""
    Base: Any
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Base
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as Base

    class Patient(Base):  # type: ignore[misc]
        """The head of each request must be there within `body_seconds` and 64 KiB, else the connection is closed."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.head_size = 0
            self.head_timer: asyncio.TimerHandle | None = None
            self._expect_head()

        def connection_lost(self, error: Exception | None) -> None:
            self._forget_head()
            super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            """Count the bytes of a head, and start its time with its first byte."""
            if self.cycle is None or self.cycle.response_complete:
                end = data.find(b"\r\n\r\n")
                self.head_size += len(data) if end < 0 else end
                if self.head_size > _MOST_HEAD:
                    self.transport.close()
                    return
                if end < 0:
                    self._expect_head()
                else:
                    self._forget_head()
            super().data_received(data)

        def _expect_head(self) -> None:
            if self.head_timer is None:
                self.head_timer = self.loop.call_later(limits.body_seconds, self.transport.close)

        def _forget_head(self) -> None:
            self.head_size = 0
            if self.head_timer is not None:
                self.head_timer.cancel()
                self.head_timer = None

    return Patient
