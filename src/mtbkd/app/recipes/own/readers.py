"""What your teachers are asked with: rows of columns, texts, or images that are opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.own import OwnConfig
from mtbkd.app.config.own_teachers import HuggingFaceTeacher, ModelTeacher, OnnxTeacher
from mtbkd.inputs.columns import Table
from mtbkd.teachers.base import need
from mtbkd.types import InputError

Matrices = dict[tuple[str, ...], NDArray[np.float32]]


@dataclass(frozen=True)
class Rows:
    """Reads cells of the examples, in the order of the task.

    Attributes:
        values: Shape (row of the file, column), or one text for each row of the file.
        rows: The row of the file for each example of the task.
    """

    values: Any
    rows: NDArray[np.int64]

    def __call__(self, start: int, stop: int) -> Any:
        """Inputs of some examples."""
        wanted = self.rows[start:stop]
        if isinstance(self.values, np.ndarray):
            return self.values[wanted]
        return [self.values[row] for row in wanted]


@dataclass(frozen=True)
class Images:
    """Opens the images whose paths are read."""

    paths: Rows
    folder: Path

    def __call__(self, start: int, stop: int) -> list[Any]:
        """Images of some examples, in RGB."""
        image = need("PIL.Image", "hf")
        found = []
        for name in self.paths(start, stop):
            with image.open(self.folder / name) as file:
                found.append(file.convert("RGB"))
        return found


def reader_of(
    config: ModelTeacher,
    own: OwnConfig,
    examples: Table,
    features: Sequence[str] | str,
    rows: NDArray[np.int64],
    matrices: Matrices,
) -> Callable[[int, int], Any]:
    """Reads what a teacher is asked with.

    Args:
        config: The teacher.
        own: Names the folder of images.
        examples: The file.
        features: Columns for teachers that name none, or one column of text.
        rows: The row of the file for each example of the task.
        matrices: Numbers of columns that were read before; added to.

    Raises:
        InputError: If a column is not there or holds something else.
    """
    reads = config.reads or features
    if isinstance(reads, str):
        if isinstance(config, OnnxTeacher) and config.reads is None:
            raise InputError(
                f"Expected columns that the ONNX file {config.onnx} reads, as the student reads "
                "sequences, but got none. Name them with reads."
            )
        words = Rows(examples.words(reads), rows)
        image = isinstance(config, HuggingFaceTeacher) and config.task == "image"
        return Images(words, Path(own.folder)) if image else words
    columns = tuple(reads)
    if columns not in matrices:
        matrices[columns] = examples.matrix(columns)
    return Rows(matrices[columns], rows)
