"""The routes. What they check and answer is in `schemas` and `answers`, what guards them in `guard`."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from recdistill.serve import answers, schemas
from recdistill.serve.fleet import Slot
from recdistill.serve.limits import LimitError
from recdistill.serve.state import State

#: Histories times items that are answered at once; more goes to a thread, so that others are not kept waiting.
_AT_ONCE: Final = 300_000
#: Pictures of a report that are shown.
PLOT_TYPES: Final = {".png": "image/png", ".svg": "image/svg+xml", ".webp": "image/webp"}
_PAGE_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css",
}


def json_answer(content: Any, status: int = 200) -> Response:
    """Return content as JSON of plain ASCII."""
    return Response(
        json.dumps(content, ensure_ascii=True, allow_nan=False), status, media_type="application/json"
    )


def add_models(app: FastAPI, state: State) -> None:
    """`/recommend`, `/compare`, `/similar`, `/explain`."""
    fleet, limits, metrics = state.fleet, state.limits, state.metrics

    async def answered(request: Request, slot: Slot, work: int, call: Callable[..., Any], *given: Any) -> Any:
        request.scope["facts"]["model"] = slot.name
        big = work * len(slot.now.engine.items) > _AT_ONCE
        return await run_in_threadpool(call, slot, *given) if big else call(slot, *given)

    def noted(request: Request, answer: dict[str, Any], k: int) -> None:
        request.scope["facts"].update(histories=len(answer["answers"]), k=k)
        metrics.add("recdistill_histories_total", len(answer["answers"]), model=answer["model"])
        metrics.observe("recdistill_model_seconds", answer["ms"] / 1e3, model=answer["model"])
        unknown = sum(len(one["unknown"]) for one in answer["answers"])
        metrics.add("recdistill_unknown_items_total", unknown, model=answer["model"])

    @app.post("/recommend", response_model=schemas.RecommendAnswer)
    async def recommend(body: schemas.RecommendRequest, request: Request) -> Response:
        """The best items after one history, or after each of many."""
        histories = answers.histories_of(body, limits)
        key = body.user if body.user is not None else json.dumps(histories[0])
        slot = fleet.pick(body.model, key.encode("utf-8", "replace"))
        answer = await answered(request, slot, len(histories), answers.recommend, body, histories, limits)
        noted(request, answer, body.k)
        return json_answer(answer)

    @app.post("/compare", response_model=schemas.CompareAnswer)
    async def compare(body: schemas.RecommendRequest, request: Request) -> Response:
        """The same request, answered by every model; `model` and `user` are not looked at."""
        histories = answers.histories_of(body, limits)
        found = []
        for slot in fleet.slots.values():
            found.append(
                await answered(request, slot, len(histories), answers.recommend, body, histories, limits)
            )
            noted(request, found[-1], body.k)
        lists = [{item["id"] for item in one["answers"][0]["items"]} for one in found]
        shared = [[len(one & other) for other in lists] for one in lists]
        return json_answer(
            {"models": found, "shared": shared, "teacher": _teacher(state, histories[0], body.k)}
        )

    @app.post("/similar", response_model=schemas.SimilarAnswer)
    async def similar(body: schemas.SimilarRequest, request: Request) -> Response:
        """The items whose vectors point the same way (cosine)."""
        slot = fleet.pick(body.model, str(body.item).encode("utf-8", "replace"))
        return json_answer(await answered(request, slot, 4, answers.similar, body, limits))

    @app.post("/explain", response_model=schemas.ExplainAnswer)
    async def explain(body: schemas.ExplainRequest, request: Request) -> Response:
        """Which items of a history moved the score of an answer most: the history is answered again without each."""
        slot = fleet.pick(body.model, json.dumps(body.history).encode("utf-8", "replace"))
        return json_answer(await answered(request, slot, 100, answers.explain, body, limits))


def _teacher(state: State, names: list[str], k: int) -> dict[str, Any] | None:
    """Return the stored list of the teacher after exactly this history, or None."""
    engine = next(iter(state.fleet.slots.values())).now.engine
    found = [engine.items.find(name) for name in names]
    ids = [engine.items.ids[item] for item in found if item is not None]
    stored = state.examples.teacher(ids)
    if stored is None:
        return None
    items = [item for item in map(engine.items.find, stored[:k]) if item is not None]
    listed = [{**answers.named(engine, item), "score": float(-rank)} for rank, item in enumerate(items)]
    return {"items": listed, "unknown": []}


def add_lookups(app: FastAPI, state: State) -> None:
    """`/items`, `/models`, `/examples`."""
    limits = state.limits

    @app.get("/items", response_model=schemas.ItemsAnswer)
    async def items(
        q: str = Query(description="Words of a title; an id is found as well.", min_length=1),
        limit: int = Query(10, ge=1, le=100),
        model: str | None = Query(None),
    ) -> Response:
        """Items whose titles hold all words."""
        if len(q) > limits.query_length:
            raise LimitError("q", len(q), limits.query_length, "signs")
        slot = state.fleet.pick(model, b"") if model is not None else next(iter(state.fleet.slots.values()))
        engine = slot.now.engine
        found = (await run_in_threadpool(engine.items.search.find, q, limit)).tolist()
        exact = engine.items.find(q)
        best = list(dict.fromkeys(([] if exact is None else [exact]) + found))[:limit]
        return json_answer({"items": [answers.named(engine, item) for item in best]})

    @app.get("/models", response_model=schemas.ModelsAnswer)
    async def models() -> Response:
        """The models, the limits, and what else this server shows."""
        known = [answers.facts(slot) for slot in state.fleet.slots.values()]
        plots, count = sorted(state.plots), len(state.examples)
        return json_answer({"models": known, "limits": vars(limits), "plots": plots, "examples": count})

    @app.get("/examples", response_model=schemas.ExamplesAnswer)
    async def examples(limit: int = Query(20, ge=1, le=200)) -> Response:
        """Histories whose teacher list is stored."""
        engine = next(iter(state.fleet.slots.values())).now.engine

        def shown(name: str) -> dict[str, Any]:
            item = engine.items.find(name)
            return {"id": name, "title": ""} if item is None else answers.named(engine, item)

        rows = [
            {
                "history": [shown(one) for one in row["history"]],
                "target": shown(row["target"]) if row.get("target") else None,
            }
            for row in state.examples.rows[:limit]
        ]
        return json_answer({"examples": rows})


def add_operations(app: FastAPI, state: State) -> None:
    """`/health`, `/ready`, `/metrics`."""

    @app.get("/health", response_model=schemas.Health)
    async def health() -> Response:
        """The process lives."""
        return json_answer({"status": "ok"})

    @app.get("/ready", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
    async def ready() -> Response:
        """The models are loaded and the server is not going down."""
        return json_answer(
            {"status": "ready"} if state.ready else {"status": "not ready"}, 200 if state.ready else 503
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        return Response(state.metrics.text(), media_type="text/plain; version=0.0.4")


def add_pages(app: FastAPI, state: State) -> None:
    """The page, `/docs`, and the pictures. Names are looked up in what was read at the start, never in a folder."""
    folder = resources.files("recdistill.serve") / "page"
    files = {one.name: one.read_bytes() for one in folder.iterdir() if Path(one.name).suffix in _PAGE_TYPES}

    def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return Response(files[name], media_type=_PAGE_TYPES[Path(name).suffix])

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return file("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return file("docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return file(name)

    @app.get("/plots/{name}", include_in_schema=False)
    async def plot(name: str) -> Response:
        if name not in state.plots:
            raise HTTPException(404)
        return Response(state.plots[name], media_type=PLOT_TYPES[Path(name).suffix])
