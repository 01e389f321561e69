"""Finished labels as a table, mapped from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import safe_open
from torch import Tensor

from mtbkd.files import Layout, Pieces, bytes_of, fill, load_tensors, replacing
from mtbkd.outputs.aligned import TeacherTable, make_table
from mtbkd.teachers.labelling.shards import IDS, Journal, check_shards, read_journal, shard_path
from mtbkd.types import InputError

WHOLE = "values.safetensors"


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
    columns, said = header["columns"], header["teacher"]
    if said["kind"] == "counts":
        more = {key: said[key] for key in ("held_out", "partial", "class_map", "merge")}
        more["group"] = said.get("group", "")
        name, classes = said["name"], said["classes"]
        return make_table(name, values, kind="counts", ids=ids, classes=classes, **more)
    return TeacherTable(
        name=said["name"],
        values=values,
        ids=ids,
        classes=tuple(columns["classes"]),
        held_out=said["held_out"],
        family=said["family"],
        kept=kept,
        partial=columns["partial"],
        covers={key: tuple(meant) for key, meant in columns["covers"].items()},
        group=said.get("group", ""),
    )


def _tensor(folder: Path, shard: int, key: str) -> Tensor:
    with safe_open(str(shard_path(folder, shard)), framework="pt") as file:
        return file.get_tensor(key)


def _whole(folder: Path, journal: Journal, rows: int) -> Path:
    """One file of all known rows, made of the shards unless it is there already."""
    path = folder / WHOLE
    keys = ["values"] + ["kept"] * bool(journal.header["columns"]["kept"])
    first = {key: _tensor(folder, 0, key) for key in keys}
    layout = {key: (t.dtype, (rows, *t.shape[1:])) for key, t in first.items()}
    if not (path.exists() and _holds(path, layout, _pieces(folder, journal, keys))):
        with replacing(path) as partial:
            fill(partial, WHOLE, layout, _pieces(folder, journal, keys))
    return path


def _holds(path: Path, layout: Layout, pieces: Pieces) -> bool:
    """Whether a file is one of these tensors."""
    try:
        found = load_tensors(path)
    except InputError:
        return False
    return {key: (t.dtype, tuple(t.shape)) for key, t in found.items()} == layout and all(
        bytes_of(found[key].reshape(-1)[start : start + part.numel()]) == bytes_of(part)
        for key, start, part in pieces
    )


def _pieces(folder: Path, journal: Journal, keys: Sequence[str]) -> Pieces:
    """The known rows, a shard at a time."""
    for key in keys:
        start = 0
        for shard in range(journal.count):
            part = _tensor(folder, shard, key)
            if journal.shards[shard]["failed"]:
                part = part[_tensor(folder, shard, "known")]
            yield key, start, part
            start += part.numel()
