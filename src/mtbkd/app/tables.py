"""Predictions as tables: Parquet, CSV or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mtbkd.explain.causes import Causes
from mtbkd.files import replacing
from mtbkd.observation.answers import rows_of
from mtbkd.predictive import Answer, LabelPredictive, NumberPredictive, Predictive
from mtbkd.types import Floats, InputError

SUFFIXES = (".parquet", ".csv", ".jsonl")

Columns = dict[str, Any]
_ROWS = 2**16


def prediction_table(
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    predictive: Answer,
    causes: Causes | None = None,
    extra: dict[str, NDArray[np.generic]] | None = None,
) -> pa.Table:
    """One row for each example.

    Classification: ``id``, ``prediction``, ``probability``, ``total``, ``aleatoric`` and
    ``epistemic`` uncertainty in nats, ``second``, the mean probability of a draw's second class,
    ``credible_set`` from the most probable class on; ``prob.C``, ``lower.C`` and ``upper.C`` for
    each class C.

    Multi-label: ``id``, ``labels`` (those of probability 0.5 or more, or, with causes, above their
    thresholds), ``total``, ``aleatoric`` and
    ``epistemic`` uncertainty in nats, summed over labels; ``prob.L``, ``lower.L`` and ``upper.L``
    for each label L.

    Regression: ``id``; ``mean.T``, ``sd.T``, ``lower.T``, ``upper.T``, ``aleatoric.T`` and
    ``epistemic.T`` for each target T. The last two are standard deviations in units of the target,
    as ``sd`` is: their squares sum to its square.

    With causes: ``flag``, why the answer is uncertain, else empty; ``reliable``, the probability
    that the whole answer is right; ``possible``, the classes or labels of the calibrated set;
    ``outside``, the conformal p-value that the example is like the calibration examples; and
    ``dissent`` and ``pool``, how much teachers disagree, and how probably their pool is right, on
    training examples that are answered alike (`mtbkd.explain.causes.Causes`). The extra columns,
    each of shape (example,), come last.
    """
    columns = _COLUMNS[type(predictive)](classes, predictive, causes)
    if causes is not None:
        columns |= _causes(classes, causes)
    columns = {"id": _texts(ids)} | columns
    columns = {k: _floats(v) if isinstance(v, np.ndarray) else v for k, v in columns.items()}
    return pa.table(columns | {k: pa.array(v) for k, v in (extra or {}).items()})


def _classes(names: tuple[str, ...], predictive: Predictive, _: Causes | None) -> Columns:
    top = predictive.probs.argmax(1)
    known = np.array(names, dtype=object)
    sets = predictive.credible_set(predictive.level)
    ranked = np.argsort(-predictive.probs, axis=1, kind="stable")
    columns: Columns = {
        "prediction": _texts(known[top].tolist()),
        "probability": predictive.probs.max(1),
        "total": predictive.total,
        "aleatoric": predictive.aleatoric,
        "epistemic": predictive.epistemic,
        "second": predictive.second,
        "credible_set": _lists(
            [known[row[inside[row]]].tolist() for row, inside in zip(ranked, sets, strict=True)]
        ),
    }
    return columns | _probabilities(names, predictive)


def _labels(names: tuple[str, ...], predictive: LabelPredictive, causes: Causes | None) -> Columns:
    yes = predictive.probs >= 0.5
    if causes is not None and causes.labels is not None:
        yes = causes.labels
    said = [[n for n, one in zip(names, row, strict=True) if one] for row in yes]
    columns: Columns = {
        "labels": _lists(said),
        "total": predictive.total.sum(1),
        "aleatoric": predictive.aleatoric.sum(1),
        "epistemic": predictive.epistemic.sum(1),
    }
    return columns | _probabilities(names, predictive)


def _numbers(names: tuple[str, ...], predictive: NumberPredictive, _: Causes | None) -> Columns:
    parts = {
        "mean": predictive.mean,
        "sd": np.sqrt(predictive.total),
        "lower": predictive.lower,
        "upper": predictive.upper,
        "aleatoric": np.sqrt(predictive.aleatoric),
        "epistemic": np.sqrt(predictive.epistemic),
    }
    return {
        f"{part}.{name}": values[:, i]
        for i, name in enumerate(names)
        for part, values in parts.items()
    }


_COLUMNS: dict[type, Callable[[tuple[str, ...], Any, Causes | None], Columns]] = {
    Predictive: _classes,
    LabelPredictive: _labels,
    NumberPredictive: _numbers,
}


def _causes(names: tuple[str, ...], causes: Causes) -> Columns:
    columns: Columns = {"flag": _texts(causes.flags), "outside": causes.outside}
    if causes.sets is not None:
        possible = [[n for n, yes in zip(names, row, strict=True) if yes] for row in causes.sets]
        columns |= {
            "reliable": causes.reliable,
            "possible": _lists(possible),
            "dissent": _floats(causes.dissent, known=~np.isnan(causes.dissent)),
            "pool": _floats(causes.pool, known=~np.isnan(causes.pool)),
        }
    return columns


def _probabilities(names: tuple[str, ...], predictive: Predictive | LabelPredictive) -> Columns:
    parts = {"prob": predictive.probs, "lower": predictive.lower, "upper": predictive.upper}
    return {
        f"{part}.{name}": values[:, i]
        for part, values in parts.items()
        for i, name in enumerate(names)
    }


def _floats(values: Floats, known: NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers as Arrow, null where not known.

    From buffers: `pyarrow.array` imports pandas where that is installed, for longer than a
    prediction takes.
    """
    validity = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    numbers = pa.py_buffer(np.ascontiguousarray(values, np.float64))
    return pa.Array.from_buffers(pa.float64(), len(values), [validity, numbers])


