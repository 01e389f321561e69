"""Teachers' outputs on disk: written some rows at a time, read as tensors mapped from the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mtbkd.files import (
    check_hash,
    fill,
    load_tensors,
    read_sealed,
    replacing,
    sealed,
    sha256_of,
)
from mtbkd.observation.base import cell_shape, value_shape
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
_KEYS = ["family", "names", "classes", "held_out", "dtype", "sha256"]
_ROWS = 2**22  # numbers that are written at once


def save_outputs(folder: Path, outputs: TeacherOutputs, dtype: StoredDtype = "float32") -> None:
    """Write values, mask, blocks, kept and totals to one file, ids to another; a manifest last.

    Args:
        folder: Made if there is none.
        outputs: May be mapped from a file, this store's own too.
        dtype: Type of the values. Half precision keeps log-probabilities to 0.01 nats at the floor
            and to a thousandth of their size elsewhere.

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
    import pyarrow.parquet as pq

    manifest, then = read_manifest(folder), _advice(folder)
    check_hash(folder / _IDS, manifest["sha256"][_IDS], then)
    tensors = load_tensors(folder / _SHARD, manifest["sha256"][_SHARD], then=then)
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
        tensors.get("totals"),
        tensors.get("groups"),
    )
    _check_shapes(folder, outputs, manifest["dtype"])
    return outputs


def _pieces(outputs: TeacherOutputs) -> Iterator[Piece]:
    kept, totals = outputs.kept, outputs.totals
    step = max(1, _ROWS // max(1, outputs.values[0, :1].numel()))
    for k in range(len(outputs.names)):
        for start in range(0, len(outputs.ids), step):
            rows = slice(start, start + step)
            yield Piece(
                teacher=k,
                start=start,
                values=outputs.values[k, rows],
                mask=outputs.mask[k, rows],
                kept=None if kept is None else kept[k, rows],
                totals=None if totals is None else totals[k, rows],
            )


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
    small = torch.int16 if len(layout.classes) < 2**15 else torch.int32
    wanted = {
        "values": (_DTYPES[dtype], layout.values.shape),
        "mask": (torch.bool, layout.mask.shape),
    }
    for name, tensor in (("blocks", layout.blocks), ("kept", layout.kept)):
        if tensor is not None:
            wanted[name] = (small, tensor.shape)
    if layout.totals is not None:
        wanted["totals"] = (torch.float32, layout.totals.shape)
    if layout.groups is not None:
        wanted["groups"] = (torch.int16, layout.groups.shape)

    def parts() -> Iterator[tuple[str, int, Tensor]]:
        for piece in pieces:
            if dtype == "float16":
                _check_half(layout, piece)
            row = piece.teacher * len(layout.ids) + piece.start
            for name in ("values", "mask", "kept", "totals"):
                tensor = getattr(piece, name)
                if tensor is not None:
                    yield name, row * torch.Size(wanted[name][1][2:]).numel(), tensor
        if layout.blocks is not None:
            yield "blocks", 0, layout.blocks
        if layout.groups is not None:
            yield "groups", 0, layout.groups

    try:
        texts = pa.array(layout.ids, pa.string())
    except UnicodeError as error:
        raise InputError(f"Expected ids of Unicode text, but got: {error}. Mend them.") from None
    with (  # renamed from the last to the first
        replacing(folder / _MANIFEST) as manifest,
        replacing(folder / _IDS) as ids,
        replacing(folder / _SHARD) as shard,
    ):
        fill(shard, _SHARD, wanted, parts())
        table = pa.table({"id": texts})
        pq.write_table(table, ids, compression="zstd", use_dictionary=False)
        record = {
            "family": layout.family,
            "names": list(layout.names),
            "classes": list(layout.classes),
            "held_out": layout.held_out,
            "dtype": dtype,
            "sha256": {_SHARD: sha256_of(shard), _IDS: sha256_of(ids)},
        }
        manifest.write_bytes(sealed(record))


def _check_half(layout: TeacherOutputs, piece: Piece) -> None:
    large = piece.values.abs() > torch.finfo(torch.float16).max
    if large.any():
        row = piece.start + int(large.nonzero()[0, 0])
        raise InputError(
            f"Expected values of teacher {layout.names[piece.teacher]!r} that half precision "
            f"holds, but got {piece.values[large][0]:.4g} for id {layout.ids[row]!r}. Save as "
            "float32."
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a store says of itself.

    Raises:
        InputError: If it is incomplete or was changed.
    """
    path = folder / _MANIFEST
    manifest = read_sealed(path, _advice(folder))
    kinds = [str, list, list, bool, str, dict]
    well_formed = [type(value) for value in manifest.values()] == kinds and list(manifest) == _KEYS
    if well_formed:
        names = [*manifest["names"], *manifest["classes"], *manifest["sha256"].values()]
        well_formed = (
            all(isinstance(name, str) for name in names)
            and manifest["family"] in get_args(Family)
            and manifest["dtype"] in _DTYPES
            and set(manifest["sha256"]) == {_SHARD, _IDS}
        )
    if not well_formed:
        raise InputError(
            f"Expected the manifest of a store of teacher outputs in {path}, but got "
            f"{', '.join(map(repr, manifest)) or 'nothing'}, with values of another version. "
            f"{_advice(folder)}"
        )
    return manifest


def _advice(folder: Path) -> str:
    return f"Delete {folder} and label again."


def _check_shapes(folder: Path, outputs: TeacherOutputs, dtype: str) -> None:
    """Refuse files of which each is what was written, but not all in one store."""
    n_teachers, n_rows, n_classes = len(outputs.names), len(outputs.ids), len(outputs.classes)
    found = {"values": outputs.values, "mask": outputs.mask}
    wanted: dict[str, tuple[int, ...]] = {
        "values": (n_teachers, n_rows, *value_shape(outputs.outcome, n_classes)),
        "mask": (n_teachers, n_rows, *cell_shape(outputs.outcome, n_classes)),
    }
    if outputs.totals is not None:
        found["totals"], wanted["totals"] = outputs.totals, (n_teachers, n_rows)
    if outputs.groups is not None:
        found["groups"], wanted["groups"] = outputs.groups, (n_teachers,)
    if outputs.blocks is not None:
        found["blocks"], wanted["blocks"] = outputs.blocks, (n_teachers, n_classes)
    if outputs.kept is not None:
        n_kept = outputs.kept.shape[-1]
        found["kept"], wanted["kept"] = outputs.kept, (n_teachers, n_rows, n_kept)
        wanted["values"] = (n_teachers, n_rows, n_kept + 1)
    wrong = [name for name in found if tuple(found[name].shape) != wanted[name]]
    if wrong or outputs.values.dtype != _DTYPES[dtype]:
        name = (wrong or ["values"])[0]
        raise InputError(
            f"Expected {name} of shape {wanted[name]} in {folder / _SHARD}, as {_MANIFEST} says, "
            f"but got {tuple(found[name].shape)} of {found[name].dtype}. Delete {folder} and label "
            "again."
        )
