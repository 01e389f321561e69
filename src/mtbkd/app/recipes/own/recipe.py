"""Your examples, your teachers: a file of rows, and whatever can be asked about them."""

from __future__ import annotations

import html
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtbkd.app.config.own import AUTOMATIC, OwnConfig
from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Labelling, Recipe, Sources, Task
from mtbkd.app.recipes.common import network
from mtbkd.app.recipes.deeploc.shared import draw
from mtbkd.app.recipes.own.columns import (
    classes_of,
    columns_of,
    labels_of,
    named_columns,
    read_own,
    text_columns,
)
from mtbkd.app.recipes.own.heads import LabelledProteins, find_backbones
from mtbkd.app.recipes.own.inputs import (
    Encoded,
    cleaned,
    encode,
    find_encoder,
    moments,
    numbers,
    standardise,
)
from mtbkd.app.recipes.own.readers import Questions
from mtbkd.app.recipes.own.split import groups_of, split_rows
from mtbkd.app.recipes.own.teachers import label_all
from mtbkd.app.recipes.own.template import TEMPLATE
from mtbkd.data import Dataset, make_dataset
from mtbkd.errors import collect
from mtbkd.files import read_sealed, save_sealed, save_tensors, sha256_of
from mtbkd.inputs.columns import Table, few
from mtbkd.inputs.proteins.reading import ID_COLUMNS, SEQUENCE_COLUMNS, read_proteins
from mtbkd.inputs.tables import read_table
from mtbkd.types import InputError, Report, quiet

RECORD = "examples.json"
_SHOWN, _LETTERS = 5, 240