def _texts(texts: Sequence[str]) -> pa.Array:
    parts = [text.encode() for text in texts]
    buffers = [None, _ends(parts), pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _lists(rows: Sequence[Sequence[str]]) -> pa.Array:
    ends = pa.Array.from_buffers(pa.int32(), len(rows) + 1, [None, _ends(rows)])
    return pa.ListArray.from_arrays(ends, _texts([text for row in rows for text in row]))


def _ends(parts: Sequence[Sequence[Any]]) -> pa.Buffer:
    """Where each of them starts and the last one ends, if they follow each other."""
    return pa.py_buffer(np.cumsum([0, *map(len, parts)], dtype=np.int32))


def prediction_tables(
    ids: tuple[str, ...], classes: tuple[str, ...], predictive: Answer, causes: Causes
) -> Iterator[pa.Table]:
    """As `prediction_table`, some thousands of rows at a time."""
    for start in range(0, len(ids), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(ids)))
        some = ids[start : start + _ROWS]
        yield prediction_table(some, classes, rows_of(predictive, rows), causes.at(rows))


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
    """Write a table; the suffix says the format.

    Raises:
        InputError: If the suffix is unknown or the place cannot be written to.
    """
    write_tables(path, iter([table]))


def write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write tables of the same columns below each other; the suffix says the format.

    Raises:
        InputError: If the suffix is unknown or the place cannot be written to.
    """
    check_suffix(path)
    with replacing(path) as partial:
        if path.suffix == ".jsonl":
            with partial.open("w", encoding="utf-8") as file:
                for table in tables:
                    file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
            return
        flat = path.suffix == ".csv"
        tables = (_joined(table) if flat else table for table in tables)
        first = next(tables)
        write = pa_csv.CSVWriter if flat else pq.ParquetWriter
        with write(partial, first.schema) as file:
            for table in chain([first], tables):
                file.write_table(table)


def _joined(table: pa.Table) -> pa.Table:
    """CSV has no lists: sets become names with semicolons between."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            joined = ["; ".join(row) for row in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, _texts(joined))
    return table
