"""Asking a teacher about all examples, shard by shard, so that a kill costs one shard at most."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mtbkd.files import write_bytes
from mtbkd.outputs.aligned import TeacherTable
from mtbkd.teachers.base import Teacher
from mtbkd.teachers.labelling.asking import Examples, label_shard
from mtbkd.teachers.labelling.convert import sample_table
from mtbkd.teachers.labelling.loading import load_table as load_table
from mtbkd.teachers.labelling.loading import table_of
from mtbkd.teachers.labelling.shards import (
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
    write_journal,
)
from mtbkd.types import InputError, Report, check_positive, quiet, refuse

Dtype = Literal["float32", "float16", "bfloat16"]

_ENOUGH = 100
"""Rows before the share of failures is judged."""


@dataclass(frozen=True)
class LabelSettings:
    """How examples are labelled.

    Attributes:
        shard_rows: Rows of a file.
        batch_size: Rows of one call of the teacher.
        dtype: What values are stored as.
        most_failures: Largest share of the rows labelled so far that may fail.
    """

    shard_rows: int = 4096
    batch_size: int = 256
    dtype: Dtype = "float32"
    most_failures: float = 0.01

    def __post_init__(self) -> None:
        """Check ranges."""
        check_positive(shard_rows=self.shard_rows, batch_size=self.batch_size)
        if self.dtype not in get_args(Dtype):
            raise InputError(
                f"Expected dtype float32, float16 or bfloat16, but got {self.dtype!r}. Choose one."
            )


def label(
    teacher: Teacher,
    source: Examples,
    folder: Path,
    *,
    report: Report = quiet,
    **settings: Any,
) -> TeacherTable:
    """Ask a teacher about every example and keep what it says.

    Killed at any moment and called again it goes on, labels at most one shard twice, and ends with
    the bytes of a run that was not killed. A batch that raises is asked again row by row; a row
    that fails is left missing and named in ``failures.jsonl``.

    Args:
        teacher: Whom to ask.
        source: The examples.
        folder: Holds the shards, the journal and the failures. One teacher, one folder.
        report: Told after each shard.
        **settings: ``shard_rows``, ``batch_size``, ``dtype`` and ``most_failures``, as
            `LabelSettings` describes them.

    Returns:
        The table, mapped from disk, without the rows that failed.

    Raises:
        InputError: If the folder holds another teacher's labels, labels of other data, or a shard
            that was changed; if the numbers are not what the teacher declares, or their width
            changes; if too many rows fail. Finished shards stay.
    """
    how = LabelSettings(**settings)
    share = how.most_failures
    journal = open_journal(teacher, source, folder, how)
    rows, failed = tally(journal)
    report(teacher.name, rows, len(source.ids))
    for shard in range(journal.count):
        if shard in journal.shards:
            continue

        def stop(errors: dict[int, str], done: int, rows: int = rows, failed: int = failed) -> None:
            if errors and rows + done >= _ENOUGH:
                reason = None if failed else _reason(source, errors)
                judge(teacher.name, folder, failed + len(errors), rows + done, share, reason)

        record, failures = label_shard(
            teacher, source, folder, journal, shard, batch_size=how.batch_size, stop=stop
        )
        enter(folder, journal, record, failures)
        rows, failed = rows + record["rows"], failed + record["failed"]
        if failed and rows >= _ENOUGH:
            judge(teacher.name, folder, failed, rows, share)
        report(teacher.name, rows, len(source.ids))
    return close(teacher.name, folder, journal, source, share)


def _reason(source: Examples, errors: dict[int, str]) -> str:
    first = min(errors)
    return f"{errors[first]} for id {source.ids[first]!r}"


def open_journal(teacher: Teacher, source: Examples, folder: Path, how: LabelSettings) -> Journal:
    """Begin a folder of labels, or find out how far it got.

    Raises:
        InputError: If it holds other labels, or a finished shard was changed.
    """
    data = source.stored_ids
    sample = sample_table(teacher, "0")
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
        "shard_rows": how.shard_rows,
        "dtype": how.dtype,
    }
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
    """Refuse to go on with other labels, naming what differs."""
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
    refuse(*faults)


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
