"""Predictions as tables: Parquet, CSV or JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mtbkd.predictive import Predictive
from mtbkd.types import InputError

SUFFIXES = (".parquet", ".csv", ".jsonl")


def prediction_table(
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    predictive: Predictive,
    extra: dict[str, NDArray[np.generic]] | None = None,
) -> pa.Table:
    """One row for each example.

    Columns: ``id``, ``prediction``, ``probability``, ``total``, ``aleatoric`` and ``epistemic``
    uncertainty in nats, ``credible_set`` from the most probable class on; ``prob.C``, ``lower.C``
    and ``upper.C`` for each class C; then the extra ones.

    Args:
        ids: Of the examples.
        classes: Names.
        predictive: Of these examples.
        extra: More columns, each of shape (example,).
    """
    top = predictive.probs.argmax(1)
    names = np.array(classes, dtype=object)
    sets = predictive.credible_set(predictive.level)
    ranked = np.argsort(-predictive.probs, axis=1, kind="stable")
    columns: dict[str, object] = {
        "id": pa.array(ids),
        "prediction": pa.array(names[top].tolist()),
        "probability": predictive.probs.max(1),
        "total": predictive.total,
        "aleatoric": predictive.aleatoric,
        "epistemic": predictive.epistemic,
        "credible_set": pa.array(
            [names[row[inside[row]]].tolist() for row, inside in zip(ranked, sets, strict=True)]
        ),
    }
    for prefix, values in (
        ("prob", predictive.probs),
        ("lower", predictive.lower),
        ("upper", predictive.upper),
    ):
        columns |= {f"{prefix}.{c}": values[:, i] for i, c in enumerate(classes)}
    return pa.table(columns | (extra or {}))


def check_suffix(path: Path) -> None:
    """Refuse a format that cannot be written.

    Raises:
        InputError: If the suffix is none of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"Expected an output ending in {', '.join(SUFFIXES)}, but got "
            f"{path.name!r}. Change its name."
        )


def write_table(path: Path, table: pa.Table) -> None:
    """Write under a temporary name, then rename; the suffix says the format.

    Raises:
        InputError: If the suffix is unknown or the place cannot be written to.
    """
    check_suffix(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix == ".parquet":
            pq.write_table(table, partial)
        elif path.suffix == ".csv":
            pa_csv.write_csv(_joined(table), partial)
        else:
            with partial.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"Expected to write {path}, but got: {error.strerror or error}. Choose another place."
        ) from None


def _joined(table: pa.Table) -> pa.Table:
    """CSV has no lists: sets become names with semicolons between."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            joined = ["; ".join(row) for row in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(joined))
    return table
