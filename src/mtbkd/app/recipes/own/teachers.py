"""Your own teachers: read or asked as the configuration says, and aligned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

from mtbkd.app.config.language import Prompted
from mtbkd.app.config.own import OwnConfig, slug
from mtbkd.app.config.own_teachers import FactoryTeacher, ModelTeacher, TableTeacher
from mtbkd.app.recipes.base import Costs, Labelling
from mtbkd.app.recipes.own.heads import (
    answer,
    backbone_teachers,
    find_backbones,
    fold_faults,
)
from mtbkd.app.recipes.own.making import make_teacher
from mtbkd.app.recipes.own.readers import Questions, reader_of
from mtbkd.errors import collect
from mtbkd.files import read_json, save_json
from mtbkd.outputs.aligned import TeacherTable, plan_alignment
from mtbkd.outputs.store import align_to
from mtbkd.teachers.base import Teacher
from mtbkd.teachers.files import from_table
from mtbkd.teachers.labelling.asking import Examples
from mtbkd.teachers.labelling.convert import sample_table
from mtbkd.teachers.labelling.label import label, load_table, tally
from mtbkd.teachers.labelling.on_ray import label_on_ray
from mtbkd.teachers.labelling.shards import read_journal
from mtbkd.types import InputError, refuse

_SHARD_ROWS = 4096
_UNANSWERED = 0.1  # of the rows of a language model, which may answer with no label


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
    the first is asked; then ``begin`` is called, before anything is written. Labels go to
    ``labels/NAME`` in the folder.

    Returns:
        For each teacher its parameters and milliseconds per example, where known.

    Raises:
        InputError: With one message for each fault.
    """
    ids, classes, proteins = questions.ids, questions.classes, questions.proteins
    faults: list[str] = [] if proteins is None else fold_faults(own, proteins)
    backbones = {} if proteins is None else collect(faults, lambda: find_backbones(own, folder))
    tables: dict[str, TeacherTable] = {}
    made: dict[str, _Made] = {}
    for name, config in own.teachers.items():
        try:
            if isinstance(config, TableTeacher):
                tables[name] = _table(name, config, own)
            elif isinstance(config, ModelTeacher):
                made[name] = _made(name, config, own, questions, folder, labelling)
        except InputError as error:
            faults += error.faults
    asked = [each.teacher for each in made.values() if each.teacher is not None]
    samples = [collect(faults, lambda t=teacher: sample_table(t, ids[0])) for teacher in asked]
    known = [sample for sample in samples if sample is not None]
    faults += _alignment_faults(list(tables.values()), known, ids, classes, own.missing)
    refuse(*faults)
    begin()
    costs: Costs = {name: {} for name in own.teachers}
    halves = labelling.dtype == "float16"
    for name in list(made):
        place = folder / "labels" / slug(name)
        most = _UNANSWERED if isinstance(own.teachers[name], Prompted) else 0.0
        tables[name], costs[name] = _ask(name, made.pop(name), place, labelling, most)
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
    speaking = [name for name, teacher in own.teachers.items() if isinstance(teacher, Prompted)]
    tables = questions.mend(tables, speaking)
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
    folder: Path,
    labelling: Labelling,
) -> _Made:
    """A teacher, made unless that would run code that only a run directory names."""
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
    make = partial(make_teacher, name, config, own, questions.classes, questions.shots)
    source = Examples(questions.ids, reader_of(config, own, questions))
    return _Made(make() if may_run else None, make, source)


def _alignment_faults(
    tables: Sequence[TeacherTable],
    samples: Sequence[TeacherTable],
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    missing: Literal["error", "mask"],
) -> list[str]:
    """What is wrong with tables and with what models will say, each once."""
    faults: list[str] = []
    if tables or samples:  # models say more than their sample
        collect(faults, lambda: plan_alignment([*tables, *samples], ids, classes, missing="mask"))
    if tables:
        collect(faults, lambda: plan_alignment(tables, ids, classes, missing=missing))
    return list(dict.fromkeys(faults))


def _ask(
    name: str, made: _Made, place: Path, labelling: Labelling, most: float
) -> tuple[TeacherTable, dict[str, float]]:
    """Label, or take finished labels; at least the share ``most`` of the rows may fail."""
    spent = place.parent / f"{place.name}.json"
    before = read_journal(place)
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
            "most_failures": max(labelling.most_failures, most),
            "report": lambda name, *at: labelling.report(f"asking {name}", *at),
        }
        if labelling.ray:
            table = label_on_ray(made.make, made.source, place, **how)
        else:
            table = label(made.teacher, made.source, place, **how)
    seconds = perf_counter() - start
    after = read_journal(place)
    rows, failed = tally(after) if after else (0, 0)
    asked = rows - (tally(before)[0] if before else 0)
    cost = _cost(made.teacher, asked, seconds, spent)
    save_json(spent, cost)
    speed = f"{asked / seconds:,.0f} rows/s" if asked else "labelled before"
    labelling.say(f"{name}: {rows} rows labelled, {failed} failed, {speed}: {place}")
    return replace(table, name=name), cost


def _cost(teacher: Teacher | None, asked: int, seconds: float, spent: Path) -> dict[str, float]:
    """What it took to ask the rows of now, or what was told before."""
    if not asked and spent.exists():
        return read_json(spent)
    cost: dict[str, float] = {}
    if teacher is not None and teacher.parameters is not None:
        cost["parameters"] = float(teacher.parameters)
    if asked:
        cost["ms_per_example"] = 1000 * seconds / asked
    return cost
