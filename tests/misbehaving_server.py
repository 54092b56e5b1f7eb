"""A real endpoint on this machine that answers, or does what a script tells it to do wrong."""

import contextlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers ``prompt i`` with ``title i``; `script` maps a prompt to what happens at its 1st, 2nd... try."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.tries, self.bodies, self.headers, self.times = {}, Counter(), [], [], []
        self.under_way = self.most = 0
        self.lock, self.delay = threading.Lock(), 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the game."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        server = self.server
        with server.lock:
            server.under_way += 1
            server.most = max(server.most, server.under_way)
            attempt = server.tries[prompt]
            server.tries[prompt] += 1
            server.bodies.append((self.path, body))
            server.headers.append(self.headers.get("authorization"))
            server.times.append((prompt, time.monotonic()))
        steps = server.script.get(prompt, server.script.get("*", []))
        step = steps[min(attempt, len(steps) - 1)] if steps else "good"
        try:
            time.sleep(server.delay)
            self.act(step, prompt, body)
        finally:
            with server.lock:
                server.under_way -= 1

    def act(self, step, prompt, body):
        chat = self.path.endswith("/chat/completions")
        text = prompt.replace("prompt", "title")
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        good = {"choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
        if isinstance(step, dict):
            return self.send(200, json.dumps(step))
        if isinstance(step, tuple):
            return self.send(*step)
        if step == "slow":
            time.sleep(1.5)
        if step == "drip":
            return self.drip(json.dumps(good).encode())
        if step == "cut":
            data = json.dumps(good).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        if step == "hang up":
            self.close_connection = True
            return None
        return self.send(200, "{ this is no json" if step == "wrong json" else json.dumps(good))

    def drip(self, data):
        """Send a byte now and then, so that no single read waits long."""
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for index in range(30):
                self.wfile.write(data[index : index + 1])
                time.sleep(0.05)

    def send(self, status, text, headers=()):
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def running():
    server = Server()
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
