"""Numeric columns of a table as inputs."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtbkd.inputs.columns import Table, few
from mtbkd.inputs.kind import InputKind, Rows
from mtbkd.inputs.tables import read_table
from mtbkd.types import InputError

_SHOWN = 5


def numbers(
    id_column: str, columns: Sequence[str] | None = None, taken: Collection[str] = ()
) -> InputKind:
    """Rows of numbers.

    Args:
        id_column: The column of ids, in new rows.
        columns: Those that are read; all that hold numbers if not given, but of new rows none.
        taken: Columns that are something else.
    """

    def check(examples: Table) -> Rows:
        names, notes = (columns, ()) if columns else _found(examples, taken)
        return Rows(
            ids=examples.ids,
            values=examples.matrix(names),
            about={"features": list(names)},
            table=examples,
            notes=notes,
        )

    def read(path: Path) -> Rows:
        examples = read_table(path, "examples").with_ids(id_column, "Add it.")
        names = columns or []
        lacking = examples.lacking(names)
        if lacking:
            raise InputError(
                f"Expected the columns {few(names)} in {path}, but {few(lacking)} "
                f"{'is' if len(lacking) == 1 else 'are'} missing. Add "
                f"{'it' if len(lacking) == 1 else 'them'}."
            )
        return Rows(ids=examples.ids, values=examples.matrix(names))

    return InputKind(
        name="numbers",
        check=check,
        read=read,
        tensor=torch.from_numpy,
        scaling="columns",
        draw=_draw,
    )


def _draw(rows: Rows, row: int, read: Tensor) -> str:
    """The most unusual columns, which the student reads in standard deviations."""
    del row
    names, deviations = rows.about["features"], read.numpy()
    unusual = np.argsort(-np.abs(deviations), kind="stable")[:_SHOWN]
    return "<br>".join(
        f"<code>{html.escape(names[i])} {deviations[i]:+.1f} sd</code>" for i in unusual
    )


def _found(examples: Table, taken: Collection[str]) -> tuple[list[str], tuple[str, ...]]:
    """The numeric columns, and a note on those that nearly are.

    Raises:
        InputError: If there are none.
    """
    found, partly = examples.numeric(name for name in examples.names if name not in taken)
    if not found:
        raise InputError(
            f"Expected numeric columns for the student in {examples.path}, but got "
            f"{few(partly) or 'none'}. Add them, for instance the features of an encoder; of "
            "proteins, images or texts, name their column with own.sequence, own.image or own.text."
        )
    if not partly:
        return found, ()
    note = (
        f"The student does not read these columns of {examples.path}, in which not every cell is a "
        f"number: {few(partly)}. Correct them, or choose columns with own.features."
    )
    return found, (note,)
