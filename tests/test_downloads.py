"""Public data from a server on the loopback: whole, cut short, wrong, slow, and gone."""

import csv
import gzip
import hashlib
import io
import re
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from mtbkd.app import cli
from mtbkd.app import data as downloads
from mtbkd.app.data import DATASETS, Patience, cifar10h, data_root, datasets, deeploc2, fetching
from mtbkd.app.data.fetching import fetch
from mtbkd.types import InputError

BYTES = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BYTES).hexdigest()
QUICK = Patience(timeout=0.4, attempts=3, wait=0.01)


@dataclass
class Server:
    """What it serves and how; what it was asked."""

    port: int
    files: dict[str, bytes]
    cut: list[int] = field(default_factory=list)  # send only so many bytes, for one answer each
    status: list[int] = field(default_factory=list)  # answer this instead, likewise
    silent: threading.Event | None = None  # say nothing until it is set
    stall: threading.Event | None = None  # likewise, but after what was not cut
    asked: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


class Answer(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        state, name = self.state, self.path.lstrip("/")
        state.asked.append(name)
        if state.silent is not None:
            state.silent.wait(5)
        status = state.status.pop(0) if state.status else 200 if name in state.files else 404
        data = state.files.get(name, b"") if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        end = state.cut.pop(0) if state.cut else len(data)
        self.wfile.write(data[:end])
        if state.stall is not None and end < len(data):
            self.wfile.flush()
            state.stall.wait(5)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server(0, {"a.bin": BYTES})
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Answer,), {"state": state}))
    state.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield state
    for event in (state.silent, state.stall):
        if event is not None:
            event.set()
    http.shutdown()
    thread.join()
    http.server_close()


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_fetched_once(server, tmp_path):
    path, told = tmp_path / "new" / "a.bin", []
    fetch(server.url("a.bin"), path, SHA256, QUICK, lambda *each: told.append(each))
    assert path.read_bytes() == BYTES
    assert left(path.parent) == ["a.bin"]
    assert told[-1] == ("a.bin", 300, 300)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    fetch(server.url("a.bin"), path, SHA256, QUICK)
    assert server.asked == ["a.bin"]
    path.write_bytes(BYTES[:-1])  # there, but not whole
    fetch(server.url("a.bin"), path, SHA256, QUICK)
    assert path.read_bytes() == BYTES


