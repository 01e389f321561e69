"""What a report is made of: arrays and words, and no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.types import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


def check(data: ReportData) -> None:
    """Refuse arrays that do not fit together.

    Raises:
        InputError: With one message for each array of another shape.
    """
    n, c, k = len(data.labels), len(data.classes), len(data.teachers)
    expected: dict[str, tuple[int, ...]] = {
        "labels": (n,),
        "probs": (n, c),
        "pool_probs": (n, c),
        "total": (n,),
        "aleatoric": (n,),
        "epistemic": (n,),
        "disagreement": (n,),
        "weights_by_class": (k, c),
        "responsibilities_by_class": (k, c),
    }
    got = {name: getattr(data, name) for name in expected}
    faults = [
        f"Expected {name} of shape {shape}, but got {got[name].shape}. Make the report's arrays "
        "from the same run."
        for name, shape in expected.items()
        if got[name] is not None and got[name].shape != shape
    ]
    if not n:
        faults.append("Expected test examples, but got none. Evaluate the run on some.")
    if faults:
        raise InputError(*faults)
