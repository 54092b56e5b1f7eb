"""A new export takes the old one's place while requests run; a bad one does not; kill -9 leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from exported_folder import best_of, write_export
from recdistill.cli.serve import read_token
from recdistill.errors import ConfigError
from recdistill.serve import Engine, Fleet
from serve.conftest import free_port


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server as a process of its own."""
    port = free_port()
    command = [sys.executable, "-c", "from recdistill.cli.main import main; main()", "serve", *arguments]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            deadline = time.monotonic() + 60
            while server.poll() is None and time.monotonic() < deadline:
                try:
                    if client.get("/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield server, client
    finally:
        if server.poll() is None:
            server.kill()
        server.wait(30)
        if server.stderr is not None:
            server.stderr.close()


def test_the_new_model_is_taken_over_and_a_bad_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    write_export(folder, seed=0)
    results: list[tuple[str, str, Exception | None]] = []
    fleet = Fleet({"rec": folder}, on_reload=lambda *result: results.append(result))
    slot = fleet.pick(None, b"")
    old = slot.now
    assert fleet.reload_changed() == []
    (folder / "model.safetensors").write_bytes(b"half")
    assert fleet.reload_changed() == []
    assert slot.now is old
    assert results[-1][1] == "failed"
    assert fleet.reload_changed() == []
    assert len(results) == 1  # the same broken folder is not read at every look
    (folder / "manifest.json").unlink()
    assert fleet.reload_changed() == []
    assert slot.now is old
    arrays = write_export(tmp_path / "new", seed=5)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert fleet.reload_changed() == []  # between two exports there is no folder
    (tmp_path / "new").rename(folder)
    assert fleet.reload_changed() == ["rec"]
    assert results[-1][1] == "ok"
    import numpy as np

    found = slot.now.engine.recommend([np.array([1, 2])], 5)[0].items.tolist()
    assert found == best_of(arrays, [1, 2], 5, out={1, 2})


def test_no_request_is_dropped_while_models_change(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    wanted = {}
    for seed in range(4):
        arrays = write_export(tmp_path / f"v{seed}", seed=seed)
        wanted[Engine.load(tmp_path / f"v{seed}").version[:12]] = [
            f"id-{i}" for i in best_of(arrays, [1], 5, out={1})
        ]
    (tmp_path / "v0").rename(folder)
    met: set[str] = set()
    wrong: list[str] = []
    stop = threading.Event()

    def ask(url: httpx.URL) -> None:
        with httpx.Client(base_url=url, timeout=30) as mine:
            while not stop.is_set():
                answer = mine.post("/recommend", json={"history": ["id-1"], "k": 5})
                content = answer.json()
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    continue
                met.add(content["version"])
                if [item["id"] for item in content["answers"][0]["items"]] != wanted[content["version"]]:
                    wrong.append(answer.text)

    with process(str(folder), "--reload-seconds", "0.05") as (server, client):
        threads = [threading.Thread(target=ask, args=(client.base_url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        first = Engine.load(folder).version[:12]
        deadline = time.monotonic() + 30
        while first not in met and time.monotonic() < deadline:
            time.sleep(0.02)
        for seed in range(1, 4):
            version = Engine.load(tmp_path / f"v{seed}").version[:12]
            folder.rename(tmp_path / f"old{seed}")
            (tmp_path / f"v{seed}").rename(folder)
            deadline = time.monotonic() + 30
            while version not in met and time.monotonic() < deadline:
                time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert not wrong
        assert met == set(wanted)
        assert 'recdistill_reloads_total{model="rec",result="ok"} 3' in client.get("/metrics").text
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)


def test_kill_9_during_reloads_leaves_folders_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    write_export(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with process(str(folder), "--reload-seconds", "0.01") as (server, _):
        for _ in range(5):
            os.utime(folder / "manifest.json")  # looks like a new export: it is read again
            time.sleep(0.03)
        server.kill()
        server.wait(30)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rec"]
    with process(str(folder)) as (_, client):
        assert client.get("/ready").status_code == 200


def test_requests_are_finished_before_the_server_goes(tmp_path: Path) -> None:
    write_export(tmp_path / "rec", count=4000)
    statuses: list[int] = []
    with process(str(tmp_path / "rec")) as (server, client):
        body = {"histories": [[f"id-{n}", "id-9"] for n in range(256)], "k": 100}

        def ask() -> None:
            statuses.append(httpx.post(f"{client.base_url}/recommend", json=body, timeout=60).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while "recdistill_in_flight 4" not in client.get("/metrics").text and time.monotonic() < deadline:
            if len(statuses) == 3:
                break
            time.sleep(0.005)
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.wait(60) in (0, -signal.SIGTERM)
    assert statuses == [200, 200, 200]


def test_no_log_line_holds_what_was_sent(tmp_path: Path) -> None:
    write_export(tmp_path / "rec")
    with process(str(tmp_path / "rec"), "--log-level", "debug") as (server, client):
        body = {"history": ["id-1", "SECRET-NAME"], "user": "SECRET-USER", "unknown": "skip"}
        assert client.post("/recommend", json=body).status_code == 200
        client.post("/recommend", json={"history": ["SECRET-NAME"], "k": -1, "SECRET-KEY": 1})
        client.get("/items", params={"q": "SECRET-QUERY"})
        client.get("/SECRET-PATH")
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        assert server.stderr is not None
        lines = server.stderr.read().decode().splitlines()
    assert not [
        line for line in lines if "SECRET" in line or "127.0.0.1:" in line.replace("http://127.0.0.1:", "")
    ]
    requests = [
        entry
        for entry in map(json.loads, lines)
        if entry["event"] == "request" and entry["route"] != "/ready"
    ]
    assert [entry["status"] for entry in requests] == [200, 422, 200, 404]
    assert (requests[0]["model"], requests[0]["histories"]) == ("rec", 1)
    assert requests[3]["route"] == "other"


@pytest.mark.parametrize("token", ["short", "", "sixteen signs but spaces", "sixteen-signs-ü-more"])
def test_a_bad_token_file(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(ConfigError, match="16 or more"):
        read_token(tmp_path / "token")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path)
