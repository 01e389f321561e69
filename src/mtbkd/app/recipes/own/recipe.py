"""Your examples, your teachers: a file of rows, and whatever can be asked about them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtbkd.app.config.own import AUTOMATIC, OwnConfig, student_kind
from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Before, Labelling, Recipe, Sources, Task
from mtbkd.app.recipes.common import mixed, network
from mtbkd.app.recipes.own.columns import (
    classes_of,
    labels_of,
    named_columns,
    read_own,
    text_columns,
)
from mtbkd.app.recipes.own.heads import LabelledProteins, find_backbones
from mtbkd.app.recipes.own.inputs import (
    FITTED,
    Read,
    find_encoder,
    fit_inputs,
    fitted,
    has_fitting,
    kind_of,
    moments,
    read_inputs,
    scaling_of,
    standardise,
)
from mtbkd.app.recipes.own.mending import mend
from mtbkd.app.recipes.own.readers import Questions
from mtbkd.app.recipes.own.shots import withhold
from mtbkd.app.recipes.own.split import groups_of, split_rows
from mtbkd.app.recipes.own.teachers import label_all
from mtbkd.app.recipes.own.template import TEMPLATE
from mtbkd.data import Dataset, make_dataset
from mtbkd.errors import collect
from mtbkd.files import load_tensors, read_sealed, save_sealed, save_tensors, sha256_of
from mtbkd.inputs.columns import Table
from mtbkd.inputs.images.reading import digest_of
from mtbkd.inputs.kind import InputKind, Rows, Unread
from mtbkd.inputs.proteins.kind import draw as draw_protein
from mtbkd.inputs.proteins.kind import proteins
from mtbkd.inputs.texts.kind import shortened
from mtbkd.student.convolutional import convolutional
from mtbkd.teachers.language.prompt import Shot
from mtbkd.types import InputError, Report, quiet

RECORD = "examples.json"


class Own(NamedTuple):
    """What teaching needs of the examples besides their ids.

    Attributes:
        examples: With clean sequences, if they are proteins.
        ask: What teachers are asked with who name no columns, at rows of the file.
        record: As it is written to the run directory.
        rows: Rows of the file, in the order of the task's ids.
        groups: The group of each row, or None.
        read: What the student reads, not standardised.
    """

    examples: Table
    ask: Callable[[NDArray[np.int64]], Any]
    record: dict[str, Any]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    read: Read


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Read, check, split and standardise the examples.

    Raises:
        InputError: With one message for each fault, or if the file is not the one that the run
            began with.
    """
    own = _section(config)
    path = Path(own.folder) / own.examples
    examples, left_out = read_own(own)
    sha256 = digest_of(path) if path.is_dir() else sha256_of(path)
    recorded = _recorded(folder.parent, path, sha256)
    faults: list[str] = []
    kind = kind_of(own, recorded)
    examples, rows = _checked(examples, kind, own, faults)
    labels = collect(faults, lambda: labels_of(examples, own))
    groups = collect(faults, lambda: groups_of(examples, own))
    for name in examples.lacking(named_columns(own)):
        collect(faults, lambda name=name: examples.words(name))
    if recorded is None:  # else teachers may have answered, and their models be elsewhere
        collect(faults, lambda: find_encoder(kind, own, config.device, None))
        collect(faults, lambda: find_backbones(own, folder.parent / "teachers"))
    read, fits = None, has_fitting(kind, own)
    if rows is not None and not fits and (own.student_encoder is None or not faults):
        place = (folder, sha256)
        read = collect(
            faults,
            lambda: read_inputs(kind, rows, own, config.device, place, recorded, report),
        )
    if faults or rows is None or labels is None:
        raise InputError(*dict.fromkeys(faults))
    classes = classes_of(own, labels)
    everyone = make_dataset(
        np.empty((len(examples.ids), 0), np.float32),
        labels=labels,
        classes=classes,
        ids=examples.ids,
        family=own.family,
        name=f"data set {path}",
    )
    split = split_rows(examples, own, everyone.known.numpy(), groups, config.seed)
    shots, split = withhold(own, examples, everyone, split, config.seed)
    if recorded is None:
        for note in (*left_out, *rows.notes, *split.notes):
            warnings.warn(note, stacklevel=2)
    if read is None:
        read = fit_inputs(kind, rows, split.parts[0], config.seed, folder)
    stretch = moments(read.inputs[split.parts[0]], scaling_of(kind, own))
    everyone = replace(everyone, inputs=standardise(read.inputs, stretch))
    train, calibration, test = (everyone.subset(part) for part in split.parts)
    record = {
        "sha256": sha256,
        "family": own.family,
        "classes": list(classes),
        **rows.about,
        **({} if read.encoder is None else {"encoder": read.encoder}),
        **stretch,
        **({"shots": [[dict(shot.row), shot.says] for shot in shots]} if shots else {}),
    }
    sources = None
    if own.source is not None:
        cells = examples.words(own.source)
        sources = Sources(*(tuple(cells[row] for row in part) for part in split.parts[1:]))
    return Task(
        name=Path(path.name.removesuffix(".gz")).stem,
        train=train,
        calibration=calibration,
        test=test,
        teacher_data=Own(
            examples=examples,
            ask=partial(kind.ask, rows.values),
            record=record,
            rows=np.concatenate(split.parts),
            groups=groups,
            read=read,
        ),
        drawn=_drawing(kind, rows, examples, own, split.parts[2], test),
        others={} if read.encoder is not None else mixed(test, config.seed),
        together=None if groups is None else groups[split.parts[1]],
        sources=sources,
    )


