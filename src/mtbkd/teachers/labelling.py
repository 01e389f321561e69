"""Asking a teacher about all examples, shard by shard, so that a kill costs one shard at most."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from torch import Tensor

from mtbkd.outputs import TeacherTable
from mtbkd.teachers.base import Numbers, Teacher, as_numbers, finite_rows
from mtbkd.teachers.convert import as_table, neutral
from mtbkd.teachers.shards import (
    FAILURES,
    IDS,
    JOURNAL,
    Journal,
    append,
    check_shards,
    first_failure,
    read_journal,
    settle_failures,
    shard_path,
    table_of,
    write_bytes,
    write_journal,
    write_shard,
)
from mtbkd.types import InputError, check_positive

Dtype = Literal["float32", "float16", "bfloat16"]
Report = Callable[[str, int, int], None]
"""Name of the teacher, rows labelled, rows in all."""

_ENOUGH = 100
"""Rows before the share of failures is judged."""


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


def label(
    teacher: Teacher,
    source: Examples,
    folder: Path,
    *,
    shard_rows: int = 4096,
    batch_size: int = 256,
    dtype: Dtype = "float32",
    most_failures: float = 0.01,
    report: Report | None = None,
) -> TeacherTable:
    """Ask a teacher about every example and keep what it says.

    Killed at any moment and called again it goes on, labels at most one shard twice, and ends with
    the bytes of a run that was not killed. A batch that raises is asked again row by row; a row
    that fails is left missing and named in ``failures.jsonl``.

    Args:
        teacher: Whom to ask.
        source: The examples.
        folder: Holds the shards, the journal and the failures. One teacher, one folder.
        shard_rows: Rows of a file.
        batch_size: Rows of one call of the teacher.
        dtype: Of the values stored.
        most_failures: Stop when a larger share of the rows labelled so far has failed.
        report: Told after each shard.

    Returns:
        The table, mapped from disk, without the rows that failed.

    Raises:
        InputError: If the folder holds another teacher's labels, labels of other data, or a shard
            that was changed; if the numbers are not what the teacher declares, or their width
            changes; if too many rows fail. Finished shards stay.
    """
    check_positive(batch_size=batch_size)
    share = most_failures
    journal = open_journal(teacher, source, folder, shard_rows=shard_rows, dtype=dtype)
    rows, failed = tally(journal)
    if report:
        report(teacher.name, rows, len(source.ids))
    for shard in range(journal.count):
        if shard in journal.shards:
            continue

        def stop(errors: dict[int, str], done: int, rows: int = rows, failed: int = failed) -> None:
            if errors and rows + done >= _ENOUGH:
                reason = None if failed else _reason(source, errors)
                judge(teacher.name, folder, failed + len(errors), rows + done, share, reason)

        record, failures = label_shard(
            teacher, source, folder, journal, shard, batch_size=batch_size, stop=stop
        )
        enter(folder, journal, record, failures)
        rows, failed = rows + record["rows"], failed + record["failed"]
        if failed and rows >= _ENOUGH:
            judge(teacher.name, folder, failed, rows, share)
        if report:
            report(teacher.name, rows, len(source.ids))
    return close(teacher.name, folder, journal, source, share)


def _reason(source: Examples, errors: dict[int, str]) -> str:
    first = min(errors)
    return f"{errors[first]} for id {source.ids[first]!r}"


def open_journal(
    teacher: Teacher, source: Examples, folder: Path, *, shard_rows: int, dtype: str
) -> Journal:
    """Begin a folder of labels, or find out how far it got.

    Raises:
        InputError: If it holds other labels, or a finished shard was changed.
    """
    check_positive(shard_rows=shard_rows)
    if dtype not in ("float32", "float16", "bfloat16"):
        raise InputError(
            f"Expected dtype float32, float16 or bfloat16, but got {dtype!r}. Choose one."
        )
    data = source.stored_ids
    sample = as_table(teacher, neutral(teacher, 1), ["0"])
    header = {
        "teacher": teacher.declaration(),
        "columns": {
            "classes": list(sample.classes),
            "covers": {key: list(meant) for key, meant in sample.covers.items()},
            "partial": sample.partial,
            "kept": sample.kept is not None,
        },
        "rows": len(source.ids),
        "ids": hashlib.sha256(data).hexdigest(),
        "shard_rows": shard_rows,
        "dtype": dtype,
    }
    folder.mkdir(parents=True, exist_ok=True)
    journal = read_journal(folder)
    if journal is not None:
        _same(folder, journal.header, header)
        found = {k: r for k, r in journal.shards.items() if shard_path(folder, k).exists()}
        journal = Journal(journal.header, found)
        check_shards(folder, journal)
    else:
        journal = Journal(header, {})
    write_bytes(folder / IDS, data)
    write_journal(folder, journal)
    settle_failures(folder, journal)
    return journal


def _same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to go on with other labels.

    Raises:
        InputError: Naming what differs.
    """
    before, after = dict(old), json.loads(json.dumps(new))
    faults = []
    teachers = before.pop("teacher"), after.pop("teacher")
    for key in teachers[1]:
        if teachers[0].get(key) != teachers[1][key]:
            faults.append(
                f"Expected the teacher whose labels are in {folder}, with {key} "
                f"{teachers[0].get(key)!r}, but got {teachers[1][key]!r}. Choose another folder, "
                "or delete it."
            )
    for key in after:
        if before.get(key) != after[key] and not (key == "columns" and faults):
            faults.append(
                f"Expected the data and settings of the labels in {folder}, but {key} differ: "
                f"{before.get(key)!r} there and {after[key]!r} now. Choose another folder, or "
                "delete it."
            )
    if faults:
        raise InputError(*faults)


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

    Args:
        teacher: Whom to ask.
        source: The examples.
        folder: Of the shards.
        journal: Says which rows, and in which form.
        shard: Which one.
        batch_size: Rows of one call.
        stop: Told the errors by row, and the rows so far, when a batch fails; it may raise.

    Returns:
        The shard's record for the journal, and one record for each row that failed.
    """
    start, end = journal.bounds(shard)
    into: Numbers | None = None
    errors: dict[int, str] = {}
    for first in range(start, end, batch_size):
        last = min(first + batch_size, end)
        numbers, wrong = _ask(teacher, source, first, last)
        if into is None:
            into = tuple(n if n is None else n.new_empty(end - start, n.shape[1]) for n in numbers)  # type: ignore[assignment]
        for given, target in zip(numbers, into, strict=True):
            if given is not None and target is not None:
                target[first - start : last - start] = given
        if wrong:
            errors |= wrong
            if stop:
                stop(errors, last - start)
    assert into is not None
    good = finite_rows(teacher, into)
    if not bool(good.all()):
        bad = (~good).nonzero()[:, 0]
        errors |= {start + row: "NaN or infinity" for row in bad.tolist()}
        for target, unsaid in zip(into, neutral(teacher, len(bad)), strict=True):
            if target is not None and unsaid is not None:
                target[bad] = unsaid.to(target.dtype)
    known = torch.ones(end - start, dtype=torch.bool)
    known[[row - start for row in errors]] = False
    table = as_table(teacher, into, source.ids[start:end])
    tensors = {"values": _cast(teacher, table.values, journal.header["dtype"]), "known": known}
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
    except Exception as error:  # whatever the teacher or the reader raises
        if last - first == 1:
            return neutral(teacher, 1), {first: f"{type(error).__name__}: {error}"}
        return _one_by_one(teacher, source, first, last)
    numbers = as_numbers(teacher, output, f"rows {first} to {last - 1}")
    if len(numbers[0]) != last - first:
        return _one_by_one(teacher, source, first, last)
    return numbers, {}


def _one_by_one(
    teacher: Teacher, source: Examples, first: int, last: int
) -> tuple[Numbers, dict[int, str]]:
    rows: list[Numbers] = []
    errors: dict[int, str] = {}
    for row in range(first, last):
        try:
            output = teacher.predict(source.read(row, row + 1))
            numbers = as_numbers(teacher, output, f"row {row}")
            if len(numbers[0]) != 1:
                raise ValueError(f"{len(numbers[0])} rows for 1 example")
        except Exception as error:  # as above
            errors[row] = f"{type(error).__name__}: {error}"
            numbers = neutral(teacher, 1)
        rows.append(numbers)
    values, variances = zip(*rows, strict=True)
    return (torch.cat(values), torch.cat(variances) if teacher.variance else None), errors


def enter(
    folder: Path, journal: Journal, record: dict[str, Any], failures: list[dict[str, Any]]
) -> None:
    """Write down that a shard is finished, its failures first."""
    if failures:
        append(folder / FAILURES, failures)
    append(folder / JOURNAL, [record])
    journal.shards[record["shard"]] = record


def tally(journal: Journal) -> tuple[int, int]:
    """Rows labelled, and rows that failed."""
    records = journal.shards.values()
    return sum(r["rows"] for r in records), sum(r["failed"] for r in records)


def judge(
    name: str,
    folder: Path,
    failed: int,
    rows: int,
    most: float,
    reason: str | None = None,
) -> None:
    """Stop if too large a share of the rows has failed.

    Raises:
        InputError: Saying how many, and why the first did.
    """
    if failed <= most * rows:
        return
    raise InputError(
        f"Expected at most {most:.2%} of the rows to fail for teacher {name!r}, but {failed} of "
        f"{rows} did; the first: {reason or first_failure(folder)}. Mend the teacher or these "
        f"examples and delete {folder}, or raise most_failures."
    )


def close(
    name: str, folder: Path, journal: Journal, source: Examples, most_failures: float
) -> TeacherTable:
    """Put the journal in order, judge the failures and load the table.

    Raises:
        InputError: If too many rows failed.
    """
    write_journal(folder, journal)
    settle_failures(folder, journal)
    rows, failed = tally(journal)
    judge(name, folder, failed, rows, most_failures)
    if failed == rows:
        raise InputError(
            f"Expected labels from teacher {name!r}, but every row failed; the first: "
            f"{first_failure(folder)}. Mend the teacher and delete {folder}."
        )
    return table_of(folder, journal, source.ids)
