"""The routes over HTTP, against the students followed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from exported_folder import ITEMS, best_of, weights, write_export
from recdistill.errors import ConfigError, FingerprintError, RunError
from recdistill.serve import Fleet, create_app
from recdistill.serve.app import plots_of
from recdistill.serve.examples import Examples
from recdistill.serve.fleet import named_folders, shares_of
from serve.conftest import LIMITS, Running

MODELS = {"distilled": weights(0), "plain": weights(1)}


def ids(answer: dict, row: int = 0) -> list[str]:
    return [item["id"] for item in answer["answers"][row]["items"]]


def named(items: list[int]) -> list[str]:
    return [f"id-{item}" for item in items]


def test_recommend_by_ids_titles_and_whole_numbers(client: httpx.Client) -> None:
    body = {"history": ["id-9", "Toy Story (1995)", "heat"], "k": 5, "model": "plain"}
    answer = client.post("/recommend", json=body).json()
    assert ids(answer) == named(best_of(MODELS["plain"], [9, 1, 5], 5, out={9, 1, 5}))
    assert answer["model"] == "plain"
    assert answer["answers"][0]["unknown"] == []
    assert (
        client.post("/recommend", json={"history": [17]}).status_code == 422
    )  # read as "17", which is no id here


def test_many_histories_and_every_filter(client: httpx.Client) -> None:
    body = {
        "histories": [["id-1"], ["id-2", "id-3", "id-2"]],
        "model": "distilled",
        "k": 6,
        "deny": ["id-10", "nobody"],
        "allow": named(list(range(60))),
        "category": {"genres": ["comedy", "horror"]},
        "exclude_seen": False,
    }
    answer = client.post("/recommend", json=body).json()
    among = [item for item in range(60) if item % 4 != 1]
    for row, history in enumerate([[1], [2, 3, 2]]):
        assert ids(answer, row) == named(best_of(MODELS["distilled"], history, 6, out={10}, among=among))


def test_unknown_items_are_skipped_or_refused(client: httpx.Client) -> None:
    body = {"history": ["id-1", "nobody", "id-2"], "k": 3, "model": "plain"}
    refused = client.post("/recommend", json=body)
    assert refused.status_code == 422
    assert "'nobody'" in refused.json()["error"]
    skipped = client.post("/recommend", json={**body, "unknown": "skip"}).json()
    assert skipped["answers"][0]["unknown"] == ["nobody"]
    assert ids(skipped) == named(best_of(MODELS["plain"], [1, 2], 3, out={1, 2}))
    nothing = client.post("/recommend", json={"history": ["nobody"], "unknown": "skip"})
    assert nothing.status_code == 422
    assert "1 unknown names left out" in nothing.json()["error"]


def test_compare_similar_explain_items(client: httpx.Client) -> None:
    answer = client.post("/compare", json={"history": ["id-1"], "k": 10}).json()
    lists = [{item["id"] for item in one["answers"][0]["items"]} for one in answer["models"]]
    assert [one["model"] for one in answer["models"]] == ["distilled", "plain"]
    assert answer["shared"] == [[10, len(lists[0] & lists[1])], [len(lists[0] & lists[1]), 10]]
    table = MODELS["plain"]["item_table"]
    cosine = table @ table[5] / np.linalg.norm(table, axis=1)
    cosine[5] = -np.inf
    near = client.post("/similar", json={"item": "Heat", "k": 3, "model": "plain"}).json()
    assert [item["id"] for item in near["items"]] == named(np.argsort(-cosine)[:3].tolist())
    why = client.post("/explain", json={"item": "id-7", "history": ["id-1", "id-2"]}).json()
    assert {item["id"] for item in why["history"]} == {"id-1", "id-2"}
    found = client.get("/items", params={"q": "story", "limit": 2}).json()
    assert [item["title"] for item in found["items"]] == ["Toy Story (1995)", "Toy Story 2 (1999)"]
    assert client.get("/items", params={"q": "id-77"}).json()["items"][0]["id"] == "id-77"


def test_a_user_always_meets_the_same_model_and_the_split_holds(client: httpx.Client) -> None:
    met = {}
    for user in range(120):
        body = {"history": ["id-1"], "k": 1, "user": f"u{user}"}
        met[user] = client.post("/recommend", json=body).json()["model"]
    assert 40 < sum(model == "plain" for model in met.values()) < 80
    for user in range(20):
        body = {"history": ["id-2", "id-3"], "k": 1, "user": f"u{user}"}
        assert client.post("/recommend", json=body).json()["model"] == met[user]


def test_health_ready_metrics_docs_and_page(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    client.post("/recommend", json={"history": ["id-1"], "model": "plain"})
    text = client.get("/metrics").text
    assert re.search(r'recdistill_requests_total\{method="POST",route="/recommend",status="200"\} \d+', text)
    assert 'recdistill_model_items{model="plain"} 120' in text
    line = r'recdistill_request_seconds_{}{{route="/recommend"{}}} (\d+)'
    buckets = [
        int(n) for n in re.findall(line.format("bucket", ',le="[^"]+"').replace("(\\d+)", r"(\d+)"), text)
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == int(re.findall(line.format("count", ""), text)[0])
    for path in ("/", "/docs", "/page/page.js", "/page/page.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "https://" not in answer.text
    paths = client.get("/openapi.json").json()["paths"]
    assert {
        "/recommend",
        "/similar",
        "/explain",
        "/items",
        "/health",
        "/ready",
        "/metrics",
        "/compare",
    } <= set(paths)


def test_the_token(folders: dict[str, Path]) -> None:
    app = create_app(Fleet(folders), token="s3cret-" * 4, limits=LIMITS, reload_seconds=0)
    with Running(app, LIMITS) as running, httpx.Client(base_url=running.url) as client:
        good = {"Authorization": "Bearer " + "s3cret-" * 4}
        for path in ("/items?q=a", "/models", "/metrics", "/plots/x.png", "/nothing"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer s3cret"}).status_code == 401
            assert client.get(path, headers={"Authorization": "Basic " + "s3cret-" * 4}).status_code == 401
            assert client.get(path, headers={"Authorization": b"Bearer \xff\xfe"}).status_code == 401
            assert client.get(path, headers=good).status_code in (200, 404)
        for path in ("/", "/health", "/ready", "/docs", "/openapi.json", "/page/page.js"):
            assert client.get(path).status_code == 200
        assert client.post("/recommend", json={"history": ["id-1"]}).headers["www-authenticate"] == "Bearer"
        assert client.get("/page/../models").status_code == 401
        assert client.get("/page/%2e%2e/models").status_code in (401, 404)


def test_stored_teacher_lists_and_plots(folders: dict[str, Path], tmp_path: Path) -> None:
    row = {"history": ["id-1", "id-2"], "target": "id-3", "teacher": ["id-9", "id-8", "gone"]}
    content = {"dataset_fingerprint": "f" * 64, "teacher": "toy", "rows": [row]}
    (tmp_path / "examples.json").write_text(json.dumps(content))
    (tmp_path / "curve.png").write_bytes(b"\x89PNG")
    stored = Examples.load(tmp_path / "examples.json", ["f" * 64])
    app = create_app(
        Fleet(folders), examples=stored, plots=plots_of(tmp_path), limits=LIMITS, reload_seconds=0
    )
    with Running(app, LIMITS) as running, httpx.Client(base_url=running.url) as client:
        answer = client.post("/compare", json={"history": ["Toy Story (1995)", "id-2"]}).json()
        assert [item["id"] for item in answer["teacher"]["items"]] == ["id-9", "id-8"]
        assert client.post("/compare", json={"history": ["id-2"]}).json()["teacher"] is None
        assert client.get("/examples").json()["examples"][0]["target"]["id"] == "id-3"
        assert client.get("/plots/curve.png").content == b"\x89PNG"
        for path in (
            "/plots/other.png",
            "/plots/..%2Fexamples.json",
            "/plots/%2Fetc%2Fpasswd",
            "/page/..%2Fapp.py",
        ):
            assert client.get(path).status_code == 404
    with pytest.raises(FingerprintError):
        Examples.load(tmp_path / "examples.json", ["0" * 64])
    for bad in ([], {"rows": [{}]}, {"rows": [{**row, "teacher": [1]}]}, {"rows": "x"}):
        (tmp_path / "bad.json").write_text(json.dumps(bad))
        with pytest.raises(RunError, match="no stored lists"):
            Examples.load(tmp_path / "bad.json", ["f" * 64])


def test_names_of_models_and_shares() -> None:
    assert named_folders(["a/rec/", "new=b/rec"]) == {"rec": Path("a/rec"), "new": Path("b/rec")}
    for wrong in (
        [],
        ["x/rec", "y/rec"],
        ["a b"],
        ["ü"],
        ["."] if Path.cwd().name.startswith("-") else [" "],
    ):
        with pytest.raises(ConfigError):
            named_folders(wrong)
    assert shares_of(["a", "b"], None) == {"a": 1.0, "b": 0.0}
    assert shares_of(["a", "b", "c"], "a=3,c=1") == {"a": 0.75, "b": 0.0, "c": 0.25}
    for wrong in ("a", "a=x", "d=1", "a=-1,b=2", "a=0", "a=nan", "a=inf", "../a=1"):
        with pytest.raises(ConfigError):
            shares_of(["a", "b"], wrong)


def test_a_large_catalogue_is_answered_in_a_thread(tmp_path: Path) -> None:
    arrays = weights(3, 4000)
    write_export(tmp_path / "rec", count=4000, arrays=arrays)
    app = create_app(Fleet({"rec": tmp_path / "rec"}), reload_seconds=0)
    with Running(app, LIMITS) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        histories = [[f"id-{row}", f"id-{2 * row}"] for row in range(100)]
        answer = client.post("/recommend", json={"histories": histories, "k": 3}).json()
    for row in (0, 1, 99):
        assert ids(answer, row) == named(best_of(arrays, [row, 2 * row], 3, out={row, 2 * row}))
    assert ITEMS < 4000
