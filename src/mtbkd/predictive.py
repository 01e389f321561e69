"""The posterior predictive: the student's outputs under each draw, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import OUTCOMES
from mtbkd.observation.answers import Answer as Answer
from mtbkd.observation.answers import LabelPredictive as LabelPredictive
from mtbkd.observation.answers import NumberPredictive as NumberPredictive
from mtbkd.observation.answers import Predictive as Predictive
from mtbkd.observation.answers import credible_set as credible_set
from mtbkd.observation.answers import joined
from mtbkd.observation.units import Units
from mtbkd.observation.units import mixture as mixture
from mtbkd.student.finite import CORRECT_INPUTS, SCALE_INPUTS, all_finite, check_finite
from mtbkd.student.student import Student
from mtbkd.types import Family, InputError

_SAMPLE_LONGER = "Distil again with more steps or a smaller step size, or scale the inputs."
_BUDGET = 2**24  # floats held at a time: draws times examples times classes


def predict(
    student: Student,
    samples: PosteriorSamples,
    inputs: Tensor,
    *,
    family: Family = "classification",
    units: Units | None = None,
    level: float = 0.9,
    point: Literal["mean", "mode"] = "mean",
) -> Answer:
    """Average the student over its posterior.

    Examples are taken in batches and draws one at a time, so memory does not grow with the
    number of examples, nor with the size of the student times the number of draws.

    Args:
        student: As it was trained.
        samples: Its posterior draws.
        inputs: Raw inputs of the student, shape (example, ...).
        family: What is predicted.
        units: Units of the targets, for regression.
        level: Posterior mass of the credible intervals, in (0, 1).
        point: ``mean`` over draws, or the paper's ``mode`` of each class's marginal density,
            renormalised (MT-BKD).

    Returns:
        `Predictive`, `LabelPredictive` or `NumberPredictive`, by the family.

    Raises:
        InputError: If inputs, draws or answers are not finite.
    """
    outcome = OUTCOMES[family]
    draws = (outputs.flatten(0, 1) for outputs in draw_outputs(student, samples, inputs))
    answer = joined([outcome.summarise(d, units=units, level=level, point=point) for d in draws])
    for part in vars(answer).values():
        if isinstance(part, np.ndarray):
            check_finite(torch.from_numpy(part), "answers", _SAMPLE_LONGER)
    return answer


def draw_outputs(student: Student, samples: PosteriorSamples, inputs: Tensor) -> Iterator[Tensor]:
    """The student's outputs under each draw, batch of examples by batch.

    Yields:
        Tensors of shape (chain, draw, example, output).

    Raises:
        InputError: If inputs, draws or outputs are not finite.
    """
    if not all(map(all_finite, samples.segments)):
        raise InputError(
            "Expected finite draws of the posterior, but got NaN or infinity. Distil again, with "
            "a lower prior.power or weight_scale."
        )
    device = student.prior_mean.device
    forward = torch.vmap(student.logits_at, in_dims=(0, None))
    first = 0
    for batch in _batches(student, samples, inputs):
        check_finite(batch, "inputs", CORRECT_INPUTS, first)
        features = student.features(batch.to(device), first=first)
        with torch.no_grad():
            outputs = torch.stack([forward(draw.to(device), features) for draw in samples], dim=1)
        check_finite(outputs.movedim(2, 0), "outputs of the student", SCALE_INPUTS, first)
        yield outputs
        first += len(batch)


def draw_probs(student: Student, samples: PosteriorSamples, inputs: Tensor) -> Iterator[Tensor]:
    """Class probabilities under each draw, batch of examples by batch.

    Yields:
        Tensors of shape (chain, draw, example, class).
    """
    for outputs in draw_outputs(student, samples, inputs):
        yield torch.softmax(outputs, -1)


def _batches(student: Student, samples: PosteriorSamples, inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        first = student.features(inputs[:1].to(student.prior_mean.device))
        draw = samples.segments[0][0, 0].to(first.device)
        n_classes = student.logits_at(draw, first).shape[-1]
    per_example = samples.n_chains * samples.n_draws * n_classes
    return inputs.split(max(1, min(4096, _BUDGET // per_example)))
