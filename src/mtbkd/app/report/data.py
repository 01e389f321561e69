"""What a report is made of: arrays and words, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from mtbkd.types import Family, Floats, InputError


@dataclass(frozen=True)
class Example:
    """One of the most uncertain test examples; what the student says stands in the arrays.

    Attributes:
        id: Its id.
        row: Its row in the report's arrays.
        html: The example drawn as what it is: an inline ``<svg>``, ``<img>`` with a ``data:``
            address, or ``<code>``. Markup that a recipe made; it is not escaped.
        teachers: What each teacher says, as "cat (0.87)", "nucleus (0.87), membrane (0.61)" or
            "7.1 ± 0.4".
    """

    id: str
    row: int
    html: str
    teachers: dict[str, str]


@dataclass(frozen=True)
class Others:
    """The student's uncertainty about inputs beside the test set, in nats.

    Attributes:
        total: Shape (example,); of several labels the sum over them.
        aleatoric: Likewise.
        epistemic: Likewise.
        second: Belief in a second class, not in nats; None for several labels.
    """

    total: Floats
    aleatoric: Floats
    epistemic: Floats
    second: Floats | None = None


@dataclass(frozen=True)
class Trust:
    """What stacked weights depend on, beside how sure each teacher is.

    Attributes:
        weights: Each teacher's weight on some test examples, mean over columns, shape (teacher,
            some).
        place: Where they lie along the two directions in which what the student reads differs most,
            in standard deviations, shape (some, 2); None if that does not matter.
        by_class: What is added to a teacher's score where it names a class, shape (teacher, class);
            None if that does not matter.
    """

    weights: Floats
    place: Floats | None = None
    by_class: Floats | None = None


@dataclass(frozen=True)
class Classes:
    """What only a report on one class of several shows.

    Attributes:
        probs: The student's predictive, shape (example, class).
        pool_probs: The teachers' weighted pool on the same examples, shape (example, class).
        second: Mean probability of a draw's second class, shape (example,).
    """

    probs: Floats
    pool_probs: Floats | None
    second: Floats | None = None

    axes: ClassVar[dict[str, str]] = {"labels": "n", "probs": "nc", "pool_probs": "nc"}


@dataclass(frozen=True)
class Labels:
    """What only a report on several labels shows.

    Attributes:
        probs: The student's P(yes), shape (example, label).
        pool_probs: P(yes) of the teachers' weighted pool, shape (example, label).
    """

    probs: Floats
    pool_probs: Floats | None

    axes: ClassVar[dict[str, str]] = {"labels": "nc", "probs": "nc", "pool_probs": "nc"}


@dataclass(frozen=True)
class Numbers:
    """What only a report on numbers shows.

    Attributes:
        unit: What errors, standard deviations and the scores in ``metrics`` (but NLL and shares)
            are counted in: 1 for one target; the standard deviation of each target in training for
            several; shape (target,). The other arrays are in the targets' own units.
        mean: The student's predictive mean, shape (example, target).
        lower: Lower end of the interval for a new observation, shape (example, target).
        upper: Its upper end, shape (example, target).
        level: Mass of that interval.
        log_density: Log density of the predictive at the true number, in nats, NaN where that is
            missing, shape (example, target); see `mtbkd.metrics.mixture_log_density`.
        pit: The predictive's mass below the true number, likewise; see `mtbkd.metrics.pit`.
        pool_pit: The mass that the teachers' weighted pool has there, likewise.
    """

    unit: Floats
    mean: Floats
    lower: Floats
    upper: Floats
    level: float
    log_density: Floats
    pit: Floats
    pool_pit: Floats | None

    axes: ClassVar[dict[str, str]] = {"unit": "c"} | dict.fromkeys(
        ("labels", "mean", "lower", "upper", "log_density", "pit", "pool_pit"), "nc"
    )


Part = TypeVar("Part", Classes, Labels, Numbers)


@dataclass(frozen=True)
class ReportData(Generic[Part]):
    """Everything a report shows.

    Columns are classes, labels or targets. Uncertainties and the teachers' disagreement are shaped
    like ``labels``; they are in nats for classes and labels, and variances for numbers.

    Attributes:
        title: Name of the task.
        asked: The configuration, flat key to value.
        command: The command that makes the run again.
        metrics: The content of ``metrics.json``; unknown keys are left alone.
        family: What is predicted.
        noun: What a column is, in one word.
        classes: Names of the columns.
        labels: What is true of the test examples: class indices, shape (example,); 0, 1 or NaN,
            shape (example, label); or numbers, NaN where missing, shape (example, target).
        total: Total uncertainty.
        aleatoric: What more draws would not remove: the mean over draws.
        epistemic: What the draws disagree on.
        disagreement: Weighted Jensen-Shannon divergence of the teachers, or the weighted variance
            of their means.
        teachers: Teacher names.
        weights_by_class: Mean prior weight on training examples, shape (teacher, column).
        responsibilities_by_class: Mean posterior responsibility, shape (teacher, column).
        chains: "step_size", "distance_moved", "kinetic_temperature", "acceptance", "divergences",
            and "accuracy" or "rmse", each (chain,); any may be absent.
        trace: Log predictive score of each draw on probe examples, in nats per example, shape
            (chain, draw).
        examples: The most uncertain first.
        warnings: In sentences.
        part: What only this family has.
        others: Inputs beside the test set, by what they are.
        trust: What stacked weights depend on; None if weights are not stacked.
        defer: The content of ``defer.json``; None if the run has none.
        unanswered: How many rows a teacher left without an answer, and why, in sentences.
    """

    title: str
    asked: dict[str, str]
    command: str
    metrics: dict[str, Any]
    family: Family
    noun: str
    classes: tuple[str, ...]
    labels: Any
    total: Floats
    aleatoric: Floats
    epistemic: Floats
    disagreement: Floats | None
    teachers: tuple[str, ...]
    weights_by_class: Floats
    responsibilities_by_class: Floats
    chains: dict[str, Floats]
    trace: Floats
    examples: tuple[Example, ...]
    warnings: tuple[str, ...]
    part: Part
    others: Mapping[str, Others] = field(default_factory=dict)
    trust: Trust | None = None
    defer: dict[str, Any] | None = None
    unanswered: tuple[str, ...] = ()

    @property
    def student(self) -> dict[str, Any]:
        """The student's scores."""
        return self.metrics.get("student", {})

    def of_examples(self, part: str, unit: Floats | float = 1.0) -> Floats:
        """Total, aleatoric or epistemic uncertainty summed over columns, shape (example,)."""
        values = getattr(self, part) / unit
        return values if values.ndim == 1 else values.sum(1)


