"""What the server answers, refuses and counts."""

import base64
import io
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("onnx")

from PIL import Image
from shipped import CLASSES, COLUMNS, POLICY, SIDE, reseal, ship, weights
from starlette.testclient import TestClient

from mtbkd.inputs.images.opening import decode
from mtbkd_serve import app as served
from mtbkd_serve.app import Limits, make_app
from mtbkd_serve.folder import FolderError, open_folder
from mtbkd_serve.reading import Asked, upright, values_of

ROWS = [[1.0, -2.0, 0.5], [0.0, 0.1, 0.0], [-3.0, 2.0, 1.0]]


@contextmanager
def client(folder, **limits):
    """A server of a folder, asked in this process."""
    with TestClient(make_app(open_folder(folder), Limits(**limits))) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ship(tmp_path_factory.mktemp("shipped") / "rows", defer=POLICY)


@pytest.fixture(scope="module")
def asked(folder):
    with client(folder) as found:
        yield found


def probs_of(rows) -> np.ndarray:
    logits = np.asarray(rows, np.float32) @ weights(3)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def png(size=(9, 7), mode="L", **more) -> bytes:
    data = io.BytesIO()
    image = Image.linear_gradient("L").resize(size).convert(mode)
    image.save(data, "PNG", **more)
    return data.getvalue()


def test_it_answers_what_the_graph_says(asked):
    answers = asked.post("/predict", json={"rows": ROWS}).json()["answers"]
    wanted = probs_of(ROWS)
    found = np.array([[answer["probs"][name] for name in CLASSES] for answer in answers])
    assert np.abs(found - wanted).max() <= 1e-6
    named = [dict(zip(COLUMNS[::-1], row[::-1], strict=True)) for row in ROWS]
    assert asked.post("/predict", json={"rows": named}).json()["answers"] == answers
    for answer, probs in zip(answers, wanted, strict=True):
        assert answer["answer"] == CLASSES[probs.argmax()]
        assert answer["set"] == [c for c, p in zip(CLASSES, probs, strict=True) if p >= 0.5]
        assert answer["flag"] == (None if probs.max() >= 0.5 else "truly ambiguous")
        assert answer["uncertainty"]["total"] == pytest.approx(1 - probs.max(), abs=1e-6)
        assert answer["alone"] == (probs.max() > 0.6)
    held = asked.post("/predict", json={"rows": ROWS, "defer": True}).json()["answers"]
    assert [one["answer"] is None for one in held] == [not one["alone"] for one in answers]
    assert {one["alone"] for one in answers} == {True, False}


def test_it_says_why_and_what_is_alike(asked):
    own = open_folder_examples(asked)
    found = asked.post("/explain", json={"rows": [own.inputs[3].tolist(), own.inputs[0].tolist()]})
    first, second = found.json()["answers"]
    near = first["nearest"]
    assert [len(near), near[0]["id"], near[0]["label"], near[0]["distance"]] == [5, "e3", None, 0.0]
    assert near[0]["row"] == own.inputs[3].tolist()
    assert [one["distance"] for one in near] == sorted(one["distance"] for one in near)
    assert near[0]["said"]["two"]["b"] == pytest.approx(float(own.said[1, 3, 1]))
    assert second["nearest"][0]["id"] == "e0"
    assert second["nearest"][0]["label"] == "a"
    assert list(second["nearest"][0]["said"]) == ["one"]  # the other was silent
    assert (first["why"] is None) == (first["flag"] is None)


def open_folder_examples(asked):
    return asked.app.state.serving.student.examples


