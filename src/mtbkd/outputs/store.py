"""Teachers' outputs on disk: written some rows at a time, read as tensors mapped from the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.outputs.aligned import (
    Piece,
    TeacherOutputs,
    TeacherTable,
    aligned_pieces,
    plan_alignment,
)
from mtbkd.types import Family, InputError

StoredDtype = Literal["float32", "float16"]

_SHARD, _IDS, _MANIFEST = "outputs.safetensors", "ids.parquet", "manifest.json"
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_CODES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.bool: "BOOL",
}
_PIECE = 2**20  # bytes that are hashed at once
_ROWS = 2**22  # numbers that are written or hashed at once


def save_outputs(folder: Path, outputs: TeacherOutputs, dtype: StoredDtype = "float32") -> None:
    """Write values, mask, blocks and kept classes to one file, ids to another; a manifest last.

    Args:
        folder: Made if there is none.
        outputs: May be mapped from a file, this store's own too.
        dtype: Of the values. Half precision keeps log-probabilities to 0.01 nats at the floor and
            to a thousandth of their size elsewhere.

    Raises:
        InputError: If the values do not fit the precision, or the folder cannot be written to.
    """
    _write(folder, outputs, _pieces(outputs), dtype)


def align_to(
    folder: Path,
    tables: Sequence[TeacherTable],
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    *,
    missing: Literal["error", "mask"] = "error",
    top: int | None = None,
    dtype: StoredDtype = "float32",
) -> None:
    """Write what ``save_outputs(folder, align(…), dtype)`` writes, holding only some rows of it.

    Raises:
        InputError: As `mtbkd.outputs.align` and `save_outputs` do; nothing is written then.
    """
    alignment = plan_alignment(tables, ids, classes, missing=missing, top=top)
    _write(folder, alignment.layout, aligned_pieces(alignment), dtype)


def load_outputs(folder: Path) -> TeacherOutputs:
    """Read a store and check that its bytes are those that were written.

    Tensors are mapped from the file, of the types they were stored in: values of half or single
    precision, blocks and kept classes of the smallest integers that hold the number of classes.

    Raises:
        InputError: If the store is incomplete or was changed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        manifest = _read_manifest(folder)
        for name in (_SHARD, _IDS):
            digest, expected = _digest(folder / name), manifest["sha256"][name]
            if digest != expected:
                raise InputError(
                    f"Expected {folder / name} as it was written (sha256 {expected[:12]}…), but "
                    f"its bytes were changed ({digest[:12]}…). Delete {folder} and label again."
                )
        tensors = load_file(str(folder / _SHARD))
        ids = tuple(pq.read_table(folder / _IDS).column("id").to_pylist())
        outputs = TeacherOutputs(
            tuple(manifest["names"]),
            tensors["values"],
            tensors["mask"],
            ids,
            tuple(manifest["classes"]),
            manifest["held_out"],
            manifest["family"],
            tensors.get("blocks"),
            tensors.get("kept"),
        )
    except (OSError, ValueError, KeyError, RecursionError, SafetensorError, pa.ArrowException) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(
            f"Expected a store of teacher outputs in {folder}, but it is incomplete "
            f"({e}). Delete it and label again."
        ) from None
    _check_shapes(folder, outputs, manifest["dtype"])
    return outputs


def save_rows(path: Path, name: str, n_rows: int, parts: Iterable[Tensor]) -> None:
    """Write a tensor to a safetensors file some rows at a time, beside it first, then renamed.

    Args:
        path: Its folder is made if there is none.
        name: Of the tensor.
        n_rows: Of all parts together.
        parts: At least one, of single or half precision; only one is held at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            for number, part in enumerate(parts):
                if not number:
                    shape = (n_rows, *part.shape[1:])
                    size = n_rows * part[:1].numel() * part.element_size()
                    entry = {"dtype": _CODES[part.dtype], "shape": shape, "data_offsets": (0, size)}
                    file.write(_header({name: entry}))
                file.write(part.detach().cpu().contiguous().numpy().data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _header(entries: dict[str, Any]) -> bytes:
    """What a safetensors file begins with."""
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(outputs: TeacherOutputs) -> Iterator[Piece]:
    kept = outputs.kept
    step = max(1, _ROWS // max(1, outputs.values[0, :1].numel()))
    for k in range(len(outputs.names)):
        for start in range(0, len(outputs.ids), step):
            rows = slice(start, start + step)
            part = None if kept is None else kept[k, rows]
            yield Piece(k, start, outputs.values[k, rows], outputs.mask[k, rows], part)


def _write(
    folder: Path, layout: TeacherOutputs, pieces: Iterable[Piece], dtype: StoredDtype
) -> None:
    """Write a store of outputs of which only shapes, names and blocks are read from ``layout``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if dtype not in _DTYPES:
        raise InputError(
            f"Expected dtype among {', '.join(_DTYPES)}, but got {dtype!r}. Choose one of them."
        )
    partial = {n: folder / f".{n}.partial" for n in (_SHARD, _IDS, _MANIFEST)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_shard(partial[_SHARD], layout, pieces, dtype)
        table = pa.table({"id": pa.array(layout.ids, pa.string())})
        pq.write_table(table, partial[_IDS], compression="zstd", use_dictionary=False)
        manifest = {
            "family": layout.family,
            "names": list(layout.names),
            "classes": list(layout.classes),
            "held_out": layout.held_out,
            "dtype": dtype,
            "sha256": {n: _digest(partial[n]) for n in (_SHARD, _IDS)},
        }
        partial[_MANIFEST].write_bytes(_render(manifest))
        for name, path in partial.items():
            path.rename(folder / name)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"Expected to write teacher outputs to {folder}, but got: {error}. Choose another "
            "place, or make room."
        ) from None
    finally:
        for path in partial.values():
            if path.exists():
                path.unlink()


