"""What your teachers are asked with: rows of columns, texts, or images that are opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.language import Prompted, columns_read
from mtbkd.app.config.own import OwnConfig
from mtbkd.app.config.own_teachers import HuggingFaceTeacher, ModelTeacher, OnnxTeacher
from mtbkd.app.recipes.own.heads import LabelledProteins
from mtbkd.errors import need
from mtbkd.inputs.columns import Table
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherTable
from mtbkd.teachers.language.prompt import Shot
from mtbkd.types import Floats32, InputError


@dataclass(frozen=True)
class Questions:
    """What all teachers are asked about.

    Attributes:
        examples: The file.
        features: Numeric columns that the student reads, as do teachers who name none.
        ask: What these are asked with instead where the student reads something else, at rows of
            the file.
        rows: The row of the file for each example of the task.
        classes: Classes, labels or targets of the data.
        proteins: What teachers with a backbone are trained on and asked about.
        matrices: Numbers of columns that were read before, shape (row of the file, column).
        shots: Labelled rows that language models are shown.
        mend: All tables, and which are language models', to the tables as they are learned from.
    """

    examples: Table
    features: Sequence[str]
    ask: Callable[[NDArray[np.int64]], Any]
    rows: NDArray[np.int64]
    classes: tuple[str, ...]
    proteins: LabelledProteins | None = None
    matrices: dict[tuple[str, ...], Floats32] = field(default_factory=dict)
    shots: tuple[Shot, ...] = ()
    mend: Callable[[dict[str, TeacherTable], list[str]], dict[str, TeacherTable]] = (
        lambda tables, _: tables
    )

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the examples, in the order of the task."""
        return tuple(self.examples.ids[row] for row in self.rows)


def reader_of(
    config: ModelTeacher, own: OwnConfig, questions: Questions
) -> Callable[[int, int], Any]:
    """What a teacher is asked with: first example, and the one after the last, to its inputs.

    Raises:
        InputError: If a column is not there or holds something else.
    """
    rows = questions.rows
    if isinstance(config, Prompted):
        names = columns_read(config, OUTCOMES[own.family].exclusive)
        columns = {name: questions.examples.words(name) for name in names}
        return lambda start, stop: [cells_of(columns, row) for row in rows[start:stop]]
    reads = config.reads
    if reads is None and own.reads != "numbers":
        if isinstance(config, OnnxTeacher) and own.reads != "images":
            raise InputError(
                f"Expected columns that the ONNX file {config.onnx} reads, as the student reads "
                f"{own.reads}, but got none. Name them with reads."
            )
        return lambda start, stop: questions.ask(rows[start:stop])
    if isinstance(reads, str):
        cells = questions.examples.words(reads)
        words = [cells[row] for row in rows]
        if isinstance(config, HuggingFaceTeacher) and config.task == "image":
            return lambda start, stop: _images(Path(own.folder), words[start:stop])
        return lambda start, stop: words[start:stop]
    columns = tuple(reads or questions.features)
    if columns not in questions.matrices:
        questions.matrices[columns] = questions.examples.matrix(columns)
    matrix = questions.matrices[columns]
    return lambda start, stop: matrix[rows[start:stop]]


def cells_of(columns: Mapping[str, Sequence[str]], row: int) -> dict[str, str]:
    """What a prompt reads of a row."""
    return {name: cells[row] for name, cells in columns.items()}


def _images(folder: Path, names: Sequence[str]) -> list[Any]:
    """The images of these files, in RGB."""
    image = need("PIL.Image", "hf")
    found = []
    for name in names:
        with image.open(folder / name) as file:
            found.append(file.convert("RGB"))
    return found
