"""The application: what its routes share, how it starts and stops, how mistakes are answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from recdistill.errors import ConfigError, DataError, RecdistillError
from recdistill.serve import routes, schemas
from recdistill.serve.examples import Examples
from recdistill.serve.fleet import Fleet
from recdistill.serve.guard import Guard
from recdistill.serve.limits import LimitError, Limits
from recdistill.serve.logs import log
from recdistill.serve.metrics import Metrics
from recdistill.serve.state import State

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": schemas.Error, "description": text}
    for status, text in (
        (400, "The body is no JSON"),
        (401, "The token is missing or wrong"),
        (408, "The body came too slowly"),
        (413, "The body is too large"),
        (422, "A value is not allowed, or a limit is passed"),
    )
}


def create_app(
    fleet: Fleet,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    examples: Examples | None = None,
    plots: Mapping[str, bytes] | None = None,
    reload_seconds: float = 2.0,
) -> Guard:
    """Return the ASGI application.

    Parameters
    ----------
    fleet
        The models.
    limits
        Of a request; None: the defaults.
    token
        A bearer token that requests must carry; None: none is asked for.
    examples
        Stored lists of a teacher, for the page.
    plots
        Pictures of a report by name, such as ``accuracy.png``.
    reload_seconds
        How often the folders are looked at for a new export; 0: never.
    """
    state = State(fleet, limits or Limits(), Metrics(), examples or Examples(), plots or {})
    fleet.on_reload = state.note_reload
    state.note_models()
    app = FastAPI(
        title="recdistill",
        summary="Recommendations of distilled students.",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(state, reload_seconds),
        responses=_PROBLEMS,
    )
    _add_errors(app)
    routes.add_models(app, state)
    routes.add_lookups(app, state)
    routes.add_operations(app, state)
    routes.add_pages(app, state)
    paths = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    return Guard(app, limits=state.limits, metrics=state.metrics, paths=paths, token=token)


def plots_of(folder: Path) -> dict[str, bytes]:
    """Return the pictures that lie in a report's folder, by file name.

    Raises
    ------
    ConfigError
        There is none.
    """
    found = {
        path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.suffix in routes.PLOT_TYPES
    }
    if not found:
        raise ConfigError(
            f"{folder} holds no picture. Allowed: a folder with {', '.join(routes.PLOT_TYPES)} files."
        )
    return found


def _version() -> str:
    from recdistill import __version__

    return __version__


def _lifespan(
    state: State, seconds: float
) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(_watch(state.fleet, seconds)) if seconds > 0 else None
        state.ready = True
        yield
        state.ready = False
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    return lifespan


async def _watch(fleet: Fleet, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(fleet.reload_changed)
        except Exception as error:
            log("watch failed", level=logging.ERROR, error=type(error).__name__)


def _add_errors(app: FastAPI) -> None:
    """Answer every mistake with one sentence; what was sent is not sent back: it may be large, or no JSON at all."""

    async def invalid(request: Request, error: Exception) -> Response:
        problems = error.errors() if isinstance(error, RequestValidationError) else []
        parts = [f"{'.'.join(map(str, one['loc']))[:100]}: {one['msg'][:200]}" for one in problems[:5]]
        return routes.json_answer({"error": "; ".join(parts) + ". See /docs."}, 422)

    async def mistake(request: Request, error: Exception) -> Response:
        return routes.json_answer(
            {"error": str(error)}, 422 if isinstance(error, ConfigError | DataError | LimitError) else 500
        )

    async def http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = {404: "there is nothing here. See /docs.", 405: "this path has another method. See /docs."}
        response = routes.json_answer(
            {"error": detail.get(status, str(getattr(error, "detail", "")))}, status
        )
        for name, value in (getattr(error, "headers", None) or {}).items():
            response.headers[name] = value
        return response

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(RecdistillError, mistake)
    app.add_exception_handler(HTTPException, http)