class Own(NamedTuple):
    """What teaching needs of the examples besides their ids.

    Attributes:
        examples: With clean sequences, if they are proteins.
        record: As it is written to the run directory.
        rows: Rows of the file, in the order of the task's ids.
        groups: The group of each row, or None.
        encoded: Proteins as the student reads them, if it does.
    """

    examples: Table
    record: dict[str, Any]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    encoded: Encoded | None


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Read, check, split and standardise the examples.

    Raises:
        InputError: With one message for each fault, or if the file is not the one that the run
            began with.
    """
    own = _section(config)
    path = Path(own.folder) / own.examples
    examples, notes, unread = read_own(own), (), ()
    recorded = _recorded(folder.parent, path)
    faults: list[str] = []
    if own.sequence is not None:
        clean = collect(faults, lambda: cleaned(examples, str(own.sequence)))
        examples, notes = clean or (examples, ())
    features: list[str] = []
    inputs: Any = np.empty((len(examples.ids), 0), np.float32)
    if own.student_encoder is None:
        features, unread = columns_of(examples, own)
        inputs = collect(faults, lambda: examples.matrix(features))
    labels = collect(faults, lambda: labels_of(examples, own))
    groups = collect(faults, lambda: groups_of(examples, own))
    for name in examples.lacking(named_columns(own)):
        collect(faults, lambda name=name: examples.words(name))
    if recorded is None:  # else teachers may have answered, and their models be elsewhere
        collect(faults, lambda: find_encoder(own, config.device, None))
        collect(faults, lambda: find_backbones(own, folder.parent / "teachers"))
    if faults or inputs is None or labels is None:
        raise InputError(*dict.fromkeys(faults))
    classes = classes_of(own, labels)
    everyone = make_dataset(
        inputs,
        labels=labels,
        classes=classes,
        ids=examples.ids,
        family=own.family,
        name=f"data set {path}",
    )
    split = split_rows(examples, own, everyone.known.numpy(), groups, config.seed)
    if recorded is None:
        for note in (*notes, *unread, *split.notes):
            warnings.warn(note, stacklevel=2)
    encoded = None
    if own.student_encoder is not None:
        before = None if recorded is None else recorded["encoder"]
        sequences = examples.words(str(own.sequence))
        encoded = encode(sequences, own, config.device, folder, before, report)
        everyone = replace(everyone, inputs=encoded.inputs)
    stretch = moments(everyone.inputs[split.parts[0]], clipped=encoded is not None)
    everyone = replace(everyone, inputs=standardise(everyone.inputs, stretch))
    train, calibration, test = (everyone.subset(rows) for rows in split.parts)
    record = {
        "sha256": sha256_of(path),
        "family": own.family,
        "classes": list(classes),
        "features": features,
        **({} if encoded is None else {"encoder": encoded.encoder}),
        **stretch,
    }
    shown = [examples.words(c) for c in text_columns(own)[:1]]
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
            record=record,
            rows=np.concatenate(split.parts),
            groups=groups,
            encoded=encoded,
        ),
        drawn=lambda row: _draw(test, features, row, [t[split.parts[2][row]] for t in shown], own),
        together=None if groups is None else groups[split.parts[1]],
        sources=sources,
    )


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
        if data.encoded is not None:
            save_tensors(data.encoded.path, {"features": data.encoded.inputs})
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
        features=data.record["features"] or str(own.sequence),
        rows=data.rows,
        classes=task.train.classes,
        proteins=proteins,
    )
    return label_all(own, questions, folder, labelling, begin)


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor]:
    """Read new inputs by the names of their columns, and standardise them as the run does.

    Proteins may be FASTA or a table, as `read_proteins` reads them.

    Raises:
        InputError: If the file lacks a column, holds something else than numbers or proteins, or
            the encoder is not there.
    """
    record, own = read_sealed(folder.parent / RECORD), _section(config)
    if "encoder" in record:
        proteins = read_proteins(
            source,
            id_column=None if own.id.casefold() in ID_COLUMNS else own.id,
            sequence_column=None
            if str(own.sequence).casefold() in SEQUENCE_COLUMNS
            else own.sequence,
        )
        for note in proteins.notes:
            warnings.warn(note, stacklevel=2)
        encoder = find_encoder(own, config.device, record["encoder"])
        inputs = numbers(proteins.sequences, encoder, report)
        return proteins.ids, standardise(inputs, record)
    examples = read_table(source, "examples").with_ids(own.id, "Add it.")
    features = record["features"]
    lacking = examples.lacking(features)
    if lacking:
        raise InputError(
            f"Expected the columns {few(features)} in {source}, but {few(lacking)} "
            f"{'is' if len(lacking) == 1 else 'are'} missing. Add "
            f"{'it' if len(lacking) == 1 else 'them'}."
        )
    return examples.ids, standardise(torch.from_numpy(examples.matrix(features)), record)


def student_network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """The student; what an encoder made is read as it is, of which components lose something."""
    if _section(config).student_encoder is not None and config.student.components == "auto":
        student = config.student.model_copy(update={"components": None})
        config = config.model_copy(update={"student": student})
    return network(config, example, n_outputs)


def _section(config: RunConfig) -> OwnConfig:
    return cast(OwnConfig, config.own)  # a configuration of this recipe has it


def _recorded(run: Path, path: Path) -> dict[str, Any] | None:
    """What the run directory says of its examples, if it has begun; their file must be as then."""
    if not (run / RECORD).exists():
        return None
    record = read_sealed(run / RECORD)
    if record["sha256"] != sha256_of(path):
        raise InputError(
            f"Expected {path} as it was when {run} began, but it was changed. Choose another "
            "--out, or delete it."
        )
    return record


def _draw(test: Dataset, features: list[str], row: int, shown: list[str], own: OwnConfig) -> str:
    """The protein or text that is read, if any is, and the most unusual features."""
    lines = []
    if features:
        values = test.inputs[row].numpy()
        unusual = np.argsort(-np.abs(values), kind="stable")[:_SHOWN]
        lines = [f"<code>{html.escape(features[i])} {values[i]:+.1f} sd</code>" for i in unusual]
    for text in shown:
        if own.sequence is not None:
            lines.insert(0, draw(text))
        else:
            cut = text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"
            lines.insert(0, html.escape(cut))
    return "<br>".join(lines)


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
)
