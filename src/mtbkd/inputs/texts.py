"""Texts as inputs: a column of them."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from torch import Tensor

from mtbkd.inputs.columns import Table
from mtbkd.inputs.kind import InputKind, Rows
from mtbkd.inputs.tables import read_table
from mtbkd.types import InputError

_LETTERS = 240


def texts(id_column: str, column: str) -> InputKind:
    """Rows of text.

    Args:
        id_column: The column of ids, in new rows.
        column: That of the texts.
    """

    def check(examples: Table) -> Rows:
        return Rows(
            ids=examples.ids, values=examples.words(column), about={"text": column}, table=examples
        )

    def read(path: Path) -> Rows:
        return check(read_table(path, "texts").with_ids(id_column, "Add it."))

    return InputKind(
        name="texts", check=check, read=read, tensor=_tensor, scaling="none", draw=_draw
    )


def shortened(text: str) -> str:
    """The start of a text as markup."""
    return html.escape(text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…")


def _tensor(values: Any) -> Tensor:
    raise InputError(
        f"Expected an encoder of {len(values)} texts, but got none. Name it with student.encoder."
    )


def _draw(rows: Rows, row: int, read: Tensor) -> str:
    del read
    return shortened(rows.values[row])
