"""What was tried against the server. It must answer 4xx with a sentence, at once, and go on."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from recdistill.serve import Fleet, Limits, create_app
from serve.conftest import LIMITS, Running

HEAD = {"Content-Type": "application/json"}


def refused(answer: httpx.Response, *words: str) -> None:
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert isinstance(error, str)
    assert len(error) < 2000
    for word in words:
        assert word in error, error


@pytest.mark.parametrize(
    "change",
    [
        {"history": None},
        {"history": "id-1"},
        {"history": {"id": 1}},
        {"history": [None]},
        {"history": [1.5]},
        {"history": [True]},
        {"history": [["id-1"]]},
        {"history": [{"id": "id-1"}]},
        {"history": [""]},
        {"history": []},
        {"histories": []},
        {"histories": [[]]},
        {"history": ["id-1"], "histories": [["id-1"]]},
        {"k": -1},
        {"k": 0},
        {"k": 1.0},
        {"k": "5"},
        {"k": True},
        {"k": None},
        {"k": 10**30},
        {"k": LIMITS.k + 1},
        {"exclude_seen": "yes"},
        {"exclude_seen": 1},
        {"unknown": "perhaps"},
        {"model": "nobody"},
        {"model": "../plain"},
        {"model": "/etc/passwd"},
        {"model": "plain\x00"},
        {"model": ""},
        {"model": 5},
        {"user": 5},
        {"category": {"genres": "comedy"}},
        {"category": {"__class__": ["x"]}},
        {"category": {"genres": ["western"]}},
        {"category": []},
        {"allow": "id-1"},
        {"allow": ["nobody"]},
        {"candidates": [None]},
        {"deny": [{}]},
        {"nothing_like_it": 1},
        {"__proto__": {"k": 1}},
    ],
)
def test_wrong_values(client: httpx.Client, change: dict[str, Any]) -> None:
    body = {"history": ["id-1"], "k": 3, **change}
    if "histories" in change and "history" not in change:
        del body["history"]
    for path in ("/recommend", "/compare"):
        if path == "/compare" and "model" in change and change["model"] == "nobody":
            continue  # every model answers there; the field is not looked at
        refused(client.post(path, json=body))


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"history": ["id-1"] * (LIMITS.history + 1)}, f"{LIMITS.history}"),
        ({"histories": [["id-1"]] * (LIMITS.batch + 1)}, f"{LIMITS.batch}"),
        ({"history": ["id-1"], "k": LIMITS.k + 1}, f"{LIMITS.k}"),
        ({"history": ["x" * (LIMITS.name_length + 1)]}, f"{LIMITS.name_length}"),
        ({"history": ["id-1"], "deny": ["id-1"] * (LIMITS.names + 1)}, f"{LIMITS.names}"),
        ({"history": ["id-1"], "allow": ["id-1"] * (LIMITS.names + 1)}, f"{LIMITS.names}"),
        ({"history": ["id-1"], "candidates": ["id-1"] * (LIMITS.names + 1)}, f"{LIMITS.names}"),
        ({"history": ["id-1"], "category": {"genres": ["comedy"] * (LIMITS.names + 1)}}, f"{LIMITS.names}"),
    ],
)
def test_every_limit_is_named(client: httpx.Client, body: dict[str, Any], limit: str) -> None:
    refused(client.post("/recommend", json=body), limit)


def test_the_limits_of_body_and_query(client: httpx.Client) -> None:
    refused(
        client.post("/recommend", content=b"[" + b" " * LIMITS.body + b"]", headers=HEAD), f"{LIMITS.body:,}"
    )
    refused(client.get("/items", params={"q": "x" * (LIMITS.query_length + 1)}), f"{LIMITS.query_length}")
    for wrong in ({}, {"q": ""}, {"q": "a", "limit": 0}, {"q": "a", "limit": 101}, {"q": "a", "limit": "x"}):
        refused(client.get("/items", params=wrong))
    refused(client.get("/items", params={"q": "a", "model": "../../etc"}))

    def pieces() -> Any:  # chunked: no length is declared
        for _ in range(30):
            yield b" " * 1000

    refused(client.post("/recommend", content=pieces(), headers=HEAD), f"{LIMITS.body:,}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'"text"',
        b"{",
        b'{"history": ["id-1"], "k": NaN}',
        b'{"history": ["id-1"], "k": Infinity}',
        b'{"history": [NaN]}',
        b'{"history": [-Infinity, 1e999]}',
        b'{"history": ["id-1"], "k": ' + b"9" * 5000 + b"}",
        b'{"history": [' + b"9" * 6000 + b"]}",
        b'{"history": ' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        b"[" * 19_000,
        b'{"history": ["\xff\xfe\x80"]}',
        b'{"history": ["\\ud800"]}',
        b'{"\\ud800": 1}',
        b'{"history": ["id-1"], "category": {"\\ud800": ["\\ud800"]}}',
        b"\x00" * 100,
        b"\xef\xbb\xbf{}",
    ],
)
@pytest.mark.parametrize("path", ["/recommend", "/explain", "/similar"])
def test_bodies_that_are_no_request(client: httpx.Client, path: str, body: bytes) -> None:
    refused(client.post(path, content=body, headers=HEAD))


def test_odd_but_allowed(client: httpx.Client) -> None:
    for history in (
        ["id-1"] * LIMITS.history,
        ["id-1", "Heat", "HEAT <b>&"],
        ["'; DROP TABLE items; --", "id-3"],
    ):
        body = {"history": history, "unknown": "skip", "k": LIMITS.k}
        answer = client.post("/recommend", json=body).json()
        assert len(answer["answers"][0]["items"]) == LIMITS.k
    body = {"history": ["id-1"], "allow": [], "k": 5}
    assert client.post("/recommend", json=body).json()["answers"][0]["items"] == []
    body = {"history": ["id-1"], "allow": ["id-1"], "k": 5}  # allowed but seen
    assert client.post("/recommend", json=body).json()["answers"][0]["items"] == []
    twice = client.post("/recommend", content=b'{"history": ["id-1"], "k": 1, "k": 2}', headers=HEAD)
    assert len(twice.json()["answers"][0]["items"]) == 2
    half = client.post("/recommend", content=b'{"history": ["id-1"], "user": "\\udfff"}', headers=HEAD)
    assert half.status_code == 200  # half a sign: a key like any other
    answer = client.post("/similar", json={"item": "id-1", "k": 100})
    assert len(answer.json()["items"]) == 100
    assert client.get("/items", params={"q": "%00\x00\n\r<script>"}).json() == {"items": []}


def test_paths_and_methods(client: httpx.Client) -> None:
    for path in ("/nothing", "/page/nothing.js", "/page/%00", "/plots/", "/%ff%fe", "/.git/config"):
        refused(client.get(path))
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        refused(client.request(method, "/recommend"))
    refused(client.get("/recommend"))
    text = client.get("/metrics").text
    assert "/nothing" not in text
    assert "PATCH" not in text


def raw(server: Running, data: bytes, wait: float = 5.0) -> bytes:
    """Send bytes and return what comes back until the server closes or `wait` seconds pass."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as sock:
        sock.sendall(data)
        parts = []
        try:
            while part := sock.recv(65536):
                parts.append(part)
        except (TimeoutError, ConnectionResetError):
            pass
        return b"".join(parts)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_no_http_at_all(server: Running, client: httpx.Client, data: bytes) -> None:
    answer = raw(server, data, wait=3)
    assert answer == b"" or answer.split()[1][:1] == b"4"
    assert client.get("/health").status_code == 200


