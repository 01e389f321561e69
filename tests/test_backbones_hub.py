"""A protein language model by its id, from a hub that answers on the loopback."""

import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from test_hub import COMMIT, REPOSITORY, Answer, Hub
from tiny_backbones import write_esm

from mtbkd.inputs.proteins.backbone import load_backbone
from mtbkd.inputs.proteins.embedding import embed

pytestmark = pytest.mark.slow  # two processes import transformers

ASK = f"""
import json
from mtbkd.inputs.proteins.backbone import load_backbone
from mtbkd.inputs.proteins.embedding import embed
from mtbkd.types import InputError
try:
    print(json.dumps(embed(load_backbone("{REPOSITORY}", device="cpu"), ["MKVLA"]).tolist()))
except InputError as error:
    print(json.dumps(str(error)))
"""


class Tree(Answer):
    """The list of files as well, by which a snapshot is taken."""

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path != f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            super().answer(body=body)
            return
        self.server.asked.append(path)
        files = [
            {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40}
            for p in self.server.folder.iterdir()
        ]
        data = json.dumps(files).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(tmp_path):
    pytest.importorskip("transformers")
    server = Hub(write_esm(tmp_path / "esm"))
    server.RequestHandlerClass = Tree
    (tmp_path / "esm" / "pytorch_model.bin").write_text("never asked for")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(hub, cache, **more):
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


def test_an_id_is_downloaded_once_and_needs_no_hub_then(hub, tmp_path):
    expected = embed(load_backbone(hub.folder, device="cpu"), ["MKVLA"])
    found = ask(hub, tmp_path / "cache")
    assert isinstance(found, list), (found, hub.asked)
    torch.testing.assert_close(torch.tensor(found), expected)
    assert any(path.endswith("model.safetensors") for path in hub.asked)
    assert not any(path.endswith(".bin") for path in hub.asked)
    hub.asked.clear()
    assert ask(hub, tmp_path / "cache") == found
    assert not hub.asked


def test_weights_that_do_not_come_and_no_hub_are_one_message(hub, tmp_path):
    hub.broken = True
    told = ask(hub, tmp_path / "cache")
    assert told.startswith(f"Expected the model {REPOSITORY!r} on disk or from the hub, but got")
    assert len(told.splitlines()) == 1
    told = ask(hub, tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert told.startswith(f"Expected the model {REPOSITORY!r} on disk or from the hub, but got")
    assert len(told.splitlines()) == 1
