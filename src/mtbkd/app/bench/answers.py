"""What a trained method answers, whatever it is made of, and what one answer costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mtbkd.app.bench.world import World
from mtbkd.app.run.others import of_examples
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.app.run.scoring_shared import Rival, unit_of
from mtbkd.predictive import predict
from mtbkd.student.student import Student
from mtbkd.types import Floats


@dataclass(frozen=True)
class Answers:
    """What a method says about some examples.

    Attributes:
        predicted: Mean probabilities, (example, column), or means and standard deviations of
            draws, each (draw, example, target), as `mtbkd.app.run.scoring.Scoring` has them.
        total: Total uncertainty, in nats or as a variance, shape (example,).
        epistemic: How far draws disagree, in the same units; None of a single network.
    """

    predicted: Any
    total: Floats
    epistemic: Floats | None = None


@dataclass(frozen=True)
class Fitted:
    """A trained method.

    Attributes:
        answer: From inputs as the network's head reads them, shape (example, ...).
        held: Answers on the labelled calibration examples, of a fit that did not learn from them.
        parameters: Numbers that have to be kept to answer.
        multiply_adds: Those of one answer, behind what all methods share.
        cpu_seconds: What training took, where it is not what the clock says of this cell alone.
    """

    answer: Callable[[Tensor], Answers]
    held: Answers
    parameters: int
    multiply_adds: int
    cpu_seconds: float | None = None


def of_rival(rival: Rival, world: World) -> Fitted:
    """A student with its draws or modes; those that were ``held`` back answer for calibration."""

    def answers(own: Rival, inputs: Tensor) -> Answers:
        scoring, units = SCORINGS[world.task.test.family], world.units
        said = predict(own.student, own.samples, inputs, family=world.task.test.family, units=units)
        predicted = scoring.predicted(own, inputs, units)
        n_draws = own.samples.n_chains * own.samples.n_draws
        return Answers(
            predicted=predicted,
            total=scoring.doubts(predicted, units).sum(1),
            epistemic=of_examples(said, unit_of(units))["epistemic"] if n_draws > 1 else None,
        )

    n_draws = rival.samples.n_chains * rival.samples.n_draws
    held = rival if rival.held is None else rival._replace(samples=rival.held)
    return Fitted(
        answer=lambda inputs: answers(rival, inputs),
        held=answers(held, world.held.inputs),
        parameters=n_draws * rival.student.n_parameters,
        multiply_adds=n_draws * multiply_adds(rival.student, world.read.test.inputs[:1]),
    )


def multiply_adds(student: Student, example: Tensor) -> int:
    """Multiply-adds of one draw on one example, shape (1, ...), counted by torch.

    A multiplication and an addition count as one; pointwise layers do not count.
    """
    parameters = student.natural(torch.zeros_like(student.prior_mean))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student.logits_at(parameters, example)
    return counter.get_total_flops() // 2