def _write_shard(
    path: Path, layout: TeacherOutputs, pieces: Iterable[Piece], dtype: StoredDtype
) -> None:
    """A safetensors file whose values are written where they belong as they come."""
    small = torch.int16 if len(layout.classes) < 2**15 else torch.int32
    wanted = {
        "values": (tuple(layout.values.shape), _DTYPES[dtype]),
        "mask": (tuple(layout.mask.shape), torch.bool),
    }
    for name, tensor in (("blocks", layout.blocks), ("kept", layout.kept)):
        if tensor is not None:
            wanted[name] = (tuple(tensor.shape), small)
    header, offset, start_of = {}, 0, {}
    for name, (shape, kind) in sorted(wanted.items(), key=lambda i: (-i[1][1].itemsize, i[0])):
        size = torch.Size(shape).numel() * kind.itemsize
        header[name] = {
            "dtype": _CODES[kind],
            "shape": shape,
            "data_offsets": (offset, offset + size),
        }
        start_of[name] = offset
        offset += size
    start = _header(header)
    data = len(start)
    with path.open("wb") as file:
        file.write(start)

        def put(name: str, teacher: int, start: int, tensor: Tensor) -> None:
            shape, kind = wanted[name]
            row = torch.Size(shape[2:]).numel() * kind.itemsize
            file.seek(data + start_of[name] + (teacher * shape[1] + start) * row)
            file.write(tensor.detach().cpu().to(kind).contiguous().numpy().data)

        for piece in pieces:
            if dtype == "float16":
                _check_half(layout, piece)
            put("values", piece.teacher, piece.start, piece.values)
            put("mask", piece.teacher, piece.start, piece.mask)
            if piece.kept is not None:
                put("kept", piece.teacher, piece.start, piece.kept)
        if layout.blocks is not None:
            file.seek(data + start_of["blocks"])
            file.write(layout.blocks.cpu().to(small).contiguous().numpy().data)


def _check_half(layout: TeacherOutputs, piece: Piece) -> None:
    large = piece.values.abs() > torch.finfo(torch.float16).max
    if large.any():
        row = piece.start + int(large.nonzero()[0, 0])
        raise InputError(
            f"Expected values of teacher {layout.names[piece.teacher]!r} that half precision "
            f"holds, but got {piece.values[large][0]:.4g} for id {layout.ids[row]!r}. Save as "
            "float32."
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _render(manifest: dict[str, Any]) -> bytes:
    """The manifest's bytes, its last key a hash of all others."""
    own = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return (json.dumps(manifest | {"own_sha256": own}, indent=1) + "\n").encode()


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, if it is one and its bytes are those that were written."""
    path = folder / _MANIFEST
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"Expected a store of teacher outputs in {folder}, but it is incomplete: {path} is no "
            f"JSON ({error}). Delete it and label again."
        ) from None
    if not isinstance(manifest, dict):
        manifest = {}
    kinds: dict[str, type] = {
        "family": str,
        "names": list,
        "classes": list,
        "held_out": bool,
        "dtype": str,
        "sha256": dict,
        "own_sha256": str,
    }
    faults = [
        f"Expected a store of teacher outputs in {folder}, but it is incomplete or of another "
        f"version: {path} has no {kind.__name__} {key!r}. Delete {folder} and label again."
        for key, kind in kinds.items()
        if type(manifest.get(key)) is not kind
    ]
    if faults:
        raise InputError(*faults)
    names = [*manifest["names"], *manifest["classes"], *manifest["sha256"].values()]
    content_of = {key: value for key, value in manifest.items() if key != "own_sha256"}
    well_formed = (
        all(isinstance(name, str) for name in names)
        and manifest["family"] in get_args(Family)
        and manifest["dtype"] in _DTYPES
        and set(manifest["sha256"]) == {_SHARD, _IDS}
        and set(manifest) == set(kinds)
    )
    if not well_formed or _render(content_of) != content:
        raise InputError(
            f"Expected {path} as it was written, but its bytes were changed. Delete {folder} and "
            "label again."
        )
    return manifest


def _check_shapes(folder: Path, outputs: TeacherOutputs, dtype: str) -> None:
    """Refuse files of which each is what was written, but not all in one store."""
    n_teachers, n_rows, n_classes = len(outputs.names), len(outputs.ids), len(outputs.classes)
    mask = (n_teachers, n_rows)
    width = n_classes if outputs.kept is None else outputs.kept.shape[-1] + 1
    values = (*mask, width)
    if outputs.family != "classification":
        mask = (*mask, n_classes)
        values = (*mask, 2)
    found = {"values": outputs.values, "mask": outputs.mask}
    wanted: dict[str, tuple[int, ...]] = {"values": values, "mask": mask}
    if outputs.blocks is not None:
        found["blocks"], wanted["blocks"] = outputs.blocks, (n_teachers, n_classes)
    if outputs.kept is not None:
        found["kept"], wanted["kept"] = outputs.kept, (n_teachers, n_rows, width - 1)
    wrong = [name for name in found if tuple(found[name].shape) != wanted[name]]
    if wrong or outputs.values.dtype != _DTYPES[dtype]:
        name = (wrong or ["values"])[0]
        raise InputError(
            f"Expected {name} of shape {wanted[name]} in {folder / _SHARD}, as {_MANIFEST} says, "
            f"but got {tuple(found[name].shape)} of {found[name].dtype}. Delete {folder} and label "
            "again."
        )
