"""What a report is made of: arrays and words, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtbkd.types import Floats, InputError, Ints


@dataclass(frozen=True)
class Example:
    """One of the most uncertain test examples.

    Attributes:
        id: Of the example.
        label: Name of the true class.
        prediction: Name of the student's class.
        probability: The student's, of its prediction.
        total: Total uncertainty, in nats.
        aleatoric: What more draws would not remove, in nats.
        epistemic: What the draws disagree on, in nats.
        credible_set: The classes of the 90 % set.
        html: The example drawn as what it is: an inline ``<svg>``, ``<img>`` with a ``data:``
            address, or ``<code>``. Markup that a recipe made; it is not escaped.
        teachers: What each teacher says, as "class (0.87)".
    """

    id: str
    label: str
    prediction: str
    probability: float
    total: float
    aleatoric: float
    epistemic: float
    credible_set: tuple[str, ...]
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
class ReportData:
    """Everything a report shows.

    Attributes:
        title: Name of the task.
        asked: The configuration, flat key to value.
        command: The command that makes the run again.
        metrics: The content of ``metrics.json``; unknown keys are left alone.
        classes: Class names.
        labels: Test labels, shape (example,).
        probs: The student's predictive, shape (example, class).
        pool_probs: The teachers' weighted pool on the same examples, shape (example, class).
        total: Total uncertainty, in nats, shape (example,).
        aleatoric: What more draws would not remove, in nats, shape (example,).
        epistemic: What the draws disagree on, in nats, shape (example,).
        disagreement: Weighted Jensen-Shannon divergence of the teachers, in nats, shape (example,).
        teachers: Teacher names.
        weights_by_class: Mean prior weight on training examples, shape (teacher, class).
        responsibilities_by_class: Mean posterior responsibility, shape (teacher, class).
        chains: "step_size", "distance_moved", "kinetic_temperature", "acceptance", "divergences",
            "accuracy", each (chain,); any may be absent.
        trace: Log predictive score of each draw on probe examples, in nats per example, shape
            (chain, draw).
        examples: The most uncertain first.
        warnings: In sentences.
        noun: What a class is, in one word.
        second: Mean probability of a draw's second class, shape (example,).
        others: Inputs beside the test set, by what they are.
    """

    title: str
    asked: dict[str, str]
    command: str
    metrics: dict[str, Any]
    classes: tuple[str, ...]
    labels: Ints
    probs: Floats
    pool_probs: Floats | None
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
    noun: str = "class"
    second: Floats | None = None
    others: Mapping[str, Others] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """One of the most uncertain test examples of several labels or of numbers.

    What the student says about it stands in the report's arrays.

    Attributes:
        id: Of the example.
        row: Its row in the report's arrays.
        html: As in `Example`.
        teachers: What each teacher says, as "nucleus (0.87), membrane (0.61)" or "7.1 ± 0.4".
    """

    id: str
    row: int
    html: str
    teachers: dict[str, str]


@dataclass(frozen=True)
class LabelReportData:
    """Everything a report on several labels shows.

    ``metrics`` holds the keys that it holds for classes. ``teachers`` (by name), ``teacher_pool``,
    ``baselines`` (by name) and ``student`` each hold what `mtbkd.metrics.label_scores` returns:
    ``accuracy``, ``f1_micro``, ``f1_macro``, ``jaccard``, ``nll``, ``brier`` and ``ece``; the
    student also ``error_auroc``, `mtbkd.metrics.wrong_auroc` of the total uncertainty of its known
    answers. ``family`` is "multilabel".

    Attributes:
        title: Name of the task.
        asked: The configuration, flat key to value.
        command: The command that makes the run again.
        metrics: The content of ``metrics.json``; unknown keys are left alone.
        classes: Names of the labels.
        labels: Test labels, 0, 1 or NaN, shape (example, label).
        probs: The student's P(yes), shape (example, label).
        pool_probs: That of the teachers' weighted pool, shape (example, label).
        total: Total uncertainty of each answer, in nats, shape (example, label).
        aleatoric: What more draws would not remove, in nats, shape (example, label).
        epistemic: What the draws disagree on, in nats, shape (example, label).
        disagreement: Weighted Jensen-Shannon divergence of the teachers on each answer, in nats,
            shape (example, label).
        teachers: Teacher names.
        weights_by_class: Mean prior weight on training examples, shape (teacher, label).
        responsibilities_by_class: Mean posterior responsibility, shape (teacher, label).
        chains: As in `ReportData`; "accuracy" is the share of answers that are right.
        trace: As in `ReportData`.
        examples: The most uncertain first.
        warnings: In sentences.
        noun: What a label is, in one word.
        others: Inputs beside the test set, by what they are.
    """

    title: str
    asked: dict[str, str]
    command: str
    metrics: dict[str, Any]
    classes: tuple[str, ...]
    labels: Floats
    probs: Floats
    pool_probs: Floats | None
    total: Floats
    aleatoric: Floats
    epistemic: Floats
    disagreement: Floats | None
    teachers: tuple[str, ...]
    weights_by_class: Floats
    responsibilities_by_class: Floats
    chains: dict[str, Floats]
    trace: Floats
    examples: tuple[Shown, ...]
    warnings: tuple[str, ...]
    noun: str = "label"
    others: Mapping[str, Others] = field(default_factory=dict)


@dataclass(frozen=True)
class NumberReportData:
    """Everything a report on numbers shows.

    ``metrics`` holds the keys that it holds for classes. ``teachers`` (by name), ``teacher_pool``,
    ``baselines`` (by name) and ``student`` each hold what `mtbkd.metrics.number_scores` returns:
    ``rmse``, ``mae``, ``nll``, ``crps``, ``coverage_90``, ``width_90`` and ``calibration``.
    ``family`` is "regression".

    Attributes:
        title: Name of the task.
        asked: The configuration, flat key to value.
        command: The command that makes the run again.
        metrics: The content of ``metrics.json``; unknown keys are left alone.
        classes: Names of the targets.
        unit: What errors, standard deviations and the scores in ``metrics`` (but NLL and shares)
            are counted in: 1 for one target; the standard deviation of each target in training for
            several; shape (target,). The other arrays here are in the targets' own units.
        labels: True numbers, NaN where missing, shape (example, target).
        mean: The student's predictive mean, shape (example, target).
        aleatoric: Mean variance of a draw, shape (example, target).
        epistemic: Variance of the draws' means, shape (example, target).
        lower: Lower end of the interval for a new observation, shape (example, target).
        upper: Its upper end, shape (example, target).
        level: Mass of that interval.
        log_density: Of the predictive at the true number, in nats, NaN where that is missing, shape
            (example, target); see `mtbkd.metrics.mixture_log_density`.
        pit: The predictive's mass below the true number, likewise; see `mtbkd.metrics.pit`.
        pool_pit: That of the teachers' weighted pool, likewise.
        disagreement: Weighted variance of the teachers' means, shape (example, target).
        teachers: Teacher names.
        weights_by_class: Mean prior weight on training examples, shape (teacher, target).
        responsibilities_by_class: Mean posterior responsibility, shape (teacher, target).
        chains: As in `ReportData`, with "rmse" for its "accuracy".
        trace: As in `ReportData`.
        examples: The most uncertain first.
        warnings: In sentences.
    """

    title: str
    asked: dict[str, str]
    command: str
    metrics: dict[str, Any]
    classes: tuple[str, ...]
    unit: Floats
    labels: Floats
    mean: Floats
    aleatoric: Floats
    epistemic: Floats
    lower: Floats
    upper: Floats
    level: float
    log_density: Floats
    pit: Floats
    pool_pit: Floats | None
    disagreement: Floats | None
    teachers: tuple[str, ...]
    weights_by_class: Floats
    responsibilities_by_class: Floats
    chains: dict[str, Floats]
    trace: Floats
    examples: tuple[Shown, ...]
    warnings: tuple[str, ...]

    @property
    def sd(self) -> Floats:
        """Standard deviation of a new observation, shape (example, target)."""
        return np.sqrt(self.aleatoric + self.epistemic)

    @property
    def spread(self) -> Floats:
        """Standard deviation of the known true numbers of each target, 1 if none, (target,)."""
        columns = [column[~np.isnan(column)] for column in self.labels.T]
        spreads = [column.std() if len(column) else 0.0 for column in columns]
        return np.array([spread if spread > 0 else 1.0 for spread in spreads])


AnyReportData = ReportData | LabelReportData | NumberReportData

_BY_TEACHER = {"weights_by_class": "kc", "responsibilities_by_class": "kc"}
_SHAPES: dict[type, dict[str, str]] = {
    ReportData: {
        "labels": "n", "probs": "nc", "pool_probs": "nc", "total": "n", "aleatoric": "n",
        "epistemic": "n", "disagreement": "n",
    } | _BY_TEACHER,
    LabelReportData: dict.fromkeys(
        ("labels", "probs", "pool_probs", "total", "aleatoric", "epistemic", "disagreement"), "nc"
    ) | _BY_TEACHER,
    NumberReportData: dict.fromkeys(
        (
            "labels", "mean", "aleatoric", "epistemic", "lower", "upper", "log_density", "pit",
            "pool_pit", "disagreement",
        ),
        "nc",
    ) | {"unit": "c"} | _BY_TEACHER,
}  # fmt: skip


def check(data: AnyReportData) -> None:
    """Refuse arrays that do not fit together.

    Raises:
        InputError: With one message for each array of another shape.
    """
    n, c, k = len(data.labels), len(data.classes), len(data.teachers)
    sizes = {"n": n, "c": c, "k": k}
    expected = {
        name: tuple(sizes[axis] for axis in axes) for name, axes in _SHAPES[type(data)].items()
    }
    got = {name: getattr(data, name) for name in expected}
    faults = [
        f"Expected {name} of shape {shape}, but got {got[name].shape}. Make the report's arrays "
        "from the same run."
        for name, shape in expected.items()
        if got[name] is not None and got[name].shape != shape
    ]
    others = {} if isinstance(data, NumberReportData) else data.others
    for name, other in others.items():
        lengths = [len(part) for part in (other.total, other.aleatoric, other.epistemic)]
        if len(set(lengths)) > 1 or not lengths[0]:
            faults.append(
                f"Expected the uncertainties of {name!r} for the same examples, but got "
                f"{lengths[0]}, {lengths[1]} and {lengths[2]} of them. Make the report's arrays "
                "from the same run."
            )
    if not n:
        faults.append("Expected test examples, but got none. Evaluate the run on some.")
    elif not isinstance(data, ReportData) and np.isnan(data.labels).all():
        faults.append(
            "Expected labels of the test examples, but got none. Evaluate the run on examples "
            "whose labels are known."
        )
    if faults:
        raise InputError(*faults)
