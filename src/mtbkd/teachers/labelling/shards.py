"""Labels on disk: shards, the journal that says which are finished, and the failures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mtbkd.files import append_bytes, save_tensors, sha256_of, write_bytes
from mtbkd.types import InputError, refuse

JOURNAL, FAILURES, IDS = "journal.jsonl", "failures.jsonl", "ids.arrow"


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
    """Write a shard; gives the SHA-256 of its bytes."""
    save_tensors(path, tensors)
    return sha256_of(path)


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
    append_bytes(path, b"".join(map(to_line, records)))


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


def failure_reasons(folder: Path) -> Counter[str]:
    """How many rows failed for each reason, without what is said of one row alone."""
    path = folder / FAILURES
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    records = (from_line(line) for line in lines)
    return Counter(r["error"].partition(", such as ")[0] for r in records if r is not None)


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
    refuse(*faults)
