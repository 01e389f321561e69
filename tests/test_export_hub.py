"""What reaches the hub: a server on the loopback that keeps what it is sent."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mtbkd.app.export.hub import push_to_hub
from mtbkd.files import save_sealed, sha256_of
from mtbkd.types import InputError

pytest.importorskip("huggingface_hub")

COMMIT = f"/me/digits/commit/{'0' * 40}"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files needs."""

    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = self.server
        if server.refuses:
            return self.answer({"error": "not yours"}, 403)
        if self.path == "/api/repos/create":
            server.made.append(json.loads(data))
            return self.answer({"url": f"{server.place}/me/digits", "name": "me/digits"})
        if self.path.endswith("/preupload/main"):
            files = [{**f, "uploadMode": "regular"} for f in json.loads(data)["files"]]
            each = [{**f, "shouldIgnore": False, "oid": None} for f in files]
            return self.answer({"files": each})
        if self.path.endswith("/commit/main"):
            for line in map(json.loads, data.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    server.held[value["path"]] = base64.b64decode(value["content"])
            return self.answer({"commitUrl": server.place + COMMIT, "commitOid": "0" * 40})
        return self.answer({"errors": [], "warnings": []})

    def do_GET(self):
        code = 403 if self.server.refuses else 200
        self.answer({"id": "me/digits", "siblings": [], "sha": "0" * 40}, code)

    def answer(self, value, code=200):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    found.place = f"http://127.0.0.1:{found.server_port}"
    found.refuses, found.made, found.held = False, [], {}
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def folder(tmp_path):
    for name, data in {"README.md": b"---\nlicense: other\n---\n", "model.onnx": b"graph"}.items():
        (tmp_path / name).write_bytes(data)
    hashes = {name: sha256_of(tmp_path / name) for name in ("README.md", "model.onnx")}
    save_sealed(tmp_path / "manifest.json", {"opset": 20, "sha256": hashes})
    (tmp_path / "secret.txt").write_text("stays at home")
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_what_the_manifest_names_arrives_and_nothing_else(server, folder):
    where = push_to_hub(folder, "me/digits", token="hf_x", endpoint=server.place)
    assert where == server.place + COMMIT
    assert [server.made[0][key] for key in ("name", "organization")] == ["digits", "me"]
    assert server.made[0].get("private") or server.made[0].get("visibility") == "private"
    names = ["README.md", "manifest.json", "model.onnx"]
    assert sorted(server.held) == names
    assert all(server.held[name] == (folder / name).read_bytes() for name in names)


@pytest.mark.filterwarnings("ignore")
def test_refusals_are_told_and_changed_files_stay(server, folder):
    server.refuses = True
    with pytest.raises(InputError, match="Expected to upload .* to me/digits, but got: .*403"):
        push_to_hub(folder, "me/digits", token="hf_x", endpoint=server.place)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match=r"model\.onnx"):
        push_to_hub(folder, "me/digits", token="hf_x", endpoint=server.place)
    assert not server.held
