"""A server on the loopback that speaks as OpenAI's does, and fails as real ones do."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LABELS = ("World", "Sports")
KEY = "sk-very-secret-0123456789"
TRANSIENT = ("429", "500", "hang", "cut", "schema", "empty")
"""What goes wrong the first time that something is asked; "wrong" is no label, ever."""


def digest(body: dict) -> int:
    return int(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(), 16)


class Faulty:
    """What it was asked, what it answered, and how often it was told another key."""

    def __init__(self, rate: int = 0, hang: float = 0.6, key: str | None = KEY) -> None:
        self.asked, self.answered = Counter(), Counter()
        self.rate, self.hang, self.key = rate, hang, key
        self.bodies: list[dict] = []
        self.lock = threading.Lock()

    def fault(self, body: dict, times: int) -> str:
        """One in ``rate`` of the questions has each fault."""
        place = digest(body) % self.rate if self.rate else len(TRANSIENT) + 1
        if place < len(TRANSIENT):
            return TRANSIENT[place] if times == 1 else ""
        return "wrong" if place == len(TRANSIENT) else ""


def reply(body: dict, wrong: bool) -> dict:
    """A chat's answer; which label is drawn by the hash of the question."""
    number = digest(body)
    says = "Weather" if wrong else LABELS[number % 2]
    choice: dict = {"index": 0, "message": {"role": "assistant", "content": says}}
    if body.get("logprobs"):
        share = 0.5 + (number // 2 % 1000) / 2500
        tokens = {"Rain": 0.6, "Snow": 0.3} if wrong else {says: share, "The": 0.02}
        other = LABELS[1 - number % 2]
        tokens |= {} if wrong else {other: 0.95 - share}
        top = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in tokens.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


@contextmanager
def serving(state: Faulty):
    """Its address, while it runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = json.dumps(body, sort_keys=True)
            with state.lock:
                state.asked[name] += 1
                state.bodies.append(body)
                times = state.asked[name]
            if state.key and self.headers.get("Authorization") != f"Bearer {state.key}":
                told = f"bad key {self.headers.get('Authorization')}"
                self.send(401, json.dumps({"error": told}))
                return
            fault = state.fault(body, times)
            if fault in ("429", "500"):
                told = f"busy {self.headers.get('Authorization')}"
                self.send(int(fault), told, wait=fault == "429")
                return
            if fault == "hang":
                threading.Event().wait(state.hang)
            said = reply(body, fault == "wrong")
            if fault == "schema":
                said = {"result": "World"}
            if fault == "empty":
                said["choices"][0].pop("message")
                said["choices"][0]["logprobs"] = {"content": [{"top_logprobs": []}]}
            text = json.dumps(said)
            if fault == "cut":
                text = text[: len(text) // 2]
            with state.lock:
                state.answered[name] += fault in ("", "wrong")
            self.send(200, text)

        def send(self, code: int, text: str, *, wait: bool = False) -> None:
            data = text.encode()
            try:
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                if wait:
                    self.send_header("Retry-After", "0.01")
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client gave up, or was killed
                self.close_connection = True

        def handle(self):
            with suppress(OSError):
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
