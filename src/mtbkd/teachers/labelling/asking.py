"""Asking a teacher about the examples of one shard, row by row where a batch fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from mtbkd.teachers.base import (
    Answered,
    CannotGoOn,
    Numbers,
    Teacher,
    as_numbers,
    finite_rows,
)
from mtbkd.teachers.labelling.convert import as_table, neutral
from mtbkd.teachers.labelling.shards import Journal, shard_path, write_shard
from mtbkd.types import InputError


@dataclass(frozen=True)
class Examples:
    """What is to be labelled, by any number of teachers.

    Attributes:
        ids: One for each example, all different.
        read: First row, and row after the last, to inputs as the teacher takes them.

    Raises:
        InputError: If there are no ids, or some more than once.
    """

    ids: Sequence[str]
    read: Callable[[int, int], Any]

    def __post_init__(self) -> None:
        if not len(self.ids) or len(set(self.ids)) < len(self.ids):
            repeated = next((k for k, n in Counter(self.ids).items() if n > 1), None)
            raise InputError(
                "Expected examples with different ids, but got "
                f"{'none' if repeated is None else f'{repeated!r} more than once'}. Correct them."
            )

    @cached_property
    def stored_ids(self) -> bytes:
        """The ids as an Arrow stream, the same bytes for the same ids."""
        batch = pa.record_batch({"id": pa.array(self.ids, pa.string())})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue().to_pybytes()


def label_shard(
    teacher: Teacher,
    source: Examples,
    folder: Path,
    journal: Journal,
    shard: int,
    *,
    batch_size: int,
    stop: Callable[[dict[int, str], int], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Label the rows of one shard and write its file.

    ``stop`` is told the errors by row, and the rows so far, when a batch fails; it may raise.

    Returns:
        The shard's record for the journal, and one record for each row that failed.
    """
    start, end = journal.bounds(shard)
    parts: list[Numbers] = []
    errors: dict[int, str] = {}
    for first in range(start, end, batch_size):
        last = min(first + batch_size, end)
        numbers, wrong = _ask(teacher, source, first, last)
        # a copy, since a teacher may write its next answer to the same memory
        parts.append((numbers[0].clone(), None if numbers[1] is None else numbers[1].clone()))
        if wrong:
            errors |= wrong
            if stop:
                stop(errors, last - start)
    numbers = _joined(parts)
    good = finite_rows(teacher, numbers)
    if not bool(good.all()):
        errors |= {start + int(row): "NaN or infinity" for row in (~good).nonzero()[:, 0]}
        for target, unsaid in zip(numbers, neutral(teacher, len(good)), strict=True):
            if target is not None and unsaid is not None:
                target[~good] = unsaid[~good].to(target.dtype)
    known = torch.ones(end - start, dtype=torch.bool)
    known[[row - start for row in errors]] = False
    table = as_table(teacher, numbers, source.ids[start:end])
    # counts become shares once all of them are there
    values = numbers[0] if teacher.kind == "counts" else table.values
    tensors = {"values": _cast(teacher, values, journal.header["dtype"]), "known": known}
    if table.kept is not None:
        tensors["kept"] = table.kept.int()
    digest = write_shard(shard_path(folder, shard), tensors)
    failures = [
        {"shard": shard, "row": row, "id": source.ids[row], "error": errors[row]}
        for row in sorted(errors)
    ]
    record = {"shard": shard, "rows": end - start, "failed": len(failures), "sha256": digest}
    return record, failures


def _cast(teacher: Teacher, values: Tensor, dtype: str) -> Tensor:
    cast = values.to(getattr(torch, dtype)).contiguous()
    if dtype == "float16" and bool((cast.isinf() & values.isfinite()).any()):
        raise InputError(
            f"Expected numbers of teacher {teacher.name!r} that float16 can hold, but got "
            f"{float(values.nan_to_num(0.0).abs().max()):.4g}. Label with dtype='float32'."
        )
    return cast


def _ask(
    teacher: Teacher, source: Examples, first: int, last: int
) -> tuple[Numbers, dict[int, str]]:
    """The numbers of some rows, and the errors of those that have none."""
    try:
        output = teacher.predict(source.read(first, last))
    except CannotGoOn:
        raise
    except Exception as error:  # whatever the teacher or the reader raises
        if last - first == 1:
            return neutral(teacher, 1), {first: f"{type(error).__name__}: {error}"}
        return _one_by_one(teacher, source, first, last)
    output, reasons = _parted(output)
    numbers = as_numbers(teacher, output, f"rows {first} to {last - 1}")
    if len(numbers[0]) != last - first:
        return _one_by_one(teacher, source, first, last)
    if reasons:
        rows = list(reasons)
        numbers[0][rows] = neutral(teacher, len(rows))[0].to(numbers[0].dtype)
    return numbers, {first + row: reason for row, reason in reasons.items()}


def _parted(output: object) -> tuple[object, Mapping[int, str]]:
    return (output.values, output.reasons) if isinstance(output, Answered) else (output, {})


def _one_by_one(
    teacher: Teacher, source: Examples, first: int, last: int
) -> tuple[Numbers, dict[int, str]]:
    rows: list[Numbers] = []
    errors: dict[int, str] = {}
    for row in range(first, last):
        try:
            output, reasons = _parted(teacher.predict(source.read(row, row + 1)))
            if reasons:
                raise ValueError(reasons[0])
            numbers = as_numbers(teacher, output, f"row {row}")
            if len(numbers[0]) != 1:
                raise ValueError(f"{len(numbers[0])} rows for 1 example")
        except CannotGoOn:
            raise
        except Exception as error:  # as above
            errors[row] = f"{type(error).__name__}: {error}"
            numbers = neutral(teacher, 1)
        rows.append(numbers)
    return _joined(rows), errors


def _joined(parts: Sequence[Numbers]) -> Numbers:
    values, variances = zip(*parts, strict=True)
    return torch.cat(values), None if variances[0] is None else torch.cat(variances)