def test_a_file_cut_short_is_begun_again(server, tmp_path):
    server.cut = [100_000, 250_000]
    fetch(server.url("a.bin"), tmp_path / "a.bin", SHA256, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == BYTES
    assert server.asked == ["a.bin"] * 3
    assert left(tmp_path) == ["a.bin"]


def test_a_file_always_cut_short_leaves_nothing(server, tmp_path):
    server.cut = [1000, 2000, 3000]
    message = "got a connection that ended early in the last of 3 attempts. Check the network"
    with pytest.raises(InputError, match=message):
        fetch(server.url("a.bin"), tmp_path / "a.bin", None, QUICK)
    assert left(tmp_path) == []


def test_wrong_bytes_are_removed_and_both_hashes_told(server, tmp_path):
    wrong = b"?" + BYTES[1:]
    server.files["a.bin"] = wrong
    with pytest.raises(InputError) as error:
        fetch(server.url("a.bin"), tmp_path / "a.bin", SHA256, QUICK)
    assert SHA256 in str(error.value)
    assert hashlib.sha256(wrong).hexdigest() in str(error.value)
    assert left(tmp_path) == []
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_but_a_refusal_counts(server, tmp_path):
    server.status = [503, 429]
    fetch(server.url("a.bin"), tmp_path / "a.bin", SHA256, QUICK)
    server.status = [500, 502, 503]
    with pytest.raises(InputError, match="the answer 503 Service Unavailable in the last of 3"):
        fetch(server.url("a.bin"), tmp_path / "b.bin", SHA256, QUICK)
    server.asked.clear()
    with pytest.raises(InputError, match=r"gone.bin, but the server answered 404 Not Found\. The"):
        fetch(server.url("gone.bin"), tmp_path / "c.bin", SHA256, QUICK)
    assert len(server.asked) == 1
    assert left(tmp_path) == ["a.bin"]


def test_a_silent_server_is_given_up(server, tmp_path):
    server.silent = threading.Event()
    with pytest.raises(InputError, match=r"got nothing for 0.4 s in the last of 2 attempts"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", SHA256, replace(QUICK, attempts=2))
    assert left(tmp_path) == []


def test_a_server_that_stops_in_the_middle_is_asked_again(server, tmp_path):
    server.stall, server.cut = threading.Event(), [200_000]
    fetch(server.url("a.bin"), tmp_path / "a.bin", SHA256, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == BYTES
    assert len(server.asked) == 2


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Expected to write .*Choose another place with --to"):
        fetch(server.url("a.bin"), tmp_path / "file" / "a.bin", SHA256, QUICK)
    assert server.asked == []


@pytest.fixture
def small(server, monkeypatch) -> Server:
    """Two data sets of three files on the loopback, under the names of the real ones."""
    server.files |= {"b.bin": b"bytes", "table.csv": dtu_table()}
    plain = tuple(
        datasets.Source(n, server.url(n), hashlib.sha256(server.files[n]).hexdigest())
        for n in ("a.bin", "b.bin")
    )
    table = (datasets.Source(".table.csv", server.url("table.csv"), None),)
    known = {
        "deeploc": replace(DATASETS["deeploc"], sources=plain, files=("a.bin", "b.bin")),
        "deeploc2": replace(DATASETS["deeploc2"], sources=table),
    }
    monkeypatch.setattr(datasets, "DATASETS", known)
    monkeypatch.setattr(fetching, "Patience", lambda: QUICK)
    rows = deeploc2_rows(dtu_table())
    monkeypatch.setattr(deeploc2, "CONTENT", deeploc2.content_hash(rows))
    return server


def dtu_table(n: int = 12, membrane: str = "0.0") -> bytes:
    rng = np.random.default_rng(1)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    named = ["ACC", "Kingdom", "Partition", "Membrane", *deeploc2.LOCATIONS, "Sequence"]
    writer.writerow(["", *named])
    for k in range(n):
        sequence = "M" + "".join(rng.choice(list("ACDEFGHIKLNPQRSTVWY"), 20))
        locations = [float(j in (k % 10, k % 3)) for j in range(10)]
        writer.writerow([k, f"P{k:05}", "Fungi", k % 5, membrane, *locations, sequence])
    return text.getvalue().encode()


def deeploc2_rows(table: bytes) -> list[dict[str, str]]:
    """As a reader would make them who knows nothing of the code."""
    return [
        {
            "accession": row["ACC"],
            "sequence": row["Sequence"],
            "label": "|".join(sorted(c for c in deeploc2.LOCATIONS if row[c] == "1.0")),
            "partition": row["Partition"],
            "kingdom": row["Kingdom"],
            "membrane": row["Membrane"],
        }
        for row in csv.DictReader(io.StringIO(table.decode(), newline=""))
    ]


def stop_code(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mtbkd", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_get_and_list(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MTBKD_DATA", str(tmp_path))
    assert stop_code(monkeypatch, "data") == 0
    said = capsys.readouterr().out
    assert f"`mtbkd data get deeploc` puts it in {tmp_path / 'deeploc2_mtbkd'}" in said
    assert "4.1 MB" in said
    assert "academic use" in said
    assert small.asked == []
    assert stop_code(monkeypatch, "data", "get", "deeploc") == 0
    assert "no licence" in capsys.readouterr().out
    assert left(tmp_path / "deeploc2_mtbkd") == ["a.bin", "b.bin"]
    assert small.asked == ["a.bin", "b.bin"]
    assert stop_code(monkeypatch, "data", "get", "deeploc") == 0
    assert len(small.asked) == 2
    assert stop_code(monkeypatch, "data", "list") == 0
    assert f" in {tmp_path / 'deeploc2_mtbkd'}\n" in capsys.readouterr().out
    assert stop_code(monkeypatch, "data", "get", "deeploc3") == 2
    assert "among deeploc, deeploc2, but got 'deeploc3'" in capsys.readouterr().err


def test_terms_come_before_the_first_request(small, tmp_path, monkeypatch):
    said = []
    downloads.get("deeploc", tmp_path, say=lambda text: said.append((text, len(small.asked))))
    assert [n for _, n in said] == [0]
    assert DATASETS["deeploc"].terms in said[0][0]
    printed = []
    monkeypatch.setattr(
        "builtins.print", lambda text, **_: printed.append((text, len(small.asked)))
    )
    small.asked.clear()
    assert stop_code(monkeypatch, "data", "get", "deeploc2", "--to", str(tmp_path)) == 0
    assert [n for _, n in printed] == [0, 1]
    assert DATASETS["deeploc2"].terms in printed[0][0]


def test_offline_is_one_message(small, tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
    data = datasets.DATASETS["deeploc"]
    data = replace(data, sources=(replace(data.sources[0], url=gone),))
    monkeypatch.setitem(datasets.DATASETS, "deeploc", data)
    assert stop_code(monkeypatch, "data", "get", "deeploc", "--to", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"mtbkd: Expected to download a.bin from \S+, but got no conn.*\n", said)
    assert left(tmp_path / "deeploc2_mtbkd") == []


def test_the_table_of_dtu_becomes_five_files(small, tmp_path):
    folder = downloads.get("deeploc2", tmp_path)
    assert left(folder) == [f"partition{n}.csv.gz" for n in range(5)]
    rows = []
    for n in range(5):
        text = gzip.decompress((folder / f"partition{n}.csv.gz").read_bytes()).decode()
        mine = list(csv.DictReader(io.StringIO(text, newline="")))
        assert {row["partition"] for row in mine} == {str(n)}
        assert mine == sorted(mine, key=lambda row: row["sequence"])
        rows += mine
    key = "accession"
    wanted = deeploc2_rows(small.files["table.csv"])
    assert sorted(rows, key=lambda r: r[key]) == sorted(wanted, key=lambda r: r[key])
    first = (folder / "partition0.csv.gz").read_bytes()
    downloads.get("deeploc2", tmp_path)
    assert len(small.asked) == 1
    (folder / "partition0.csv.gz").write_bytes(first[:-20])
    downloads.get("deeploc2", tmp_path)
    assert len(small.asked) == 2
    assert (folder / "partition0.csv.gz").read_bytes() == first


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (dtu_table().replace(b"P00003", b"P99999"), r"but got [0-9a-f]{64} from 12 proteins"),
        (dtu_table(11), "from 11 proteins; it was removed"),
        (dtu_table().replace(b"Golgi", b"golgi"), "but Golgi apparatus is missing, in a file"),
        (b"<!DOCTYPE html><html>", "in a file that starts '<!DOCTYPE html><html>'; it was"),
        (b"", "is missing, in a file that starts ''"),
        (b"\xff\xfe", "Expected a table in table.csv, but got: 'utf-8' codec"),
        (dtu_table(membrane="yes"), "but row 1 gave: could not convert string to float: 'yes'"),
        (dtu_table() + b"13,P1\r\n", "but row 13 gave"),
    ],
)
def test_another_table_is_refused(small, tmp_path, table, message):
    small.files["table.csv"] = table
    with pytest.raises(InputError, match=message):
        downloads.get("deeploc2", tmp_path)
    assert left(tmp_path / "deeploc2_full") == []


def cifar_archive(n: int = 5, name: str = "test_batch.bin") -> bytes:
    """As CIFAR-10 is packed: a label, then red, green and blue, row by row."""
    rows = np.random.default_rng(2).integers(0, 256, (n, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(n) % 10
    held, into = rows.tobytes(), io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:gz") as archive:
        about = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
        about.size = len(held)
        archive.addfile(about, io.BytesIO(held))
    return into.getvalue()


@pytest.fixture
def pictures(server, monkeypatch) -> Server:
    """The data set of images on the loopback."""
    server.files |= {"x.tar.gz": cifar_archive(), "votes.npy": b"votes", "probs.npy": b"probs"}
    known = [hashlib.sha256(server.files[name]).hexdigest() for name in ("votes.npy", "probs.npy")]
    sha256 = dict(zip((cifar10h.COUNTS, cifar10h.NETWORK), known, strict=True))
    names = (".x.tar.gz", *sha256)
    urls = map(server.url, ("x.tar.gz", "votes.npy", "probs.npy"))
    sources = map(datasets.Source, names, urls, (None, *known))
    labels = hashlib.sha256(bytes(range(5))).hexdigest()
    monkeypatch.setattr(cifar10h, "SHA256", sha256)
    monkeypatch.setattr(cifar10h, "LABELS", labels)
    real = DATASETS["cifar10h"]
    monkeypatch.setitem(datasets.DATASETS, "cifar10h", replace(real, sources=tuple(sources)))
    monkeypatch.setattr(fetching, "Patience", lambda: QUICK)
    return server


def test_images_are_unpacked_and_the_archive_removed(pictures, tmp_path):
    folder = downloads.get("cifar10h", tmp_path)
    assert left(folder) == sorted(DATASETS["cifar10h"].files)
    held = np.load(folder / "images.npz")
    raw = np.random.default_rng(2).integers(0, 256, (5, 3073), dtype=np.uint8)[:, 1:]
    np.testing.assert_array_equal(held["labels"], range(5))
    assert held["images"].shape == (5, 32, 32, 3)
    assert held["images"][3, 0, 1].tolist() == raw[3, [1, 1025, 2049]].tolist()
    before = (folder / "images.npz").read_bytes()
    downloads.get("cifar10h", tmp_path)
    assert len(pictures.asked) == 3
    for broken in ("images.npz", cifar10h.COUNTS):
        (folder / broken).write_bytes(before[:-30])
        downloads.get("cifar10h", tmp_path)
        assert (folder / "images.npz").read_bytes() == before
        assert (folder / cifar10h.COUNTS).read_bytes() == b"votes"


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (cifar_archive(4), "but got labels with the sha256 [0-9a-f]{64}; it was removed"),
        (cifar_archive(name="data_batch_1.bin"), "test_batch.bin' not found; it was removed"),
        (cifar_archive()[:-2000], "but got .*; it was removed"),
        (b"<!DOCTYPE html>", "but got not a gzip file; it was removed"),
    ],
)
def test_another_archive_is_refused(pictures, tmp_path, archive, message):
    pictures.files["x.tar.gz"] = archive
    with pytest.raises(InputError, match=message):
        downloads.get("cifar10h", tmp_path)
    assert left(tmp_path / "cifar10h") == sorted(cifar10h.SHA256)


def test_where_data_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MTBKD_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert data_root("there") == Path("there")
    assert data_root() == tmp_path
    monkeypatch.delenv("MTBKD_DATA")
    assert data_root(None).name == "mtbkd"
    if sys.platform == "linux":
        assert data_root() == tmp_path / "home" / "mtbkd"


def test_the_hashes_are_those_of_the_real_files(data_folder, monkeypatch):
    monkeypatch.setattr("pooch.HTTPDownloader.__call__", lambda *_: pytest.fail("fetched"))
    for name, data in DATASETS.items():
        assert downloads.get(name, data_folder) == data_folder / data.folder
        assert all((data_folder / data.folder / file).exists() for file in data.files)


def test_every_url_is_pinned_or_checked():
    paper, dtu = DATASETS["deeploc"], DATASETS["deeploc2"]
    assert all(re.search(r"/MTBKD/[0-9a-f]{40}/", source.url) for source in paper.sources)
    assert all(source.sha256 for source in paper.sources)
    assert dtu.convert is deeploc2.convert
    archive, *others = DATASETS["cifar10h"].sources
    assert all(re.search(r"/[0-9a-f]{40}/", source.url) for source in others)
    assert all(source.sha256 for source in (archive, *others))
