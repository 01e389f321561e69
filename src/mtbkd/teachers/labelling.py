"""Asking a teacher about all examples, shard by shard, so that a kill costs one shard at most."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
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
    load_table,
    read_journal,
    settle_failures,
    shard_path,
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
    """What is to be labelled.

    Attributes:
        ids: One for each example.
        read: First row, and row after the last, to inputs as the teacher takes them.
    """

    ids: Sequence[str]
    read: Callable[[int, int], Any]


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
    journal = open_journal(teacher, source, folder, shard_rows=shard_rows, dtype=dtype)
    rows, failed = tally(journal)
    if report:
        report(teacher.name, rows, len(source.ids))
    for shard in range(journal.count):
        if shard in journal.shards:
            continue

        def stop(fails: list[dict[str, Any]], done: int, rows: int = rows, failed: int = failed):
            if fails and done + rows >= _ENOUGH:
                judge(teacher.name, folder, failed + len(fails), rows + done, most_failures, fails)

        record, failures = label_shard(
            teacher, source, folder, journal, shard, batch_size=batch_size, stop=stop
        )
        enter(folder, journal, record, failures)
        rows, failed = tally(journal)
        if report:
            report(teacher.name, rows, len(source.ids))
    return close(teacher.name, folder, journal, most_failures)


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
    if not len(source.ids) or len(set(source.ids)) < len(source.ids):
        raise InputError(
            f"Expected examples with different ids for teacher {teacher.name!r}, but got "
            f"{len(set(source.ids))} different among {len(source.ids)}. Correct the ids."
        )
    data = json.dumps(list(source.ids)).encode()
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
    stop: Callable[[list[dict[str, Any]], int], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Label the rows of one shard and write its file.

    Args:
        teacher: Whom to ask.
        source: The examples.
        folder: Of the shards.
        journal: Says which rows, and in which form.
        shard: Which one.
        batch_size: Rows of one call.
        stop: Told the failures and the rows so far, after each batch; it may raise.

    Returns:
        The shard's record for the journal, and one record for each row that failed.
    """
    start, end = journal.bounds(shard)
    numbers = neutral(teacher, end - start)
    known = np.ones(end - start, dtype=bool)
    failures: list[dict[str, Any]] = []
    for first in range(start, end, batch_size):
        last = min(first + batch_size, end)
        errors = _ask(teacher, source, first, last, start, numbers)
        for row, error in errors.items():
            known[row - start] = False
            failures.append(
                {"shard": shard, "row": row, "id": str(source.ids[row]), "error": error}
            )
        if stop:
            stop(failures, last - start)
    table = as_table(teacher, numbers, source.ids[start:end])
    kept = {} if table.kept is None else {"kept": table.kept.int()}
    values = _cast(teacher, table.values, journal.header["dtype"])
    digest = write_shard(
        shard_path(folder, shard), {"values": values, "known": torch.from_numpy(known), **kept}
    )
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
    teacher: Teacher, source: Examples, first: int, last: int, start: int, into: Numbers
) -> dict[int, str]:
    """Fill in the numbers of some rows; gives the errors of those that have none."""
    where = f"rows {first} to {last - 1}"
    try:
        output = teacher.predict(source.read(first, last))
    except Exception as error:  # whatever the teacher or the reader raises
        return _one_by_one(teacher, source, first, last, start, into, error)
    numbers = as_numbers(teacher, output, where)
    if len(numbers[0]) != last - first:
        wrong = ValueError(f"{len(numbers[0])} rows for {last - first} examples")
        return _one_by_one(teacher, source, first, last, start, into, wrong)
    return _fill(teacher, numbers, first, start, into)


def _one_by_one(
    teacher: Teacher,
    source: Examples,
    first: int,
    last: int,
    start: int,
    into: Numbers,
    error: Exception,
) -> dict[int, str]:
    if last - first == 1:
        return {first: f"{type(error).__name__}: {error}"}
    errors: dict[int, str] = {}
    for row in range(first, last):
        try:
            output = teacher.predict(source.read(row, row + 1))
            numbers = as_numbers(teacher, output, f"row {row}")
            if len(numbers[0]) != 1:
                raise ValueError(f"{len(numbers[0])} rows for 1 example")
        except Exception as failure:  # as above
            errors[row] = f"{type(failure).__name__}: {failure}"
        else:
            errors |= _fill(teacher, numbers, row, start, into)
    return errors


def _fill(
    teacher: Teacher, numbers: Numbers, first: int, start: int, into: Numbers
) -> dict[int, str]:
    good = finite_rows(teacher, numbers)
    rows = slice(first - start, first - start + len(good))
    for given, target in zip(numbers, into, strict=True):
        if given is not None and target is not None:
            if good.all():
                target[rows] = given
            else:
                target[rows][good] = given[good]
    bad: NDArray[np.int64] = np.flatnonzero(~good)
    return {first + int(row): "NaN or infinity" for row in bad}


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
    failures: list[dict[str, Any]] | None = None,
) -> None:
    """Stop if too large a share of the rows has failed.

    Raises:
        InputError: Saying how many, and why the first did.
    """
    if failed <= most * rows:
        return
    reason = f"{failures[0]['error']} for id {failures[0]['id']!r}" if failures else None
    raise InputError(
        f"Expected at most {most:.2%} of the rows to fail for teacher {name!r}, but {failed} of "
        f"{rows} did; the first: {reason or first_failure(folder)}. Mend the teacher or these "
        f"examples and delete {folder}, or raise most_failures."
    )


def close(name: str, folder: Path, journal: Journal, most_failures: float) -> TeacherTable:
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
    return load_table(folder)
