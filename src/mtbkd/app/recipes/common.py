"""What built-in recipes share: asking teachers, the student's network, new inputs, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Before, Costs, Task, mlp
from mtbkd.data import Dataset, make_dataset
from mtbkd.inputs.tables import read_table
from mtbkd.outputs.aligned import TeacherOutputs, align
from mtbkd.student.components import Components, n_components
from mtbkd.student.pixels import pixels_like
from mtbkd.teachers.base import Teacher, check_output
from mtbkd.teachers.labelling.convert import checked_table
from mtbkd.types import Floats, InputError

_ROWS = 8192  # images that components are found on


_MIXED = 1000


class Rows(NamedTuple):
    """What teachers train on: (example, column), and (example,) or (example, label)."""

    inputs: NDArray[np.floating]
    labels: NDArray[Any]


def ask(
    teachers: Sequence[Teacher], task: Task, inputs: Any = None
) -> tuple[TeacherOutputs, Costs]:
    """What trained teachers say on all examples of a task, asked at once, and what that costs.

    They are asked with what the student reads if no ``inputs`` are given.
    """
    if inputs is None:
        parts = [task.train.inputs, task.calibration.inputs, task.test.inputs]
        inputs = torch.cat(parts).numpy()
    tables, costs = [], {}
    for teacher in teachers:
        start = perf_counter()
        output = teacher.predict(inputs)
        spent = {"ms_per_example": 1000 * (perf_counter() - start) / len(inputs)}
        if teacher.parameters is not None:
            spent["parameters"] = float(teacher.parameters)
        costs[teacher.name] = spent
        numbers = check_output(
            teacher, output, rows=len(inputs), where=f"the examples of {task.name}"
        )
        tables.append(checked_table(teacher, numbers, task.ids))
    return align(tables, task.ids, task.train.classes), costs


def network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """The student: from numbers, or their components, to its outputs, through hidden layers.

    Images, which are bytes of shape (example, channel, height, width), are read pixel by pixel.
    """
    start: list[nn.Module] = []
    if example.dim() == 4:
        start = [pixels_like(example), nn.Flatten()]
        example = nn.Sequential(*start)(example[:: -(-len(example) // _ROWS)])
    n = n_components(config.student.components, example.shape[-1])
    layers = mlp([n or example.shape[-1], *config.student.hidden, n_outputs])
    if n is not None:
        start.append(Components(example, n))
    return nn.Sequential(*start, *layers)


def reader(
    n_columns: int, what: str, unit: float = 1.0
) -> Callable[[Path], tuple[tuple[str, ...], Tensor]]:
    """Reads new inputs: .npy (example, column) or .csv with a header and, if wanted, an id first.

    ``what`` says what the examples are, in the plural; numbers are divided by ``unit``.
    """

    def read(path: Path) -> tuple[tuple[str, ...], Tensor]:
        table = read_table(path, what)
        names = table.names
        if names[0] == "id":
            table, names = table.with_ids("id", "Add it."), names[1:]
        if len(names) != n_columns:
            raise InputError(
                f"Expected {n_columns} numbers for each row of {what} in {path}, but got "
                f"{len(names)}. Give one row for each example."
            )
        # checked without labels, so the family and its columns do not matter
        data = make_dataset(
            table.matrix(names) / unit,
            classes=[what],
            ids=table.ids or None,
            family="regression",
            name=str(path),
        )
        return data.ids, data.inputs

    return read


def divided(
    what: str, unit: float = 1.0, size: tuple[int, int] | None = None
) -> Callable[[RunConfig, Path], Before]:
    """The same for a graph: numbers, which are ``what``, are divided by ``unit``.

    They are the pixels of a grey picture, up to ``unit``, if its height and width are given.
    """
    grid = None if size is None else (*size, unit)
    return lambda config, out: Before(what, scale=torch.tensor(1 / unit), grid=grid)


def mixed(test: Dataset, seed: int) -> dict[str, Dataset]:
    """Inputs from nowhere, to compare test examples with, by what they are.

    Each number of one of the first 1,000 examples is that of another one, drawn by the seed: every
    column has the values that it had, and no two of them belong together, as in the reference of
    Breiman and Cutler's random forests that learn without labels. None of a single column.
    """
    some = test.without_labels(range(len(test))).subset(range(min(len(test), _MIXED)))
    shape, flat = some.inputs.shape, some.inputs.flatten(1)
    if not len(some) or flat.shape[1] < 2:
        return {}
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(flat.shape, generator=generator).argsort(0)
    inputs = flat.gather(0, order).reshape(shape)
    return {"features of different examples": replace(some, inputs=inputs)}


def picture(pixels: Floats, width: int, label: str) -> str:
    """Grey pixels in 0-1, row by row, as inline SVG of 12 screen pixels each."""
    height = len(pixels) // width
    cells = "".join(
        f'<rect x="{i % width}" y="{i // width}" width="1.02" height="1.02" '
        f'fill-opacity="{v:.2f}"/>'
        for i, v in enumerate(pixels.tolist())
        if v > 0
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{12 * width}" height="{12 * height}" '
        f'role="img" aria-label="{label}" style="background:#fff" fill="#111">{cells}</svg>'
    )