def _checked(
    examples: Table, kind: InputKind, own: OwnConfig, faults: list[str]
) -> tuple[Table, Rows | None]:
    """The examples with what is clean of them, and what the student or its encoder reads."""
    if own.sequence is None or own.reads == "proteins":
        rows = collect(faults, lambda: kind.check(examples))
        return examples if rows is None else rows.table, rows
    # groups and teachers read the sequences, and the student reads numbers
    clean = collect(faults, lambda: proteins(own.id, str(own.sequence)).check(examples))
    examples = examples if clean is None else clean.table
    rows = collect(faults, lambda: kind.check(examples))
    if rows is not None and clean is not None:
        rows = replace(rows, notes=(*clean.notes, *rows.notes))
    return examples, rows


def label(
    config: RunConfig, task: Task, folder: Path, labelling: Labelling
) -> dict[str, dict[str, float]]:
    """Ask every teacher about every example, and align what they say.

    Raises:
        InputError: If teachers or their outputs hold faults, all faults at once; or if code would
            have to be run that only a run directory names.
    """
    own = _section(config)
    data: Own = task.teacher_data

    def begin() -> None:
        if data.read.path is not None:
            save_tensors(data.read.path, data.read.kept)
        save_sealed(folder.parent / RECORD, data.record)

    proteins = None
    if own.sequence is not None and data.groups is not None:
        sequences = data.examples.words(own.sequence)
        proteins = LabelledProteins(
            ids=task.ids,
            sequences=tuple(sequences[row] for row in data.rows),
            train=task.train,
            groups=data.groups[data.rows],
            together=own.group is not None,
            seed=config.seed,
        )
    questions = Questions(
        examples=data.examples,
        features=data.record.get("features", []),
        ask=data.ask,
        rows=data.rows,
        classes=task.train.classes,
        proteins=proteins,
        shots=tuple(Shot(row, tuple(says)) for row, says in data.record.get("shots", [])),
        mend=lambda tables, names: mend(
            tables, names, task.train, task.calibration, folder, labelling.say
        ),
    )
    return label_all(own, questions, folder, labelling, begin)


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor | Unread]:
    """Read new inputs as those of the run were read, and standardise them in the same way.

    Raises:
        InputError: If the file lacks a column or holds something else than the run's, or the
            encoder is not there.
    """
    record, own = read_sealed(folder.parent / RECORD), _section(config)
    kind = kind_of(own, record)
    rows = kind.read(source)
    for note in rows.notes:
        warnings.warn(note, stacklevel=2)
    encoder = find_encoder(kind, own, config.device, record.get("encoder"))
    if encoder is None:
        if has_fitting(kind, own):
            kind = fitted(kind, load_tensors(folder / FITTED))
        # numbers are standardised in place
        return rows.ids, Unread(
            len(rows.ids),
            lambda some: standardise(kind.tensor(rows.values[some]).clone(), record),
        )
    return rows.ids, standardise(encoder.encode(rows.values, report), record)


def student_network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """The student; what an encoder made is read as it is, of which components lose something."""
    own = _section(config)
    if student_kind(config.student, own) == "cnn":
        return convolutional(example, n_outputs)
    made = own.student_encoder is not None or own.reads in ("proteins", "texts")
    if made and config.student.components == "auto":
        student = config.student.model_copy(update={"components": None})
        config = config.model_copy(update={"student": student})
    return network(config, example, n_outputs)


def before(config: RunConfig, out: Path) -> Before:
    """Standardised columns, or bytes; of other kinds the features, standardised."""
    record, own = read_sealed(out / RECORD), _section(config)
    raw = own.student_encoder is None and own.reads not in ("proteins", "texts")
    columns = tuple(record.get("features", ())) if raw else ()
    what = f"the columns {', '.join(columns)}"
    if own.reads == "images":
        what = f"images of {record['channels']} by {' by '.join(map(str, record['size']))} bytes"
    if not raw:
        what = f"the features that {own.student_encoder or 'the run'} makes of {own.reads}"
    if "mean" not in record:
        return Before(what, raw, columns=columns)
    scale = torch.tensor(record["scale"]) if "scale" in record else 1 / torch.tensor(record["sd"])
    return Before(what, raw, torch.tensor(record["mean"]), scale, record.get("clip"), columns)


def _section(config: RunConfig) -> OwnConfig:
    return cast(OwnConfig, config.own)  # a configuration of this recipe has it


def _recorded(run: Path, path: Path, sha256: str) -> dict[str, Any] | None:
    """What the run directory says of its examples, if it has begun; their file must be as then."""
    if not (run / RECORD).exists():
        return None
    record = read_sealed(run / RECORD)
    if record["sha256"] != sha256:
        raise InputError(
            f"Expected {path} as it was when {run} began, but it was changed. Choose another "
            "--out, or delete it."
        )
    return record


def _drawing(
    kind: InputKind,
    rows: Rows,
    examples: Table,
    own: OwnConfig,
    places: NDArray[np.int64],
    test: Dataset,
) -> Callable[[int], str]:
    """Shows a test example: what the student reads, below the protein or text that teachers do."""
    beside = [] if own.reads in ("proteins", "texts") else text_columns(own)[:1]
    words = [examples.words(column) for column in beside]
    show = draw_protein if own.sequence is not None else shortened

    def drawn(row: int) -> str:
        place = int(places[row])
        lines = [show(column[place]) for column in words]
        return "<br>".join([*lines, kind.draw(rows, place, test.inputs[row])])

    return drawn


RECIPE = Recipe(
    name="own",
    summary="Your examples, your teachers. Classes, several labels or numbers.",
    needs="a configuration: mtbkd recipes copy own my.yaml",
    defaults=AUTOMATIC,
    load=load,
    network=student_network,
    read_as=read_as,
    label=label,
    template=TEMPLATE,
    students=("mlp", "cnn", "text", "encoder"),
    before=before,
)