def test_images_are_read_as_the_run_reads_them(tmp_path):
    place = ship(tmp_path / "pictures", pictures=True)
    kinds = [png(), png((20, 8), "RGB"), png((SIDE, SIDE), "LA"), png((9, 9), "P")]
    sent = [base64.b64encode(data).decode() for data in kinds]
    inputs = open_folder(place).config.inputs
    with client(place) as asked:
        both = asked.post("/explain", json={"images": [*sent, f"data:image/png;base64,{sent[0]}"]})
        answers = both.json()["answers"]
        refused = asked.post("/predict", json={"rows": [[0.0] * 36]})
    for answer, data in zip(answers, [*kinds, kinds[0]], strict=True):
        (tmp_path / "x.png").write_bytes(data)
        wanted = decode(tmp_path / "x.png", "x", (SIDE, SIDE), 1)
        found = values_of(Asked(images=[base64.b64encode(data).decode()]), inputs, 1)
        np.testing.assert_array_equal(found, wanted[None])
        logits = wanted.reshape(1, -1).astype(np.float32) / 64 @ weights(SIDE**2)
        assert answer["answer"] == CLASSES[int(logits.argmax())]
        wanted = np.exp(logits - logits.max())
        assert answer["probs"]["a"] == pytest.approx(float(wanted[0, 0] / wanted.sum()), abs=1e-5)
    assert Image.open(io.BytesIO(base64.b64decode(answers[0]["nearest"][0]["image"]))).size == (
        6,
        6,
    )
    assert refused.status_code == 422
    assert "Expected images (images of 1 by 6 by 6 bytes), but got rows" in refused.text


