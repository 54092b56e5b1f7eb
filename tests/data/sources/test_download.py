from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from recdistill.data import SOURCES, download
from recdistill.data.sources import ARCHIVES, cache_folder
from recdistill.data.sources.download import Archive
from recdistill.errors import DataError


def archive_bytes(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name, text in files.items():
            content.writestr(f"ml-1m/{name}.dat", text)
        content.writestr("ml-1m/users.dat", "not wanted")
        content.writestr("../escape/movies.csv", "not wanted")
    return buffer.getvalue()


CONTENT = archive_bytes(
    ratings="1::10::4::100\n1::20::4::101\n1::30::4::102\n", movies="10::A (1990)::Drama\n"
)


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/ml-1m.zip"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(CONTENT if known else b"")

        def log_message(self, *_: object) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


def archive(address: str, digest: str | None = None) -> Archive:
    return Archive(
        f"{address}/ml-1m.zip",
        "md5",
        digest or hashlib.md5(CONTENT).hexdigest(),
        ("ratings.dat", "movies.dat"),
    )


def test_fetch_check_unpack_and_read(tmp_path: Path, server: str) -> None:
    folder = download("movielens-1m", tmp_path / "ml", archive=archive(server))
    assert sorted(path.name for path in folder.iterdir()) == ["movies.dat", "ratings.dat"]
    assert len(SOURCES["movielens-1m"](folder)[0]) == 3
    again = download(
        "movielens-1m", tmp_path / "ml", archive=archive("http://127.0.0.1:9")
    )  # not asked again
    assert again == folder


def test_a_wrong_checksum_keeps_nothing(tmp_path: Path, server: str) -> None:
    with pytest.raises(DataError, match="another file, or a broken one"):
        download("movielens-1m", tmp_path / "ml", archive=archive(server, "0" * 32))
    assert list(tmp_path.iterdir()) == []


def test_offline_the_message_says_what_to_put_where(tmp_path: Path, server: str) -> None:
    for address in (f"{server}/none", "http://127.0.0.1:9"):
        with pytest.raises(
            DataError,
            match=r"cannot be fetched.*by hand and put ratings\.dat, movies\.dat into a folder.*--source",
        ):
            download("movielens-1m", tmp_path / "ml", archive=archive(address))
    with pytest.raises(DataError, match=r"amazon-2014 cannot be fetched by itself. Pass the folder"):
        download("amazon-2014")


def test_the_cache_is_where_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "recdistill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "recdistill"


def test_every_movielens_can_be_fetched() -> None:
    assert set(ARCHIVES) == {name for name in SOURCES if name.startswith("movielens")}
    for name, known in ARCHIVES.items():
        assert known.url.startswith("https://files.grouplens.org/datasets/movielens/ml-"), name
        assert len(known.digest) == {"md5": 32, "sha256": 64}[known.algorithm]
