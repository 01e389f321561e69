"""The server as a process: it takes leave without losing a request, and is started by `mtbkd`."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("onnx")
pytest.importorskip("httpx")

import httpx
from own_data import call, write_config, write_examples, write_table
from serving import SOURCES, free_port, is_ready, started
from shipped import ship
from starlette.testclient import TestClient

from mtbkd.app.export.loading import load_exported
from mtbkd_serve.app import make_app
from mtbkd_serve.folder import open_folder

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def test_a_changed_folder_ends_with_a_message_and_code_2(tmp_path):
    place = ship(tmp_path / "odd")
    with (place / "model.onnx").open("ab") as file:
        file.write(b"x")
    done = subprocess.run(
        [sys.executable, "-m", "mtbkd_serve", place],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert re.match(r"mtbkd-serve: Expected .*model\.onnx as it was exported, but got", done.stderr)


@pytest.mark.parametrize("kept", [True, False])
def test_every_request_that_was_taken_is_answered(kept, tmp_path):
    place = ship(tmp_path / "rows")
    counts, lost = {"answered": 0, "refused": 0}, []
    lock = threading.Lock()
    limits = httpx.Limits(max_keepalive_connections=None if kept else 0)

    def ask(url):
        with httpx.Client(limits=limits, timeout=20) as client:
            while True:
                try:
                    found = client.post(f"{url}/predict", json={"rows": [[1, 2, 3]] * 20})
                    assert len(found.json()["answers"]) == 20
                    with lock:
                        counts["answered"] += 1
                except httpx.ConnectError:  # never taken
                    return
                except Exception as error:
                    lost.append(repr(error))
                    return

    with started(place) as (url, process):
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        before = counts["answered"]
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert process.wait(30) == 0
        said = process.stderr.read().decode()
    assert lost == []
    assert counts["answered"] > before > 20
    assert "Traceback" not in said


def test_a_slow_body_is_not_waited_for(tmp_path):
    place = ship(tmp_path / "rows")
    with started(place, "--seconds", "0.5") as (url, process):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as one:
            one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in one.recv(100)
        with socket.create_connection((host, int(port)), timeout=10) as one:
            one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.3)
        assert is_ready(url)
        process.terminate()
        assert "Traceback" not in process.communicate(timeout=20)[1].decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one's own rows, with a policy."""
    folder = tmp_path_factory.mktemp("own")
    write_examples(folder)
    write_table(folder)
    write_config(folder, {"old": {"table": "old.csv", "kind": "probs"}})
    return folder


def test_mtbkd_serve_exports_and_answers_as_the_export_does(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    assert call(monkeypatch, capsys, "run", "my.yaml", "--out", "run")[0] == 0
    assert call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.6")[0] == 0
    port = free_port()
    code = "from mtbkd.app.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "run", "--port", str(port)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{SOURCES}"},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            if is_ready(url) or process.poll() is not None:
                break
            time.sleep(0.1)
        rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 3
        found = httpx.post(f"{url}/predict", json={"rows": rows.tolist()}).json()["answers"]
    finally:
        process.terminate()
        process.wait(30)
    wanted = load_exported("run.export").predict(rows)
    probs = np.array([list(one["probs"].values()) for one in found])
    assert np.abs(probs - wanted["probs"]).max() <= 1e-5
    assert [one["set"] for one in found] == [
        [name for name, is_in in zip("abc", each, strict=True) if is_in] for each in wanted["set"]
    ]
    lines = ["id,x1,x2", *(f"n{i},{a},{b}" for i, (a, b) in enumerate(rows.tolist()))]
    (run / "new.csv").write_text("\n".join(lines) + "\n")
    code, _, said = call(
        monkeypatch, capsys, "predict", "run", "new.csv", "--defer", "--out", "n.csv"
    )
    assert code == 0, said
    n_alone = len((run / "n.csv").read_text().splitlines()) - 1 if (run / "n.csv").exists() else 0
    assert sum(one["alone"] for one in found) == n_alone
    assert call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.7")[0] == 0
    code, _, said = call(monkeypatch, capsys, "serve", "run")
    assert code == 2
    assert "has another policy. Delete it" in said


@pytest.mark.parametrize("recipe", ["overlay", "diabetes"])
def test_other_families_are_answered(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = [
        "map.epochs=2",
        "sampler.burn_in=10",
        "sampler.draws=4",
        "sampler.thinning=2",
        "chains=2",
    ]
    sets = [part for one in (*short, "baselines=none") for part in ("--set", one)]
    assert call(monkeypatch, capsys, "run", recipe, "--out", "run", *sets)[0] == 0
    assert call(monkeypatch, capsys, "export", "run")[0] == 0
    student = open_folder(Path("run.export"))
    rows = student.examples.inputs[:20]
    wanted = load_exported("run.export").predict(rows)
    with TestClient(make_app(student)) as asked:
        found = asked.post("/explain", json={"rows": rows.tolist()}).json()["answers"]
        assert "mtbkd_uncertainty_count" in asked.get("/metrics").text
    name = "mean" if recipe == "diabetes" else "probs"
    told = [list(one["answer" if name == "mean" else name].values()) for one in found]
    assert np.abs(np.array(told) / wanted[name] - 1).max() <= 1e-5
    assert [one["nearest"][0]["id"] for one in found] == student.examples.ids[:20]
    if name == "probs":
        said = [[c for c, yes in zip(student.config.classes, row, strict=True) if yes]
                for row in wanted["labels"]]  # fmt: skip
        assert [one["answer"] for one in found] == said
