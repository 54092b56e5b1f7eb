"""schemathesis makes up requests from the OpenAPI schema: no 5xx, no status or body that is not described there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from recdistill.serve import Fleet, create_app
from serve.conftest import LIMITS

schemathesis = pytest.importorskip("schemathesis")

POSTS = ["/recommend", "/compare", "/similar", "/explain"]
WITH_INPUT = [*POSTS, "/items", "/examples"]
PATHS = [*WITH_INPUT, "/models", "/health", "/ready", "/metrics"]


@pytest.mark.parametrize("path", PATHS)
def test_made_up_requests(folders: dict[str, Path], path: str) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    app = create_app(Fleet(folders), limits=LIMITS, reload_seconds=0)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    operation = schema[path]["post" if path in POSTS else "get"]

    modes = (
        list(schemathesis.GenerationMode) if path in WITH_INPUT else [schemathesis.GenerationMode.POSITIVE]
    )
    for mode in modes:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=10,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def made_up(case: object) -> None:
            case.call_and_validate(checks=wanted)  # type: ignore[attr-defined]

        made_up()
