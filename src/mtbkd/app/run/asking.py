"""Rows that the student does not answer alone: set apart, and answered with its teachers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mtbkd.app.config.run import RunConfig
from mtbkd.app.folder import ASKED, POLICY, check_run, read_run
from mtbkd.app.recipes.base import Labelling, Recipe
from mtbkd.app.recipes.own.asking import ask_about, given_table
from mtbkd.app.recipes.own.recipe import RECORD
from mtbkd.app.run import stages
from mtbkd.app.run.judged import both_voices, said_by
from mtbkd.app.run.new_inputs import New, Predicted, predicted, read_new
from mtbkd.app.run.policy import read_policy
from mtbkd.app.run.scoring import pool_of
from mtbkd.data import make_dataset
from mtbkd.explain.causes import load_background
from mtbkd.explain.defer import scores_of
from mtbkd.files import sha256_of
from mtbkd.inputs.opening import suffix_of
from mtbkd.inputs.proteins.reading import read_proteins
from mtbkd.inputs.tables import TABLES, read_table
from mtbkd.inputs.texts.reading import read_texts
from mtbkd.outputs.aligned import TeacherOutputs, align
from mtbkd.outputs.store import load_outputs
from mtbkd.predictive import LabelPredictive, NumberPredictive
from mtbkd.teachers.files import from_table
from mtbkd.types import Bools, Floats, InputError, Ints, Report, quiet, refuse

STUDENT = "student"
_FASTA = (".fasta", ".fa", ".faa", ".fas")
_KEY = 16


@dataclass(frozen=True)
class Asking:
    """How the teachers are asked about rows that the student does not answer alone.

    Attributes:
        tables: Teacher to the file of what it says of these rows, for those that are not asked.
        without: Teachers that are left out.
        config: The user's own configuration of the run, where it names code that makes a teacher.
        labelling: How those are asked that can be.
    """

    tables: Mapping[str, Path]
    without: Collection[str] = ()
    config: RunConfig | None = None
    labelling: Labelling = Labelling()


@dataclass(frozen=True)
class Final:
    """Answers of the student and its teachers together.

    Attributes:
        student: What the student says by itself.
        probs: What all say together, shape (row, column).
        said: Which columns are said, shape (row, column).
        by: Who gave each answer: the student, and the teachers that spoke.
    """

    student: Predicted
    probs: Floats
    said: Bools
    by: tuple[tuple[str, ...], ...]

    def table(self) -> pa.Table:
        """One row for each: ``id``, the answer, who gave it, and ``prob.C`` for each column C.

        The answer is ``prediction`` and its ``probability``, or ``labels``; ``student`` is what the
        student would have said by itself.
        """
        found, names = self.student, np.array(self.student.classes, dtype=object)
        columns: dict[str, Any] = {"id": list(found.ids)}
        if isinstance(found.predictive, LabelPredictive):
            own = np.asarray(found.causes.labels)
            columns |= {
                "labels": [names[row].tolist() for row in self.said],
                "student": [names[row].tolist() for row in own],
            }
        elif not isinstance(found.predictive, NumberPredictive):
            columns |= {
                "prediction": names[self.probs.argmax(1)].tolist(),
                "probability": self.probs.max(1).tolist(),
                "student": names[found.predictive.probs.argmax(1)].tolist(),
            }
        columns |= {"by": [list(voices) for voices in self.by]}
        columns |= {f"prob.{c}": self.probs[:, i].tolist() for i, c in enumerate(names)}
        return pa.table(columns)


def answered_alone(out: Path, found: Predicted) -> Bools:
    """Which of these answers the student gives alone, by the policy of its run, shape (row,).

    Raises:
        InputError: If the run has none.
    """
    check_run(out, (POLICY,))
    policy, predictive = read_policy(out), found.predictive
    scores = scores_of(predictive, found.causes.reliable, found.causes.flags)
    said: Ints = np.zeros(len(found.ids), np.int64)
    if not isinstance(predictive, LabelPredictive | NumberPredictive):
        said = predictive.probs.argmax(1)
    return policy.alone(scores, said)


def rows_to_ask(source: Path, out: Path, ids: tuple[str, ...], ask: Bools) -> pa.Table:
    """The rows of a file that the student does not answer alone, with all of their columns.

    Args:
        source: New rows, a table, FASTA, or a text a line.
        out: The run directory.
        ids: Ids of the rows that were answered.
        ask: Which of these are to be asked, shape (row,).

    Raises:
        InputError: If it is no such file.
    """
    own = read_run(out).own
    suffix = suffix_of(source, (*TABLES, *_FASTA, ".txt"), "rows that can be set apart")
    id_column = "id" if own is None else own.id
    if suffix in _FASTA:
        found = read_proteins(source)
        column = (own and own.sequence) or "sequence"
        cells = pa.table({id_column: list(found.ids), column: list(found.sequences)})
    elif suffix == ".txt":
        cells = read_texts(source, id_column, (own and own.text) or "text").cells
    else:
        cells = read_table(source, "rows that can be set apart").cells
    if id_column not in cells.column_names:
        cells = cells.add_column(0, id_column, [pa.array(ids)])
    chosen = {key for key, one in zip(ids, ask.tolist(), strict=True) if one}
    keys = [str(key).strip() for key in cells[id_column].to_pylist()]
    return cells.filter(pa.array([key in chosen for key in keys]))


def ask_run(
    out: Path,
    source: Path,
    asking: Asking,
    report: Report = quiet,
    recipe: Recipe | None = None,
    network: str | None = None,
) -> Final:
    """Answer the rows of a file with the teachers, whose answers the student's stands beside.

    Args:
        out: The run directory.
        source: New rows.
        asking: How the teachers are asked.
        report: Called with the progress of long stages.
        recipe: Another one than the run names.
        network: As `mtbkd.app.folder.read_run` takes it.

    Raises:
        InputError: If the run has no policy, or rows or teachers hold faults.
    """
    check_run(out, (POLICY,))
    policy = read_policy(out)
    new = read_new(out, source, report, recipe, network)
    outputs = asked_outputs(out, source, new, asking)
    student = predicted(out, new, report)
    predictive = student.predictive
    if isinstance(predictive, NumberPredictive):
        raise ValueError("a run with a policy answers with classes or labels")
    features = new.posterior.student.features(new.inputs[:])
    weighting, units = new.posterior.weighting, new.posterior.units
    pool = pool_of(outputs, weighting, units, features)["probs"].numpy()
    cuts = load_background(out / stages.BACKGROUND, new.config.predict.level).thresholds.numpy()
    spoke = outputs.mask.flatten(2).any(2).numpy() if len(cuts) else outputs.mask.numpy()
    told = outputs.mask.any(0).numpy()
    if len(cuts):
        pool = np.where(told, pool, predictive.probs)
    probs = both_voices(predictive.probs, pool, np.asarray(spoke.any(0)), policy.weight)
    names = np.array(outputs.names, dtype=object)
    by = tuple((STUDENT, *names[column].tolist()) for column in spoke.T)
    return Final(student, probs, said_by(probs, cuts), by)


def asked_outputs(out: Path, source: Path, new: New, asking: Asking) -> TeacherOutputs:
    """What all teachers say of the rows, in the run's order; those that are left out are silent."""
    layout = load_outputs(out / "teachers")
    own, faults = new.config.own, []
    for option, names in (("--table", asking.tables), ("--without", asking.without)):
        faults += [
            f"Expected {option} of a teacher of {out}, which are {', '.join(layout.names)}, but "
            f"got {name!r}. Correct it."
            for name in names
            if name not in layout.names
        ]
    if asking.config is not None and asking.config.to_yaml() != new.config.to_yaml():
        faults.append(
            f"Expected --config to be the configuration that {out} was made with, but it differs. "
            "Name that file, or leave it out."
        )
    refuse(*faults)
    if asking.config is not None:
        own = asking.config.own
    parts: list[TeacherOutputs] = []
    width = None if layout.kept is None else layout.kept.shape[2]
    if asking.tables:
        tables = [
            given_table(own, name, path)
            if own is not None
            else from_table(name, path, kind="probs", family=layout.family)
            for name, path in asking.tables.items()
        ]
        parts.append(align(tables, new.ids, layout.classes, missing="mask", top=width))
    rest = [n for n in layout.names if n not in asking.tables and n not in asking.without]
    if rest and own is not None:
        place = out / ASKED / sha256_of(source)[:_KEY]
        key = hashlib.sha256("\n".join(rest).encode()).hexdigest()[:_KEY]
        record, place = out / RECORD, place / key
        parts.append(ask_about(own, record, source, rest, place, asking.labelling))
    elif rest and new.recipe.teach is not None:
        parts.append(_taught(out, new, rest))
    elif rest:
        raise InputError(
            f"Expected teachers that can be asked, but those of the recipe {new.recipe.name} "
            "cannot. Give what they say with --table NAME=FILE, or leave them out with --without."
        )
    return _merged(layout, new.ids, parts)


