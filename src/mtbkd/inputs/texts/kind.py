"""Texts as inputs: a column of them, or a file with a text a line."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from torch import Tensor

from mtbkd.inputs.columns import Table
from mtbkd.inputs.kind import Fitting, InputKind, Rows
from mtbkd.inputs.texts.encoder import find_encoder
from mtbkd.inputs.texts.ngrams import NGrams, fit_ngrams
from mtbkd.inputs.texts.reading import read_texts, texts_of

_LETTERS = 240


def texts(id_column: str, column: str) -> InputKind:
    """Rows of text, of which n-grams are counted where there is no encoder.

    Args:
        id_column: The column of ids, in new rows.
        column: That of the texts.
    """

    def check(examples: Table) -> Rows:
        return Rows(
            ids=examples.ids,
            values=texts_of(examples, column),
            about={"text": column},
            table=examples,
        )

    def read(path: Path) -> Rows:
        return check(read_texts(path, id_column, column))

    return InputKind(
        name="texts",
        check=check,
        read=read,
        tensor=_unfitted,
        scaling="none",
        draw=lambda rows, row, read: shortened(rows.values[row]),
        find_encoder=find_encoder,
        fitting=Fitting(
            fit=lambda values, seed: fit_ngrams(values, seed=seed).tensors(),
            tensor=lambda tensors, values: NGrams(**tensors).features(values),
        ),
    )


def shortened(text: str) -> str:
    """The start of a text as markup."""
    return html.escape(text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…")


def _unfitted(values: Any) -> Tensor:
    raise ValueError(f"n-grams of {len(values)} texts are asked for before any were chosen")
