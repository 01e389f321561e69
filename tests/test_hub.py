"""A model by its id: from a hub that answers on the loopback, whole and cut short."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from test_teachers_libraries import write_bert

pytestmark = pytest.mark.slow  # three processes import transformers

REPOSITORY, COMMIT = "tiny/bert", "0" * 40

ASK = f"""
import json, sys
from mtbkd.teachers import from_hugging_face
from mtbkd.types import InputError
try:
    teacher = from_hugging_face("t", "{REPOSITORY}", device="cpu")
except InputError as error:
    print(json.dumps([str(error)]))
else:
    print(json.dumps([list(teacher.classes), teacher.predict(["good film", "bad"]).tolist()]))
"""


class Hub(ThreadingHTTPServer):
    """Files of one repository, the weights of which may be lost."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.broken, self.asked = folder, False, []


class Answer(BaseHTTPRequestHandler):
    """What the client needs of the hub's protocol."""

    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        start, _, name = path.rpartition("/")
        file = self.server.folder / name
        if path in (f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/main"):
            names = [{"rfilename": p.name} for p in self.server.folder.iterdir()]
            data = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": names}).encode()
        elif start in (f"/{REPOSITORY}/resolve/{v}" for v in ("main", COMMIT)) and file.is_file():
            data = file.read_bytes()
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        lost = self.server.broken and file.suffix == ".safetensors"
        self.send_response(500 if lost else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and not lost:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    transformers = pytest.importorskip("transformers")
    state = torch.get_rng_state()
    write_bert(transformers, tmp_path / "bert", id2label={0: "NEG", 1: "POS"})
    torch.set_rng_state(state)
    server = Hub(tmp_path / "bert")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(hub: Hub, cache: Path, **more: str) -> list:
    """In a process of its own: the client reads its settings when it is imported."""
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | settings | more,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_id_is_downloaded_once_and_speaks_as_the_folder_does(hub, tmp_path):
    from mtbkd.teachers import from_hugging_face

    local = from_hugging_face("t", hub.folder, device="cpu")
    found = ask(hub, tmp_path / "cache")
    assert len(found) == 2, (found, hub.asked)
    classes, said = found
    assert classes == ["NEG", "POS"]
    torch.testing.assert_close(torch.tensor(said), local.predict(["good film", "bad"]))
    assert any(path.endswith("model.safetensors") for path in hub.asked)
    hub.asked.clear()
    assert ask(hub, tmp_path / "cache", HF_HUB_OFFLINE="1") == [classes, said]
    assert not hub.asked


def test_weights_that_do_not_come_are_one_message(hub, tmp_path):
    hub.broken = True
    (message,) = ask(hub, tmp_path / "cache")
    assert message.startswith("Expected")
    assert REPOSITORY in message
    assert "teacher 't'" in message
