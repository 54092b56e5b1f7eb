"""A local stand-in for the Hub's HTTP API: as much of it as an upload and a download of a small repository take.

Files that the real Hub keeps in Git LFS are taken in the commit itself here, which the API allows for every file that
its pre-upload answer calls regular.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class HubServer(ThreadingHTTPServer):
    """Keeps the files of each repository in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str) -> str:
        files = self.repositories[name]
        return hashlib.sha1(b"".join(k.encode() + files[k] for k in sorted(files))).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _missing(self, code: str = "RepoNotFound") -> None:
        self._send(404, b"{}", X_Error_Code=code, X_Error_Message="not found")

    def do_POST(self) -> None:
        path = urlparse(self.path).path
        self.server.asked.append(f"POST {path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self._json({"url": f"{self.server.address}/{name}", "name": name, "id": name})
            return
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
            return
        name = "/".join(path.split("/")[3:5])
        if name not in self.server.repositories:
            self._missing()
        elif path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files
                    ]
                }
            )
        elif path.endswith("/commit/main"):
            for line in body.splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    content = base64.b64decode(one["value"]["content"])
                    self.server.repositories[name][one["value"]["path"]] = content
            commit = self.server.commit(name)
            url = f"{self.server.address}/{name}/commit/{commit}"
            self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})
        else:
            self._json({}, 200)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        self.server.asked.append(f"GET {'/'.join(parts)}")
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name not in self.server.repositories:
                self._missing()
                return
            files = self.server.repositories[name]
            if "tree" in parts:
                self._json(
                    [
                        {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                        for p, c in files.items()
                    ]
                )
                return
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name, "modelId": name, "sha": self.server.commit(name), "siblings": siblings})
            return
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        content = self.server.repositories.get(name, {}).get(path)
        if content is None:
            self._missing("EntryNotFound" if name in self.server.repositories else "RepoNotFound")
            return
        etag = hashlib.sha1(content).hexdigest()
        self._send(200, content, ETag=f'"{etag}"', X_Repo_Commit=self.server.commit(name))