def _taught(out: Path, new: New, names: Collection[str]) -> TeacherOutputs:
    """Teachers of a built-in recipe, trained again, which gives the same, and asked as well."""
    recipe, config = new.recipe, new.config
    task = stages.load(recipe, config, out)
    asked = make_dataset(
        new.inputs[:],
        classes=task.test.classes,
        ids=[f"asked {row}" for row in range(len(new.ids))],
        family=task.test.family,
    )
    if recipe.teach is None:
        raise ValueError(f"the teachers of the recipe {recipe.name} are not trained")
    outputs, _ = recipe.teach(config, replace(task, test=asked), quiet)
    found = replace(outputs.at(asked.ids), ids=new.ids)
    mask = found.mask.clone()
    silent = torch.tensor([name not in names for name in found.names])
    mask[silent] = False
    return replace(found, mask=mask)


def _merged(
    layout: TeacherOutputs, ids: tuple[str, ...], parts: list[TeacherOutputs]
) -> TeacherOutputs:
    """All teachers of the run on these rows; those of whom no part tells are silent."""
    n, width = len(ids), None if layout.kept is None else layout.kept.shape[2]
    for part in parts:
        if (None if part.kept is None else part.kept.shape[2]) != width:
            raise InputError(
                f"Expected {'all classes' if width is None else f'the {width} most probable'} from "
                f"teachers {', '.join(part.names)}, as when the run was made, but got others. Ask "
                "them as then."
            )
    shape = list(layout.values.shape)
    shape[1] = n
    values = torch.zeros(shape)
    mask = torch.zeros(len(layout.names), n, *layout.mask.shape[2:], dtype=torch.bool)
    kept = None if width is None else torch.full((len(layout.names), n, width), -1)
    for part in parts:
        for k, name in enumerate(part.names):
            row = layout.names.index(name)
            spoke = part.mask[k]
            if not spoke.any():
                continue
            values[row], mask[row] = part.values[k].float(), spoke
            if kept is not None and part.kept is not None:
                kept[row] = part.kept[k].long()
    return replace(layout, values=values, mask=mask, ids=ids, kept=kept, totals=None)
