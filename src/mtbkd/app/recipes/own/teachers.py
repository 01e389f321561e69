"""Your own teachers, made as the configuration says, asked, and aligned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.own import OwnConfig, TeacherConfig, slug
from mtbkd.app.recipes.base import Costs, Labelling
from mtbkd.app.recipes.own.examples import OwnExamples
from mtbkd.app.recipes.own.heads import LabelledProteins, answer, find_backbones, fold_faults
from mtbkd.app.recipes.own.inputs import model_of
from mtbkd.app.recipes.own.readers import reader_of
from mtbkd.files import read_json, save_json
from mtbkd.outputs.aligned import TeacherTable, plan_alignment
from mtbkd.outputs.store import align_to
from mtbkd.teachers.base import Teacher
from mtbkd.teachers.factory import from_factory
from mtbkd.teachers.files import from_table
from mtbkd.teachers.hugging_face import from_hugging_face
from mtbkd.teachers.labelling.asking import Examples as Asked
from mtbkd.teachers.labelling.convert import sample_table
from mtbkd.teachers.labelling.label import label, load_table, tally
from mtbkd.teachers.labelling.on_ray import label_on_ray
from mtbkd.teachers.labelling.shards import Journal, read_journal
from mtbkd.teachers.onnx_model import from_onnx
from mtbkd.types import InputError

_SHARD_ROWS = 4096
_OVERRIDES = ("held_out", "partial", "class_map", "merge", "top")


class _Made(NamedTuple):
    """A teacher that is to be asked, or None where only its finished labels may be used."""

    teacher: Teacher | None
    make: Callable[[], Teacher]
    source: Asked


def label_all(
    own: OwnConfig,
    examples: OwnExamples,
    features: Sequence[str] | str,
    rows: NDArray[np.int64],
    classes: tuple[str, ...],
    folder: Path,
    labelling: Labelling,
    begin: Callable[[], None],
    proteins: LabelledProteins | None = None,
) -> Costs:
    """Make all teachers, ask each about all examples, and write their aligned outputs.

    Teachers that are models are all made, and all that can be known to be wrong is told, before
    the first is asked.

    Args:
        own: The configuration.
        examples: The file.
        features: Columns that teachers read who name none, or one column of text.
        rows: Of the file, one for each example of the task.
        classes: Of the data.
        folder: Of the outputs; labels go to ``labels/NAME`` in it.
        labelling: How to ask.
        begin: Called when all faults were looked for, before anything is written.
        proteins: What teachers with a backbone are trained on and asked about.

    Returns:
        For each teacher its parameters and milliseconds per example, where known.

    Raises:
        InputError: With one message for each fault.
    """
    ids = tuple(examples.ids[row] for row in rows)
    tables: dict[str, TeacherTable] = {}
    made: dict[str, _Made] = {}
    faults: list[str] = []
    matrices: dict[tuple[str, ...], Any] = {}
    backbones: dict[str, Any] = {}
    if proteins is not None:
        faults += fold_faults(own, proteins)
        try:
            backbones = find_backbones(own, folder)
        except InputError as error:
            faults += error.faults
    for name, config in own.teachers.items():
        if config.source == "backbone":
            continue
        try:
            if config.source == "table":
                tables[name] = _table(name, config, own)
                continue
            _allowed(name, config, folder, ids, labelling)
            source = Asked(ids, reader_of(config, own, examples, features, rows, matrices))
            make = partial(make_teacher, name, config, own)
            run_it = config.source != "factory" or labelling.may_run_code
            made[name] = _Made(make() if run_it else None, make, source)
        except InputError as error:
            faults += error.faults
    samples = []
    for each in made.values():
        if each.teacher is not None:
            try:
                samples.append(sample_table(each.teacher, ids[0]))
            except InputError as error:
                faults += error.faults
    faults += _alignment_faults(tables.values(), samples, ids, classes, own.missing)
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
        if config.source == "backbone" and proteins is not None:
            tables[name], costs[name] = answer(
                name, config, backbones.pop(name, None), proteins, folder, labelling
            )
        if config.source == "table":
            labelling.say(
                f"{name}: {len(tables[name].ids)} rows read from {_path(own, config.table)}"
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


def make_teacher(name: str, config: TeacherConfig, own: OwnConfig) -> Teacher:
    """The teacher that a configuration describes; a factory's code is run.

    Raises:
        InputError: If it cannot be made, or predicts something else than the data holds.
    """
    declared = {k: getattr(config, k) for k in _OVERRIDES if k in config.given}
    if config.factory is not None:
        extra: dict[str, Any] = {"family": own.family}
        for key in ("kind", "classes", "variance"):
            if key in config.given:
                extra[key] = getattr(config, key)
        made = from_factory(
            config.factory,
            Path(own.folder),
            name=name,
            options=config.options,
            **extra,
            **declared,
        )
        teacher = replace(made, name=name, **declared)
    elif config.onnx is not None:
        teacher = from_onnx(
            name,
            _path(own, config.onnx),
            classes=config.classes or (),
            kind=config.kind or "logits",
            output=config.output,
            family=own.family,
            **declared,
        )
    else:
        teacher = from_hugging_face(
            name,
            model_of(own, str(config.hugging_face)),
            task=config.task,
            batch_size=config.batch_size,
            device=config.device,
            precision="float32" if config.precision == "auto" else config.precision,
            **declared,
        )
    if teacher.family != own.family:
        raise InputError(
            f"Expected teacher {name!r} to be of the family {own.family}, as the data is, but got "
            f"{teacher.family}. Leave it out, or correct own.family."
        )
    return teacher


def _path(own: OwnConfig, name: str | None) -> Path:
    return Path(own.folder) / str(name)


def _table(name: str, config: TeacherConfig, own: OwnConfig) -> TeacherTable:
    return from_table(
        name,
        _path(own, config.table),
        kind=config.kind or "probs",
        family=own.family,
        id_column=config.id,
        held_out=config.held_out,
        partial=config.partial,
        class_map=config.class_map,
        merge=config.merge,
        variance=config.variance,
    )


def _allowed(
    name: str, config: TeacherConfig, folder: Path, ids: tuple[str, ...], labelling: Labelling
) -> None:
    """Refuse to run code that only a run directory names.

    Raises:
        InputError: If it would have to be run because labels are not finished.
    """
    if config.factory is None or labelling.may_run_code:
        return
    journal = read_journal(folder / "labels" / slug(name))
    if journal is None or len(journal.shards) < journal.count:
        raise InputError(
            f"Expected the teachers' labels to be complete in {folder.parent}, but those of "
            f"{name!r} are not, and code named by a run directory ({config.factory!r}) is never "
            f"run. Run `mtbkd teach my.yaml --out {folder.parent}` with your own configuration."
        )


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