def bomb() -> bytes:
    """A small PNG that says it has 900 million pixels."""
    data = bytearray(png((1, 1)))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (bomb(), "cannot be read"),
        (png((4000, 3000)), "million pixels at most"),
        (png()[:60], "cannot be read"),
        (b"GIF89a", "cannot be read"),
        (b"%PDF-1.7", "cannot be read"),
        (b"<svg/>", "cannot be read"),
        ("no base64!", "in base64"),
    ],
    ids=["bomb", "large", "cut", "gif", "pdf", "svg", "text"],
)
def test_images_that_are_none_are_refused(image, said, tmp_path):
    place = ship(tmp_path / "pictures", pictures=True)
    text = image if isinstance(image, str) else base64.b64encode(image).decode()
    with client(place) as asked:
        found = asked.post("/predict", json={"images": [text]})
    assert found.status_code == 422
    assert said in found.json()["detail"][0]
    assert "0x" not in found.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe{", "Invalid JSON"),
        (b'{"rows": [[1, 2, NaN]]}', "finite number"),
        (b'{"rows": [[1, 2, 1e999]]}', "rows.0.2"),
        (b'{"rows": [[1, 2, 1e39]]}', "float32 can hold"),
        (b'{"rows": [[1, 2, "3"]]}', "valid number"),
        (b'{"rows": [[1, 2]]}', "Expected 3 numbers"),
        (b'{"rows": [{"x1": 1, "x2": 2, "y": 3}]}', "are missing or unknown"),
        (b'{"rows": [[1, 2, 3]], "other": 1}', "Extra inputs"),
        (b'{"rows": []}', "one of the keys"),
        (b'{"rows": [[1, 2, 3]], "texts": ["a"]}', "rows and texts"),
        (b'{"texts": ["a"]}', "not in an exported folder"),
        (b'{"fasta": ">a"}', "got FASTA"),
        (b'{"images": ["aaaa"]}', "got images"),
        (b'{"rows": [[3e38, 3e38, -3e38]]}', "too large"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"rows": ' + b"[" * 5000, "recursion limit"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_it_cannot_answer_is_refused_with_the_reason(body, said, asked):
    found = asked.post("/predict", content=body)
    assert found.status_code == 422
    assert said in " ".join(found.json()["detail"])


def test_there_is_a_limit_to_everything(folder):
    with client(folder, rows=2, body=300) as asked:
        assert "2 examples at most" in asked.post("/predict", json={"rows": ROWS}).text
        long = asked.post("/predict", content=b" " * 301)
        assert long.status_code == 413
        parts = asked.post("/predict", content=(b" " * 100 for _ in range(9)))
        assert parts.status_code == 413
        packed = asked.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 415
        assert asked.get("/predict").status_code == 405
        assert asked.post("/nothing").status_code == 404
        assert asked.post("/predict", json={"rows": ROWS[:2]}).status_code == 200


def test_too_many_and_too_slow_are_told_to_come_back(folder, monkeypatch):
    with client(folder, waiting=3, seconds=0.3) as asked:
        batcher = asked.app.state.serving.batcher
        ready = threading.Event()
        run = batcher.run
        object.__setattr__(batcher, "most_at_once", 0)
        monkeypatch.setattr(type(batcher), "run", lambda _, values: (ready.wait(2), run(values))[1])
        found = []
        threads = [
            threading.Thread(
                target=lambda: found.append(asked.post("/predict", json={"rows": ROWS}))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ready.set()
        assert {one.status_code for one in found} == {503}
        assert {one.headers["Retry-After"] for one in found} == {"1", "2"}
        assert asked.post("/predict", json={"rows": ROWS}).status_code == 200


@pytest.mark.parametrize("at_once", [0, 100])
def test_requests_that_wait_are_answered_together(at_once, folder):
    with client(folder) as asked:
        batcher = asked.app.state.serving.batcher
        object.__setattr__(batcher, "most_at_once", at_once)
        sizes, begun, run = [], threading.Event(), batcher.run

        def slow(values):
            sizes.append(len(values))
            begun.set()
            time.sleep(0.2)
            return run(values)

        object.__setattr__(batcher, "run", slow)
        found = {}

        def ask(i):
            answer = asked.post("/predict", json={"rows": [[i, 0, 1]]}).json()["answers"][0]
            found[i] = list(answer["probs"].values())

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(9)]
        threads[0].start()
        begun.wait()
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
    assert sizes[0] == 1
    assert sum(sizes) == 9
    assert len(sizes) <= 4
    each = np.array([found[i] for i in range(9)])
    assert np.abs(each - probs_of([[i, 0, 1] for i in range(9)])).max() <= 1e-5


def test_a_token_is_asked_for_where_there_is_one(folder, monkeypatch):
    monkeypatch.setenv(served.TOKEN, "sésame")
    with client(folder) as asked:
        assert [asked.get(path).status_code for path in ("/", "/health", "/ready")] == [200] * 3
        for path in ("/about", "/metrics", "/openapi.json"):
            assert asked.get(path).status_code == 401
        bad = asked.post("/predict", json={"rows": ROWS}, headers={"Authorization": "Bearer no"})
        assert bad.status_code == 401
        assert bad.headers["WWW-Authenticate"] == "Bearer"
        good = {"Authorization": "Bearer sésame".encode()}
        assert asked.post("/predict", json={"rows": ROWS}, headers=good).status_code == 200


def test_what_it_counts_shows_drift(folder):
    with client(folder) as asked:
        asked.post("/predict", json={"rows": ROWS})
        asked.post("/predict", json={"rows": [[]]})
        text = asked.get("/metrics").text
    for line in (
        'mtbkd_requests_total{path="/predict",status="200"} 1.0',
        'mtbkd_requests_total{path="/predict",status="422"} 1.0',
        'mtbkd_uncertainty_count{part="epistemic"} 3.0',
        'mtbkd_flags_total{flag="truly ambiguous"} 1.0',
        "mtbkd_outside_count 3.0",
        "mtbkd_batch_rows_count 1.0",
    ):
        assert line in text
    counted = sum(float(x.split()[-1]) for x in text.splitlines() if "flags_total{" in x)
    assert counted == 3


def test_it_describes_itself_and_takes_leave(asked, monkeypatch):
    told = asked.get("/openapi.json").json()["paths"]
    assert {"/predict", "/explain", "/health", "/ready", "/metrics", "/about"} == set(told)
    body = told["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"rows", "images", "texts", "fasta", "defer"} == set(body["properties"])
    assert {"401", "408", "413", "415", "422", "503"} <= set(told["/predict"]["post"]["responses"])
    page = asked.get("/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    monkeypatch.setattr(asked.app.state.serving, "stopping", True)
    assert asked.get("/ready").status_code == 503
    late = asked.post("/predict", json={"rows": ROWS})
    assert (late.status_code, late.headers["Connection"]) == (200, "close")


@pytest.mark.parametrize(
    "name",
    ["model.onnx", "config.json", "examples.json", "examples.safetensors", "manifest.json"],
)
def test_a_folder_that_was_changed_is_refused_by_name(name, folder):
    path = folder / name
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(FolderError, match=name):
            open_folder(folder)
        path.unlink()
        with pytest.raises(FolderError, match=name):
            open_folder(folder)
    finally:
        path.write_bytes(data)
    open_folder(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.onnx", b"no graph", "model.onnx.*onnxruntime says"),
        ("config.json", b"{}", "config.json.*task"),
        ("examples.json", b"[]", "examples.safetensors"),
        ("examples.safetensors", b"x" * 20, "examples.safetensors"),
    ],
)
def test_a_sealed_folder_of_something_else_is_refused(name, content, said, tmp_path):
    place = ship(tmp_path / "odd")
    (place / name).write_bytes(content)
    reseal(place)
    with pytest.raises(FolderError, match=said):
        open_folder(place)


def test_a_manifest_names_no_other_folder(tmp_path):
    place = ship(tmp_path / "odd")
    record = json.loads((place / "manifest.json").read_text())
    from mtbkd.files import save_sealed

    record["sha256"]["../secret"] = "0" * 64
    save_sealed(place / "manifest.json", {k: v for k, v in record.items() if k != "own_sha256"})
    with pytest.raises(FolderError, match="manifest.json.*secret"):
        open_folder(place)


def test_nothing_heavy_is_imported(folder):
    code = (
        "import sys; from pathlib import Path; from mtbkd_serve.cli import main; "
        "from mtbkd_serve.app import make_app; from mtbkd_serve.folder import open_folder; "
        f"make_app(open_folder(Path({str(folder)!r}))); "
        "print(sorted({'torch', 'mtbkd', 'pyarrow', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    path = ":".join(p for p in sys.path if p.endswith("serve/src"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_picture_that_a_camera_turned_is_turned_back():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    Image.new("L", (4, 2)).save(data, "JPEG", exif=exif)
    assert upright(Image.open(data)).size == (2, 4)


def test_hostile_requests_are_refused_and_nothing_breaks(asked):
    chance = np.random.default_rng(0)
    whole = json.dumps({"rows": ROWS, "defer": False}).encode()
    odd = [
        b"null", b"0", b"[]", b'""', b"{}", b"1e400", b"-", b'{"rows": null}', b'{"rows": 3}',
        b'{"rows": {"x1": 1}}', b'{"rows": [[[1]]]}', b'{"rows": [null]}',
        b'{"rows": [[true, 1, 2]]}', b'{"defer": 3}',
        b'{"rows": [[1, 2, 3], {"x1": 1}]}', b'{"images": [1]}', b'{"images": [""]}',
        b'{"rows": [[1, 2, -Infinity]]}', b'{"rows": [["' + b"9" * 50_000 + b'", 1, 2]]}',
        b'{"rows": [[' + b"9" * 50_000 + b", 1, 2]]}", b'{"a": ' * 3000, b"PK\x03\x04" * 50,
        b'{"rows": [[1, 2, 3]]}\x00', "{\"rows\": [[1, 2, 3]]}".encode("utf-16"), b'{"\\ud800": 1}',
        b'{"rows": [{"\\ud800": 1}]}', b'{"rows": [{"' + b"k" * 90_000 + b'": 1}]}',
    ]  # fmt: skip
    for _ in range(270):
        at, kind = int(chance.integers(len(whole))), int(chance.integers(4))
        noise = chance.integers(256, size=int(chance.integers(1, 40))).astype(np.uint8).tobytes()
        odd.append(
            [whole[:at], whole[:at] + noise + whole[at:], noise, whole[:at] + whole[at + 1 :]][kind]
        )
    path = ("/predict", "/explain")
    found = [
        asked.post(path[i % 2], content=body, headers={"Content-Type": f"text/{i}"})
        for i, body in enumerate(odd)
    ]
    assert {one.status_code for one in found} <= {200, 422}
    assert [one.status_code for one in found[:27]] == [422] * 27
    assert not any("Traceback" in one.text or len(one.content) > 20_000 for one in found)
    assert asked.post("/predict", json={"rows": ROWS}).status_code == 200
