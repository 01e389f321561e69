"""Labelling with several workers, by Ray Data: the same shards, the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtbkd.errors import need
from mtbkd.outputs.aligned import TeacherTable
from mtbkd.teachers.base import Teacher
from mtbkd.teachers.labelling.asking import Examples, label_shard
from mtbkd.teachers.labelling.label import LabelSettings, close, enter, open_journal, tally
from mtbkd.teachers.labelling.shards import Journal
from mtbkd.types import InputError, Report, check_positive, quiet


def label_on_ray(
    make_teacher: Callable[[], Teacher],
    source: Examples,
    folder: Path,
    *,
    workers: int = 2,
    report: Report = quiet,
    resources: dict[str, float] | None = None,
    **settings: Any,
) -> TeacherTable:
    """As `label`, each shard by one of several workers; needs ``pip install 'mtbkd[ray]'``.

    Ray must be running, or it is started here as Ray sees fit; it is not shut down. Folder and
    inputs must lie where every worker sees them. Shards are entered in the journal as they come
    in, and put in order at the end. Workers give the same bytes as `label` if they run on as many
    threads of the same kind of processor.

    Args:
        make_teacher: Called once by each worker, and once here for the teacher's declaration.
        source: The examples; sent to each worker, so ``read`` should open files, not hold them.
        folder: As of `label`.
        workers: How many, each with a teacher of its own.
        report: Told after each shard.
        resources: What each worker needs, as Ray names it: ``num_cpus``, ``num_gpus``.
        **settings: As for `label`; failures are judged at the end.

    Raises:
        InputError: As `label` does.
    """
    check_positive(workers=workers)
    how = LabelSettings(**settings)
    data = need("ray.data", "ray")
    teacher = make_teacher()
    journal = open_journal(teacher, source, folder, how)
    pending = [k for k in range(journal.count) if k not in journal.shards]
    rows, _ = tally(journal)
    report(teacher.name, rows, len(source.ids))
    if pending:
        shards = data.range(len(pending), override_num_blocks=len(pending)).map(
            _Worker,
            fn_constructor_args=(
                make_teacher,
                source,
                folder,
                journal.header,
                pending,
                how.batch_size,
            ),
            concurrency=min(workers, len(pending)),
            **(resources or {}),
        )
        for row in shards.iter_rows():
            answer = json.loads(row["answer"])
            if "faults" in answer:
                raise InputError(*answer["faults"])
            enter(folder, journal, answer["record"], answer["failures"])
            rows += answer["record"]["rows"]
            report(teacher.name, rows, len(source.ids))
    return close(teacher.name, folder, journal, source, how.most_failures)


class _Worker:
    """Labels whole shards with a teacher of its own."""

    def __init__(
        self,
        make_teacher: Callable[[], Teacher],
        source: Examples,
        folder: Path,
        header: dict[str, Any],
        pending: list[int],
        batch_size: int,
    ) -> None:
        self.teacher = make_teacher()
        self.source = source
        self.folder = folder
        self.journal = Journal(header, {})
        self.pending = pending
        self.batch_size = batch_size

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        try:
            if json.loads(json.dumps(self.teacher.declaration())) != self.journal.header["teacher"]:
                raise InputError(
                    f"Expected every worker to make the same teacher {self.teacher.name!r}, but "
                    "its declaration or its parameters differ. Load parameters from a file, or "
                    "fix the seed."
                )
            record, failures = label_shard(
                self.teacher,
                self.source,
                self.folder,
                self.journal,
                self.pending[row["id"]],
                batch_size=self.batch_size,
            )
        except InputError as error:
            return {"answer": json.dumps({"faults": error.faults})}
        return {"answer": json.dumps({"record": record, "failures": failures})}
