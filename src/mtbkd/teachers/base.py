"""What a teacher is: a function of inputs, and the declaration of what its numbers mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.outputs.aligned import Kind
from mtbkd.types import Family, InputError, array_of, in_order

Numbers = tuple[Tensor, Tensor | None]
"""Values, shape (example, class), and their variances, of the same shape, or None."""


@dataclass(frozen=True)
class Teacher:
    """Anything that can be asked about examples.

    Attributes:
        name: What it is called.
        classes: Its own classes, labels or targets, one for each column.
        kind: What its numbers are: ``logits``, ``probs`` or ``log_probs`` of classes, ``logits``
            (log-odds) or ``probs`` of labels, the ``mean`` of targets. Declared, never guessed.
        predict: Inputs of some examples to an array of shape (example, class); with `variance` to
            a pair of mean and variance, each (example, target).
        family: What it predicts.
        variance: Whether `predict` gives variances too; for regression only.
        held_out: False if it was trained on the examples that it labels.
        partial: Whether it is declared to know fewer classes than the data.
        class_map: Own class to the class or classes of the data that it means, or to None.
        merge: Whether several own classes may mean the same.
        top: Keep only this many classes, the most probable ones, and the mass of the rest.
        fingerprint: A hash of its parameters, where they can be hashed, so that labelling is not
            resumed with a teacher that was trained again.
        parameters: How many it has, where they can be counted; for reports only.
        group: Teachers of one group share mistakes, as prompts of one model do, and count as one.
    """

    name: str
    classes: tuple[str, ...]
    kind: Kind
    predict: Callable[[Any], Any]
    family: Family = "classification"
    variance: bool = False
    held_out: bool = True
    partial: bool = False
    class_map: Mapping[str, str | Sequence[str] | None] | None = None
    merge: bool = False
    top: int | None = None
    fingerprint: str = ""
    parameters: int | None = None
    group: str = ""

    def declaration(self) -> dict[str, Any]:
        """All that says what its numbers mean, as JSON can hold it."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        del said["predict"], said["parameters"]
        if not self.group:
            del said["group"]  # as in folders of labels from before there were groups
        return json.loads(json.dumps(said, default=list))


@dataclass(frozen=True)
class Answered:
    """What a teacher said of some rows of a batch, and why it said nothing of others.

    Attributes:
        values: As `Teacher.predict` gives them; what stands in rows without an answer is left out.
        reasons: Why there is none, by position in the batch.
    """

    values: Any
    reasons: Mapping[int, str]


class CannotGoOn(InputError):
    """Why a teacher can be asked no further, such as a limit: no row is to blame."""


def as_numbers(teacher: Teacher, output: object, where: str) -> Numbers:
    """What a teacher returned, as tensors on the CPU with one column for each class.

    Raises:
        InputError: If it has not the declared form or number of columns.
    """
    if not teacher.variance:
        return _matrix(teacher, output, where), None
    if not isinstance(output, tuple | list) or len(output) != 2:
        raise InputError(
            f"Expected a pair (mean, variance) from teacher {teacher.name!r} in {where}, but "
            f"got {type(output).__name__}. Return both, or declare no variance."
        )
    values, variance = (_matrix(teacher, part, where) for part in output)
    if variance.shape != values.shape:
        raise InputError(
            f"Expected one variance for each mean from teacher {teacher.name!r} in {where}, but "
            f"got shapes {tuple(variance.shape)} and {tuple(values.shape)}. Return equal shapes."
        )
    return values, variance


def finite_rows(teacher: Teacher, numbers: Numbers) -> Tensor:
    """Which rows hold numbers only, shape (example,); the log of zero may be minus infinity."""
    values, variance = numbers
    if all(n is None or isfinite(n.sum()) for n in numbers):
        return torch.ones(len(values), dtype=torch.bool)
    good = values.isfinite()
    if teacher.kind == "log_probs":
        good |= values.isneginf()
    if variance is not None:
        good &= variance.isfinite()
    return good.all(1)


def check_output(teacher: Teacher, output: object, *, rows: int, where: str) -> Numbers:
    """A teacher's output on one batch, checked.

    Raises:
        InputError: If rows or columns are missing, or a number is not finite.
    """
    values, variance = as_numbers(teacher, output, where)
    if len(values) != rows:
        raise InputError(
            f"Expected {rows} rows from teacher {teacher.name!r} in {where}, but got "
            f"{len(values)}. Return one row for each example."
        )
    good = finite_rows(teacher, (values, variance))
    if not good.all():
        raise InputError(
            f"Expected finite outputs from teacher {teacher.name!r}, but got NaN or infinity in "
            f"row {int(good.int().argmin())} of {where} ({int((~good).sum())} such rows). Mend the "
            "teacher or leave these examples out."
        )
    return values, variance


def _matrix(teacher: Teacher, output: object, where: str) -> Tensor:
    if isinstance(output, Tensor):
        array = output.detach().cpu()
    else:
        numbers = array_of(in_order(output, teacher.classes))
        if numbers.dtype.kind not in "fiub":
            raise InputError(
                f"Expected numbers from teacher {teacher.name!r} in {where}, but got "
                f"{numbers.dtype}. Return an array of shape (example, class)."
            )
        # a copy where PyTorch could not share the memory
        array = torch.from_numpy(np.require(numbers, requirements=["C", "W"]))
    if not array.is_floating_point():
        array = array.double()
    if array.ndim == 1 and len(teacher.classes) == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise InputError(
            f"Expected outputs of teacher {teacher.name!r} as (example, class), but got "
            f"{array.ndim} axes in {where}. Return a table."
        )
    if array.shape[1] != len(teacher.classes):
        raise InputError(
            f"Expected {len(teacher.classes)} columns from teacher {teacher.name!r} in every "
            f"batch, one for each class, but got {array.shape[1]} in {where}. Name the classes of "
            "its outputs, or mend the teacher."
        )
    return array


def from_callable(
    name: str,
    function: Callable[[Any], Any],
    *,
    kind: Kind,
    classes: Sequence[object],
    **declared: Any,
) -> Teacher:
    """A teacher from any function of a batch of inputs.

    Args:
        name: What the teacher is called.
        function: Inputs of some examples to an array of shape (example, class), or to a pair of
            mean and variance if ``variance=True`` is declared.
        kind: What the numbers are.
        classes: One for each column.
        **declared: The other attributes of `Teacher`.

    >>> import numpy as np
    >>> coin = from_callable("coin", lambda x: np.full((len(x), 2), 0.5), kind="probs",
    ...                      classes=["heads", "tails"])
    >>> coin.predict([1, 2, 3]).shape
    (3, 2)
    """
    return Teacher(
        name=name, classes=tuple(map(str, classes)), kind=kind, predict=function, **declared
    )


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
