"""Proteins as inputs: a column of sequences, or FASTA."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from mtbkd.inputs.cache import cache_root
from mtbkd.inputs.columns import Table, first_faults
from mtbkd.inputs.kind import Encoder, InputKind, Rows
from mtbkd.inputs.proteins.backbone import load_backbone
from mtbkd.inputs.proteins.cleaning import clean
from mtbkd.inputs.proteins.embedding import embed
from mtbkd.inputs.proteins.features import sequence_features
from mtbkd.inputs.proteins.reading import ID_COLUMNS, SEQUENCE_COLUMNS, read_proteins
from mtbkd.types import InputError, Report

_END = 24  # residues shown of each end


def proteins(id_column: str, column: str) -> InputKind:
    """Sequences of proteins, of which hand-made features are made where there is no encoder.

    Args:
        id_column: The column of ids, in new rows.
        column: That of the sequences. Columns that have a usual name in an old file may have
            another usual one in a new file.
    """

    def check(examples: Table) -> Rows:
        found = clean(examples.ids, examples.words(column), str(examples.path))
        if found.faults:
            raise InputError(*first_faults(found.faults, str(examples.path)))
        place = examples.names.index(column)
        cells = examples.cells.set_column(place, column, [pa.array(found.sequences)])
        return Rows(
            ids=examples.ids,
            values=found.sequences,
            table=replace(examples, cells=cells),
            notes=found.notes,
        )

    def read(path: Path) -> Rows:
        found = read_proteins(
            path,
            id_column=None if id_column.casefold() in ID_COLUMNS else id_column,
            sequence_column=None if column.casefold() in SEQUENCE_COLUMNS else column,
        )
        return Rows(ids=found.ids, values=found.sequences, notes=found.notes)

    return InputKind(
        name="proteins",
        check=check,
        read=read,
        tensor=lambda sequences: torch.from_numpy(sequence_features(sequences)),
        scaling="clipped",
        draw=lambda rows, row, read: draw(rows.values[row]),
        find_encoder=find_encoder,
    )


def draw(sequence: str) -> str:
    """Both ends of a sequence and its length, as markup."""
    cut = len(sequence) > 2 * _END
    ends = f"{sequence[:_END]} … {sequence[-_END:]}" if cut else sequence
    return f"<code>{html.escape(ends)}</code><br>{len(sequence)} residues"


def find_encoder(name: str, device: str, recorded: dict[str, Any] | None) -> Encoder:
    """A protein language model, as it was recorded if it was.

    Raises:
        InputError: If it is not there.
    """
    known = recorded or {}
    backbone = load_backbone(
        name,
        device=device,
        precision=known.get("precision", "auto"),
        limit=known.get("limit"),
    )

    def encode(sequences: Sequence[str], report: Report) -> Tensor:
        return embed(backbone, sequences, cache=cache_root(), report=report)

    about = {
        "kind": "backbone",
        "model": backbone.name,
        "precision": backbone.precision,
        "limit": backbone.limit,
        "key": backbone.key(cache_root() / "digests"),
    }
    return Encoder(about, encode)