def check(data: ReportData[Any]) -> None:
    """Refuse arrays that do not fit together.

    Raises:
        InputError: With one message for each array of another shape.
    """
    sizes = {"n": len(data.labels), "c": len(data.classes), "k": len(data.teachers)}
    axes = data.part.axes | {"weights_by_class": "kc", "responsibilities_by_class": "kc"}
    answers = ("total", "aleatoric", "epistemic", "disagreement")
    axes |= dict.fromkeys(answers, axes["labels"])
    own = {f.name for f in fields(data.part)}
    held = {name: getattr(data.part if name in own else data, name) for name in axes}
    if data.trust is not None:
        sizes |= {"s": data.trust.weights.shape[-1], "2": 2}
        wanted = {"weights": "ks", "place": "s2", "by_class": "kc"}
        axes |= {f"trust.{name}": letters for name, letters in wanted.items()}
        held |= {f"trust.{name}": getattr(data.trust, name) for name in wanted}
    faults = []
    for name, letters in axes.items():
        shape = tuple(sizes[letter] for letter in letters)
        got = held[name]
        if got is not None and got.shape != shape:
            faults.append(
                f"Expected {name} of shape {shape}, but got {got.shape}. Make the report's arrays "
                "from the same run."
            )
    for name, other in data.others.items():
        lengths = [len(part) for part in (other.total, other.aleatoric, other.epistemic)]
        if len(set(lengths)) > 1 or not lengths[0]:
            faults.append(
                f"Expected the uncertainties of {name!r} for the same examples, but got "
                f"{lengths[0]}, {lengths[1]} and {lengths[2]} of them. Make the report's arrays "
                "from the same run."
            )
    if not sizes["n"]:
        faults.append("Expected test examples, but got none. Evaluate the run on some.")
    elif np.isnan(data.labels).all():
        faults.append(
            "Expected labels of the test examples, but got none. Evaluate the run on examples "
            "whose labels are known."
        )
    if faults:
        raise InputError(*faults)
