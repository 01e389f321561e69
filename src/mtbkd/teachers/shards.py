"""Labels on disk: shards, the journal that says which are finished, and reading them back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors import safe_open
from torch import Tensor

from mtbkd.outputs import TeacherTable
from mtbkd.types import InputError

JOURNAL, FAILURES, IDS, WHOLE = "journal.jsonl", "failures.jsonl", "ids.arrow", "values.safetensors"

_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Journal:
    """What a folder of labels holds.

    Attributes:
        header: What is labelled, by whom, and in which form.
        shards: One record for each finished shard: ``shard``, ``rows``, ``failed``, ``sha256``.
    """

    header: dict[str, Any]
    shards: dict[int, dict[str, Any]]

    @property
    def count(self) -> int:
        """Shards when all are finished."""
        return -(-self.header["rows"] // self.header["shard_rows"])

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the row after its last."""
        start = shard * self.header["shard_rows"]
        return start, min(start + self.header["shard_rows"], self.header["rows"])


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{shard:05d}.safetensors"


def write_shard(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write a shard under a temporary name, then rename it; gives the SHA-256 of its bytes."""
    header = _header({k: (t.dtype, list(t.shape)) for k, t in tensors.items()})
    digest, partial = hashlib.sha256(header), path.with_name(f".{path.name}.partial")
    with partial.open("wb", buffering=0) as file:
        file.write(header)
        for tensor in tensors.values():
            data = _bytes_of(tensor)
            digest.update(data)
            file.write(data)
    partial.rename(path)
    return digest.hexdigest()


def _header(layout: dict[str, tuple[torch.dtype, list[int]]]) -> bytes:
    """What stands before the tensors in a safetensors file."""
    header: dict[str, Any] = {}
    end = 0
    for key, (dtype, shape) in layout.items():
        begin, end = end, end + dtype.itemsize * math.prod(shape)
        header[key] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.rename(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_line(record: dict[str, Any]) -> bytes:
    """A record as one line of JSON that carries its own checksum."""
    text = json.dumps(record)
    check = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f'{text[:-1]}, "check": "{check}"}}\n'.encode()


def from_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None if the line is torn or was changed."""
    try:
        record = json.loads(line)
        del record["check"]
        return record if to_line(record) == line else None
    except (ValueError, KeyError, TypeError):
        return None


def read_journal(folder: Path) -> Journal | None:
    """The journal of a folder, None if nothing was labelled there; a torn last line is left out.

    Raises:
        InputError: If the journal was changed.
    """
    path = folder / JOURNAL
    if not path.exists():
        return None
    lines = path.read_bytes().splitlines(keepends=True)
    torn = bool(lines) and not lines[-1].endswith(b"\n")
    records = [from_line(line) for line in lines[: len(lines) - torn]]
    if not records or None in records or "teacher" not in records[0]:  # type: ignore[operator]
        raise InputError(
            f"Expected {path} as it was written, but line {_first_bad(records)} was changed. "
            f"Delete {folder} and label again."
        )
    header, *shards = (record for record in records if record is not None)
    return Journal(header, {record["shard"]: record for record in shards})


def _first_bad(records: list[dict[str, Any] | None]) -> int:
    return records.index(None) + 1 if None in records else 1


def write_journal(folder: Path, journal: Journal) -> None:
    """Write the journal anew, its shards in order."""
    records = [journal.header, *(journal.shards[k] for k in sorted(journal.shards))]
    write_bytes(folder / JOURNAL, b"".join(map(to_line, records)))


def append(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Add records to a file of JSON lines."""
    with path.open("ab") as file:
        file.write(b"".join(map(to_line, records)))


def settle_failures(folder: Path, journal: Journal) -> None:
    """Keep the failures of finished shards, in order; what a kill left half-written goes."""
    path = folder / FAILURES
    if not path.exists():
        return
    found = (from_line(line) for line in path.read_bytes().splitlines(keepends=True))
    kept = {r["row"]: r for r in found if r is not None and r["shard"] in journal.shards}
    if kept:
        write_bytes(path, b"".join(to_line(kept[row]) for row in sorted(kept)))
    else:
        path.unlink()


def first_failure(folder: Path) -> str:
    """The error of the first row that failed, for messages."""
    with (folder / FAILURES).open("rb") as file:
        record = from_line(file.readline()) or {"id": "?", "error": "unknown"}
    return f"{record['error']} for id {record['id']!r}"


def check_shards(folder: Path, journal: Journal) -> None:
    """Compare the bytes of every finished shard with the journal.

    Raises:
        InputError: Naming each shard file that is missing, cut short or changed.
    """
    faults = []
    for shard, record in sorted(journal.shards.items()):
        path = shard_path(folder, shard)
        found = sha256_of(path) if path.exists() else None
        if found != record["sha256"]:
            what = "it is missing" if found is None else f"its bytes were changed ({found[:12]}…)"
            faults.append(
                f"Expected {path} as it was written (sha256 {record['sha256'][:12]}…), but {what}. "
                "Delete it and label again."
            )
    if faults:
        raise InputError(*faults)


def load_table(folder: Path) -> TeacherTable:
    """A teacher's table from its finished shards; values are mapped from disk, not read.

    Examples that failed are left out. Where there are several shards, or failures, the known rows
    are first copied into one file, a shard at a time.

    Raises:
        InputError: If labelling was not finished, or a file was changed.
    """
    journal = read_journal(folder)
    if journal is None:
        raise InputError(f"Expected labels in {folder}, but there are none. Label first.")
    if len(journal.shards) < journal.count:
        raise InputError(
            f"Expected {journal.count} shards in {folder}, but {len(journal.shards)} are finished. "
            "Label again with the same teacher and data; it goes on where it stopped."
        )
    check_shards(folder, journal)
    path = folder / IDS
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != journal.header["ids"]:
        raise InputError(
            f"Expected {path} as it was written (sha256 {journal.header['ids'][:12]}…), but it is "
            "missing or was changed. Label again with the same teacher and data, which writes it."
        )
    ids = pa.ipc.open_stream(data).read_all().column("id").to_pylist()
    return table_of(folder, journal, ids)


def table_of(folder: Path, journal: Journal, ids: Sequence[str]) -> TeacherTable:
    """As `load_table`, of shards that were checked, or written just now."""
    header = journal.header
    ids = tuple(ids)
    if any(record["failed"] for record in journal.shards.values()):
        known = torch.cat([_tensor(folder, k, "known") for k in range(journal.count)]).tolist()
        ids = tuple(compress(ids, known))
    if len(journal.shards) == 1 and len(ids) == header["rows"]:
        source = shard_path(folder, 0)
    else:
        source = _whole(folder, journal, len(ids))
    with safe_open(str(source), framework="pt") as file:
        values = file.get_tensor("values")
        kept = file.get_tensor("kept") if header["columns"]["kept"] else None
    columns = header["columns"]
    return TeacherTable(
        header["teacher"]["name"],
        values,
        ids,
        tuple(columns["classes"]),
        header["teacher"]["held_out"],
        header["teacher"]["family"],
        kept,
        columns["partial"],
        {key: tuple(meant) for key, meant in columns["covers"].items()},
    )


def _tensor(folder: Path, shard: int, key: str) -> Tensor:
    with safe_open(str(shard_path(folder, shard)), framework="pt") as file:
        return file.get_tensor(key)


def _whole(folder: Path, journal: Journal, rows: int) -> Path:
    """One file of all known rows, made of the shards unless it is there already."""
    path = folder / WHOLE
    if path.exists():
        with path.open("rb") as file:
            same = all(file.read(len(p)) == p for p in _pieces(folder, journal, rows))
            if same and not file.read(1):
                return path
    partial = path.with_name(f".{WHOLE}.partial")
    with partial.open("wb") as file:
        file.writelines(_pieces(folder, journal, rows))
    partial.rename(path)
    return path


def _pieces(folder: Path, journal: Journal, rows: int) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file of all known rows, a shard at a time."""
    keys = ["values"] + ["kept"] * bool(journal.header["columns"]["kept"])
    first = {key: _tensor(folder, 0, key) for key in keys}
    yield _header({key: (t.dtype, [rows, *t.shape[1:]]) for key, t in first.items()})
    for key in keys:
        for shard in range(journal.count):
            if journal.shards[shard]["failed"]:
                known = _tensor(folder, shard, "known")
                yield _bytes_of(_tensor(folder, shard, key)[known])
            else:
                yield _raw(shard_path(folder, shard), key)


def _raw(path: Path, key: str) -> bytes:
    """The bytes of one tensor of a shard."""
    with path.open("rb", buffering=0) as file:
        size = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(size))[key]["data_offsets"]
        file.seek(8 + size + begin)
        return file.read(end - begin)
