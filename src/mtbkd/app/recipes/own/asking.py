"""Your own teachers asked about new rows, those that the student does not answer alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from mtbkd.app.config.own import OwnConfig
from mtbkd.app.config.own_teachers import ModelTeacher, TableTeacher
from mtbkd.app.recipes.base import Labelling
from mtbkd.app.recipes.own.inputs import kind_of
from mtbkd.app.recipes.own.mending import mended
from mtbkd.app.recipes.own.readers import Questions
from mtbkd.app.recipes.own.teachers import label_all
from mtbkd.files import read_sealed
from mtbkd.inputs.columns import Table
from mtbkd.inputs.kind import Rows
from mtbkd.inputs.opening import suffix_of
from mtbkd.inputs.tables import TABLES, read_table
from mtbkd.outputs.aligned import TeacherOutputs, TeacherTable
from mtbkd.outputs.store import load_outputs
from mtbkd.teachers.files import from_table
from mtbkd.teachers.language.prompt import Shot
from mtbkd.types import InputError


def ask_about(
    own: OwnConfig,
    record: Path,
    source: Path,
    names: Collection[str],
    place: Path,
    labelling: Labelling,
) -> TeacherOutputs:
    """Ask teachers that are models about the rows of a file, going on from what is labelled.

    Args:
        own: The section of the configuration.
        record: What the run directory says of its examples.
        source: New rows.
        names: Teachers to be asked.
        place: Where their labels and their aligned outputs go.
        labelling: How they are asked.

    Raises:
        InputError: If one of them is no model that can be asked, or rows or answers hold faults.
    """
    about = read_sealed(record)
    kind = kind_of(own, about)
    rows = kind.read(source)
    faults = [
        f"Expected teacher {name!r} to be a model that can be asked, but got one that "
        f"{'is a table' if isinstance(own.teachers[name], TableTeacher) else 'has a backbone'}. "
        f"Give what it says of these rows with --table '{name}=FILE', or --without '{name}'."
        for name in names
        if not isinstance(own.teachers[name], ModelTeacher)
    ]
    if faults:
        raise InputError(*faults)
    asked = {name: teacher for name, teacher in own.teachers.items() if name in names}
    questions = Questions(
        examples=_table(own, source, rows),
        features=about.get("features", []),
        ask=partial(kind.ask, rows.values),
        rows=np.arange(len(rows.ids)),
        classes=tuple(about["classes"]),
        shots=tuple(Shot(row, tuple(says)) for row, says in about.get("shots", [])),
        mend=lambda tables, names: mended(tables, names, record.parent / "teachers"),
    )
    section = own.model_copy(update={"teachers": asked, "missing": "mask"})
    label_all(section, questions, place, labelling, lambda: None)
    return load_outputs(place)


def given_table(own: OwnConfig, name: str, path: Path) -> TeacherTable:
    """What one of your teachers says of new rows, from a file of the kind of its own table."""
    config = own.teachers[name]
    if isinstance(config, TableTeacher):
        how = config.model_dump(exclude={"table", "id"})
        return from_table(name, path, family=own.family, id_column=config.id, **how)
    declared = config.model_dump(include={"class_map", "merge", "partial"})
    return from_table(name, path, kind="probs", family=own.family, id_column=own.id, **declared)


def _table(own: OwnConfig, source: Path, rows: Rows) -> Table:
    """All columns of the rows that were read; teachers may read others than the student."""
    if suffix_of(source, (*TABLES, *source.suffixes), "new rows") not in TABLES:
        column = own.sequence or own.text or "value"
        cells = pa.table({own.id: list(rows.ids), column: list(rows.values)})
        return Table(source, cells, rows.ids)
    table = read_table(source, "new rows").with_ids(own.id, "Add it.")
    if table.ids == rows.ids:
        return table
    place = {key: row for row, key in enumerate(table.ids)}
    return replace(table, cells=table.cells.take([place[i] for i in rows.ids]), ids=rows.ids)
