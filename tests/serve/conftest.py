"""A server of two small models, in this process, and a way to start one as a process of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from exported_folder import write_export
from recdistill.serve.app import create_app
from recdistill.serve.fleet import Fleet
from recdistill.serve.limits import Limits
from recdistill.serve.process import _patient_protocol

LIMITS = Limits(
    history=50, batch=8, k=100, names=60, name_length=80, query_length=60, body=20_000, body_seconds=1.0
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    """A server in a thread."""

    def __init__(self, app: object, limits: Limits) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            host="127.0.0.1",
            port=self.port,
            http=_patient_protocol(limits),  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            limit_concurrency=limits.connections,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Running:
        self.thread.start()
        deadline = time.monotonic() + 30
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.server.started
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    write_export(root / "distilled", seed=0)
    write_export(root / "plain", seed=1)
    return {"distilled": root / "distilled", "plain": root / "plain"}


@pytest.fixture(scope="session")
def server(folders: dict[str, Path]) -> Iterator[Running]:
    fleet = Fleet(folders, split="distilled=0.5,plain=0.5")
    with Running(create_app(fleet, limits=LIMITS, reload_seconds=0), LIMITS) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as made:
        yield made
