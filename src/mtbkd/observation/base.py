"""What the rest of the house needs to know about a family: what is predicted, and how it is met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mtbkd.observation.answers import Answer
from mtbkd.observation.units import Units
from mtbkd.prior.mixture import Prior
from mtbkd.prior.spaces import Spaces
from mtbkd.types import Batch, Family, Floats, Ints

Kind = Literal["logits", "probs", "log_probs", "counts", "mean"]
"""What a teacher's numbers are; declared, never guessed."""

Labels = Sequence[object] | ArrayLike


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


class Tempering(NamedTuple):
    """How each teacher's log score of the labels rests on its temperature T.

    It is ``label / T - logsumexp_j(outcomes_j / T + log_sizes_j) - power log T``.

    Attributes:
        label: Shape (teacher, example) or (teacher, example, column).
        outcomes: All that the teacher tells apart, shape (teacher, example, ..., outcome).
        log_sizes: ``-inf`` for what is no outcome of this teacher; the same shape, or 1 for all
            axes between the teacher and the outcome.
        power: One half where the temperature is a factor of a variance, else 0.
    """

    label: Tensor
    outcomes: Tensor
    log_sizes: Tensor
    power: float = 0.0


class Names(NamedTuple):
    """How messages call what is checked.

    Attributes:
        owner: The data set or the teacher.
        ids: One for each row.
        columns: Names of classes, labels or targets.
    """

    owner: str
    ids: tuple[str, ...]
    columns: tuple[str, ...]

    def row(self, row: int) -> str:
        """The id of a row, as far as there is one."""
        return repr(self.ids[row]) if row < len(self.ids) else f"of row {row}"


class Observation(Protocol):
    """How outputs of the student meet labels and teachers.

    All functions take outputs of shape (..., example, output) and a `Batch` whose labels and terms
    have the same leading axes; ``value`` is the log likelihood of the labels plus ``power`` times
    the log density of the mixture prior, for each example.
    """

    family: ClassVar[Family]

    @property
    def spaces(self) -> Spaces | None:
        """What the teachers tell apart, where that is not everything."""
        ...

    def log_likelihood(self, outputs: Tensor, labels: Tensor, /) -> Tensor:
        """Summed over columns, 0 where labels are missing, shape (..., example)."""
        ...

    def terms(
        self, said: Said, concentration: float, softening: float | Tensor, discount: float, /
    ) -> Any:
        """What the mixture needs, computed once for each concentration.

        Softening is one number, or one for each teacher; so is concentration, or one for each
        teacher and example, where a teacher gives counts.
        """
        ...

    def value(self, outputs: Tensor, batch: Batch, prior: Prior, /) -> Tensor:
        """By torch's own operations, so that autograd can be asked."""
        ...

    def value_and_slope(
        self, outputs: Tensor, batch: Batch, prior: Prior, /
    ) -> tuple[Tensor, Tensor]:
        """The same, and its gradient in the outputs, in closed form."""
        ...

    def roots(self, outputs: Tensor, batch: Batch, prior: Prior, /) -> Tensor:
        """Square root ``R`` of the negative Hessian ``R R'`` of each example in its outputs.

        Its negative eigenvalues are replaced by 0; shape (example, output, column).
        """
        ...

    def log_responsibilities(self, terms: Any, outputs: Tensor, softening: float, /) -> Tensor:
        """Log of each teacher's share of the prior's pull, (..., teacher, example[, column])."""
        ...

    def complete(self, said: Said, temperature: Tensor | None, /) -> Tensor:
        """What each teacher says by itself, tempered, in full.

        Classes that it does not tell apart are equally probable to it. Values as if it told all
        classes apart, (teacher, example, class) or (teacher, example, column, 2).
        """
        ...

    def score(self, said: Said, labels: Tensor, temperature: Tensor | None, /) -> Tensor:
        """Log probability, or density, of the labels under each teacher by itself.

        Shape (teacher, example) or (teacher, example, column); 0 where missing.
        """
        ...

    def tempering(self, said: Said, labels: Tensor, /) -> Tempering:
        """The same score as a function of the temperature.

        Of a partial teacher it is that among the classes that it knows.
        """
        ...

    def certainty(self, values: Tensor, mask: Tensor, /) -> Tensor:
        """Log weights by how sure teachers are, before they are normalised: shape of the mask."""
        ...

    def features(self, values: Tensor, /) -> Tensor:
        """What stacked weights may depend on, (teacher, example[, column], feature)."""
        ...

    def n_alike(self, values: Tensor, /) -> int:
        """How many classes are alike where nobody is trusted."""
        ...