def test_slow_clients_are_let_go_and_hold_nobody_up(server: Running, client: httpx.Client) -> None:
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(60)]
    for number, sock in enumerate(slow):
        sock.sendall([b"", b"POST /recom", head + b'{"hist'][number % 3])
    start = time.perf_counter()
    assert client.post("/recommend", json={"history": ["id-1"]}).status_code == 200
    assert time.perf_counter() - start < 5
    answers = []
    for sock in slow:
        try:
            answers.append(sock.makefile("rb").read())
        except ConnectionResetError:
            answers.append(b"")
        sock.close()
    assert time.perf_counter() - start < 10 * LIMITS.body_seconds
    assert sum(b" 408 " in answer for answer in answers) == 20
    assert b"within 1 seconds" in b"".join(answers)
    assert answers.count(b"") == 40  # no head, half a head: closed


def test_clients_that_leave_early(server: Running, client: httpx.Client) -> None:
    body = json.dumps({"histories": [["id-1"]] * 8, "k": 100}).encode()
    head = (
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    for data in (head, head + body[:20], head + body):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                sock.sendall(data)
    assert client.get("/health").status_code == 200
    time.sleep(0.3)
    assert "recdistill_in_flight 1" in client.get("/metrics").text  # only this request itself


def test_many_parallel_clients(folders: dict[str, Path]) -> None:
    limits = Limits(body_seconds=60)
    with Running(create_app(Fleet(folders), limits=limits, reload_seconds=0), limits) as server:
        check_parallel(server)


def check_parallel(server: Running) -> None:
    async def one(number: int, all_connected: asyncio.Barrier) -> tuple[bytes, list[str]]:
        body = json.dumps({"history": [f"id-{number % 100}", "id-7"], "k": 5, "model": "plain"}).encode()
        head = (
            "POST /recommend HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await all_connected.wait()
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = await reader.read()
        writer.close()
        first, _, content = answer.partition(b"\r\n\r\n")
        return first.split()[1], [item["id"] for item in json.loads(content)["answers"][0]["items"]]

    async def all_of_them() -> list[tuple[bytes, list[str]]]:
        barrier = asyncio.Barrier(1000)
        return await asyncio.gather(*(one(number, barrier) for number in range(1000)))

    answers = asyncio.run(all_of_them())
    assert {status for status, _ in answers} == {b"200"}
    for number in range(1000):  # nobody got another's answer
        assert answers[number] == answers[number % 100]
