"""What the rest of the house needs to know about a family of outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.prior.mixture import Strength
from mtbkd.types import Batch, Family


class Said(NamedTuple):
    """What the teachers say on some examples, and what it weighs.

    Attributes:
        values: As in `TeacherOutputs`, shape (teacher, example, ...).
        log_weights: Shape (teacher, example) or (teacher, example, column); ``-inf`` where a
            teacher says nothing.
        kept: As in `TeacherOutputs`, shape (teacher, example, kept).
        inside: Probability that one of the classes that a partial teacher knows is true, shape
            (teacher, example); NaN where it does not say.
        nobody: Log weight of trusting no teacher, shape (example,) or (example, column).
    """

    values: Tensor
    log_weights: Tensor
    kept: Tensor | None = None
    inside: Tensor | None = None
    nobody: Tensor | None = None


@dataclass(frozen=True)
class Observation:
    """How outputs of the student meet labels and teachers.

    All functions take outputs of shape (..., example, output) and a `Batch` whose labels and terms
    have the same leading axes; ``value`` is the log likelihood of the labels plus ``power`` times
    the log density of the mixture prior, for each example.

    Attributes:
        family: What is predicted.
        n_outputs: How many outputs the student has for so many classes, labels or targets.
        log_likelihood: ``(outputs, labels)``, summed over columns, 0 where labels are missing.
        terms: ``(said, concentration, softening, discount) -> terms``: what the mixture needs,
            computed once for each concentration; softening is one number or one for each teacher.
        value: By torch's own operations, so that autograd can be asked.
        value_and_slope: The same, and its gradient in the outputs, in closed form.
        roots: Square root ``R`` of the negative Hessian ``R R'`` of each example in its outputs,
            (example, output, column), its negative eigenvalues replaced by 0.
        log_responsibilities: ``(terms, outputs, softening)``: log of each teacher's share of the
            prior's pull, shape (..., teacher, example) or (..., teacher, example, column).
        complete: ``(said, temperature)``: what each teacher says by itself, tempered, in full:
            classes that it does not tell apart are equally probable to it. Values as if it told
            all classes apart, (teacher, example, class) or (teacher, example, column, 2).
        score: ``(said, labels, temperature)``: log probability, or density, of the labels under
            each teacher by itself, (teacher, example) or (teacher, example, column); 0 where
            missing.
        n_alike: ``values``: how many classes are alike where nobody is trusted.
        features: ``values``: what weights may depend on, (teacher, example[, column], feature).
    """

    family: Family
    n_outputs: Callable[[int], int]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    terms: Callable[[Said, float, float | Tensor, float], Any]
    value: Callable[[Tensor, Batch, Strength], Tensor]
    value_and_slope: Callable[[Tensor, Batch, Strength], tuple[Tensor, Tensor]]
    roots: Callable[[Tensor, Batch, Strength], Tensor]
    log_responsibilities: Callable[[Any, Tensor, float], Tensor]
    complete: Callable[[Said, Tensor | None], Tensor]
    score: Callable[[Said, Tensor, Tensor | None], Tensor]
    n_alike: Callable[[Tensor], int]
    features: Callable[[Tensor], Tensor]


def psd_root(matrix: Tensor) -> Tensor:
    """``R`` with ``R R'`` the matrix without its negative eigenvalues: (..., n, n) to the same."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