class Outcome(Protocol):
    """What is predicted, and everything that differs with it.

    Attributes:
        family: As files and data sets name it.
        column: What a column is called.
        columns: The same of several.
        exclusive: Whether exactly one of the columns is true. Then an example is one cell, with a
            label and a value for each column; else every column is a cell, with a label and two
            values.
        numeric: Whether columns are numbers, with units in which the student does not work.
        n_outputs: How many outputs the student has for each column.
        mapping: What a student's network maps columns to, for messages.
        kinds: What a teacher's numbers may be.
        missing: The label that stands for none.
        twice: What to do where two columns of a teacher are mapped to one.
    """

    family: ClassVar[Family]
    column: ClassVar[str]
    columns: ClassVar[str]
    exclusive: ClassVar[bool]
    numeric: ClassVar[bool]
    n_outputs: ClassVar[int]
    mapping: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]
    missing: ClassVar[float]
    twice: ClassVar[str]

    def observe(
        self, n_columns: int, blocks: Tensor | None = None, kept: Tensor | None = None
    ) -> Observation:
        """How outputs meet teachers with these gaps, which are as in `TeacherOutputs`."""
        ...

    def read_labels(self, labels: Labels, n_rows: int, names: Names) -> tuple[Tensor, list[str]]:
        """Labels as a `Dataset` holds them, and what is wrong with them."""
        ...

    def faults(self, numbers: Floats, kind: Kind, names: Names) -> list[str]:
        """What is impossible about a teacher's finite numbers, given what they are declared."""
        ...

    def settle(
        self, numbers: Floats, kind: Kind, target: Ints, log_variance: Floats | None
    ) -> Tensor:
        """A teacher's numbers as `TeacherOutputs` holds them.

        Numbers, and log variances where the teacher gives them, are (example, own column);
        ``target`` is the new column of each own one, -1 for those that are left out.
        """
        ...

    def unsaid(self, n_columns: int) -> Tensor:
        """What stands where a teacher says nothing, of the shape of what it says."""
        ...

    def neutral(self, kind: Kind, n_columns: int) -> float:
        """A number that any teacher might give."""
        ...

    def pooled(self, log_weights: Tensor, complete: Tensor) -> Tensor:
        """One teacher's values that say what all say together."""
        ...

    def point(self, outputs: Tensor, units: Units | None) -> Tensor:
        """The student's probabilities, or means in the targets' units: (..., example, column)."""
        ...

    def traced(self, outputs: Tensor) -> Tensor:
        """Functions of the student's outputs whose convergence is judged."""
        ...

    def cuts(self, draws: Tensor) -> Tensor:
        """Where events end that draws are compared by: (draw, example, output) to (example, ...).

        Only numbers need them.
        """
        ...

    def events(self, outputs: Tensor, cuts: Tensor) -> Tensor:
        """Probabilities of events that exclude each other, (..., example, column, event)."""
        ...

    def summarise(self, draws: Tensor, *, units: Units | None, level: float, point: str) -> Answer:
        """The answer, from the student's outputs under each draw, (draw, example, output)."""
        ...


def cell_shape(outcome: Outcome, n_columns: int) -> tuple[int, ...]:
    """Shape of what is masked, weighed or labelled of an example."""
    return () if outcome.exclusive else (n_columns,)


def value_shape(outcome: Outcome, n_columns: int) -> tuple[int, ...]:
    """Shape of what a teacher says of an example."""
    return (n_columns,) if outcome.exclusive else (n_columns, 2)


def labelled(outcome: Outcome, labels: Tensor) -> Tensor:
    """Which cells have a label, of the shape of the labels."""
    return (labels != outcome.missing) & ~labels.isnan()


def psd_root(matrix: Tensor) -> Tensor:
    """``R`` with ``R R'`` the matrix without its negative eigenvalues: (..., n, n) to the same."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
