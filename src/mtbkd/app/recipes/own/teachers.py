"""Your own teachers: read or asked as the configuration says, and aligned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.own import OwnConfig, slug
from mtbkd.app.config.own_teachers import FactoryTeacher, ModelTeacher, TableTeacher
from mtbkd.app.folder import read_json
from mtbkd.app.recipes.base import Costs, Labelling
from mtbkd.app.recipes.own.columns import collect
from mtbkd.app.recipes.own.heads import (
    LabelledProteins,
    answer,
    backbone_teachers,
    find_backbones,
    fold_faults,
)
from mtbkd.app.recipes.own.making import make_teacher
from mtbkd.app.recipes.own.readers import Matrices, reader_of
from mtbkd.files import save_json
from mtbkd.inputs.columns import Table
from mtbkd.outputs.aligned import TeacherTable, plan_alignment
from mtbkd.outputs.store import align_to
from mtbkd.teachers.base import Teacher
from mtbkd.teachers.files import from_table
from mtbkd.teachers.labelling.asking import Examples
from mtbkd.teachers.labelling.convert import sample_table
from mtbkd.teachers.labelling.label import label, load_table, tally
from mtbkd.teachers.labelling.on_ray import label_on_ray
from mtbkd.teachers.labelling.shards import Journal, read_journal
from mtbkd.types import InputError

_SHARD_ROWS = 4096


@dataclass(frozen=True)
class Questions:
    """What all teachers are asked about.

    Attributes:
        examples: The file.
        features: Columns that teachers read who name none, or one column of text.
        rows: The row of the file for each example of the task.
        classes: Classes, labels or targets of the data.
        proteins: What teachers with a backbone are trained on and asked about.
    """

    examples: Table
    features: Sequence[str] | str
    rows: NDArray[np.int64]
    classes: tuple[str, ...]
    proteins: LabelledProteins | None = None


class _Made(NamedTuple):
    """A teacher that is to be asked, or None where only its finished labels may be used."""

    teacher: Teacher | None
    make: Callable[[], Teacher]
    source: Examples


def label_all(
    own: OwnConfig,
    questions: Questions,
    folder: Path,
    labelling: Labelling,
    begin: Callable[[], None],
) -> Costs:
    """Make all teachers, ask each about all examples, and write their aligned outputs.

    Teachers that are models are all made, and all that can be known to be wrong is told, before
    the first is asked.

    Args:
        own: The configuration.
        questions: What they are asked about.
        folder: Where the outputs are written; labels go to ``labels/NAME`` in it.
        labelling: How to ask.
        begin: Called when all faults were looked for, before anything is written.

    Returns:
        For each teacher its parameters and milliseconds per example, where known.

    Raises:
        InputError: With one message for each fault.
    """
    examples, classes, proteins = questions.examples, questions.classes, questions.proteins
    ids = tuple(examples.ids[row] for row in questions.rows)
    faults: list[str] = [] if proteins is None else fold_faults(own, proteins)
    backbones = {} if proteins is None else collect(faults, lambda: find_backbones(own, folder))
    tables: dict[str, TeacherTable] = {}
    made: dict[str, _Made] = {}
    matrices: Matrices = {}
    for name, config in own.teachers.items():
        try:
            if isinstance(config, TableTeacher):
                tables[name] = _table(name, config, own)
            elif isinstance(config, ModelTeacher):
                made[name] = _made(name, config, own, questions, matrices, folder, labelling)
        except InputError as error:
            faults += error.faults
    asked = [each.teacher for each in made.values() if each.teacher is not None]
    samples = [collect(faults, lambda t=teacher: sample_table(t, ids[0])) for teacher in asked]
    known = [sample for sample in samples if sample is not None]
    faults += _alignment_faults(tables.values(), known, ids, classes, own.missing)
    if faults:
        raise InputError(*faults)
    begin()
    costs: Costs = {name: {} for name in own.teachers}
    halves = labelling.dtype == "float16"
    for name in list(made):
        place = folder / "labels" / slug(name)
        tables[name], costs[name] = _ask(name, made.pop(name), place, labelling)
        journal = read_journal(place)
        halves |= journal is not None and journal.header["dtype"] == "float16"
    for name, config in own.teachers.items():
        if isinstance(config, TableTeacher):
            n, path = len(tables[name].ids), Path(own.folder) / config.table
            labelling.say(f"{name}: {n} rows read from {path}")
    if proteins is not None:
        for name, config in backbone_teachers(own).items():
            tables[name], costs[name] = answer(
                name, config, backbones.pop(name, None), proteins, folder, labelling
            )
    align_to(
        folder,
        [tables[name] for name in own.teachers],
        ids,
        classes,
        missing="mask",
        dtype="float16" if halves else "float32",
    )
    return costs


def _table(name: str, config: TableTeacher, own: OwnConfig) -> TeacherTable:
    how = config.model_dump(exclude={"table", "id"})
    path = Path(own.folder) / config.table
    return from_table(name, path, family=own.family, id_column=config.id, **how)


def _made(
    name: str,
    config: ModelTeacher,
    own: OwnConfig,
    questions: Questions,
    matrices: Matrices,
    folder: Path,
    labelling: Labelling,
) -> _Made:
    """A teacher, made unless that would run code that only a run directory names.

    Raises:
        InputError: If it cannot be made, or may not be and its labels are not finished.
    """
    may_run = labelling.may_run_code or not isinstance(config, FactoryTeacher)
    if isinstance(config, FactoryTeacher) and not may_run:
        journal = read_journal(folder / "labels" / slug(name))
        if journal is None or len(journal.shards) < journal.count:
            raise InputError(
                f"Expected the teachers' labels to be complete in {folder.parent}, but those of "
                f"{name!r} are not, and code named by a run directory ({config.factory!r}) is "
                f"never run. Run `mtbkd teach my.yaml --out {folder.parent}` with your own "
                "configuration."
            )
    ids = tuple(questions.examples.ids[row] for row in questions.rows)
    read = reader_of(config, own, questions.examples, questions.features, questions.rows, matrices)
    make = partial(make_teacher, name, config, own)
    return _Made(make() if may_run else None, make, Examples(ids, read))


def _alignment_faults(
    tables: Iterable[TeacherTable],
    samples: Sequence[TeacherTable],
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    missing: str,
) -> list[str]:
    """What is wrong with tables and with what models will say, each once."""
    found: dict[str, None] = {}
    tables = list(tables)
    pairs: list[tuple[list[TeacherTable], Any]] = [
        ([*tables, *samples], "mask"),
        (tables, missing),
    ]
    for several, how in pairs:
        if several:
            try:
                plan_alignment(several, ids, classes, missing=how)
            except InputError as error:
                found |= dict.fromkeys(error.faults)
    return list(found)


def _ask(
    name: str, made: _Made, place: Path, labelling: Labelling
) -> tuple[TeacherTable, dict[str, float]]:
    """Label, or take finished labels."""
    spent = place.parent / f"{place.name}.json"
    before = _journal(place)
    start = perf_counter()
    if made.teacher is None:
        table = load_table(place)
        if set(table.ids) - set(made.source.ids):
            raise InputError(
                f"Expected labels of these examples in {place}, but got others. Delete it and "
                "label again."
            )
    else:
        header = before.header if before else {}
        how: dict[str, Any] = {
            "shard_rows": labelling.shard_rows or header.get("shard_rows", _SHARD_ROWS),
            "batch_size": labelling.batch_size,
            "dtype": labelling.dtype or header.get("dtype", "float32"),
            "most_failures": labelling.most_failures,
            "report": labelling.report,
        }
        if labelling.ray:
            table = label_on_ray(made.make, made.source, place, **how)
        else:
            table = label(made.teacher, made.source, place, **how)
    seconds = perf_counter() - start
    after = _journal(place)
    rows, failed = tally(after) if after else (0, 0)
    asked = rows - (tally(before)[0] if before else 0)
    cost = _cost(made.teacher, asked, seconds, spent)
    save_json(spent, cost)
    speed = f"{asked / seconds:,.0f} rows/s" if asked else "labelled before"
    labelling.say(f"{name}: {rows} rows labelled, {failed} failed, {speed}: {place}")
    return replace(table, name=name), cost


def _journal(place: Path) -> Journal | None:
    return read_journal(place) if place.exists() else None


def _cost(teacher: Teacher | None, asked: int, seconds: float, spent: Path) -> dict[str, float]:
    """Of the rows asked now, or as it was told before."""
    if not asked and spent.exists():
        return read_json(spent)
    cost: dict[str, float] = {}
    if teacher is not None and teacher.parameters is not None:
        cost["parameters"] = float(teacher.parameters)
    if asked:
        cost["ms_per_example"] = 1000 * seconds / asked
    return cost
