"""What the scores of every family are made of: mean answers, draws of numbers, units."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtbkd.explain.influence import disagreement
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import Outcome, Said
from mtbkd.observation.units import Units, mixture
from mtbkd.predictive import draw_outputs
from mtbkd.student.student import Student
from mtbkd.types import Floats
from mtbkd.weights.rules import pool_log_probs

Scores = dict[str, float | None]


def unit_of(units: Units | None) -> Floats | None:
    """What errors are counted in: each target's own unit if there is one, else its spread."""
    if units is None or len(units.scale) == 1:
        return None
    return units.scale.double().numpy()


def mean_probs(
    student: Student, samples: PosteriorSamples, inputs: Tensor, outcome: Outcome
) -> Floats:
    """Probabilities of classes, or of yes for each label, averaged over all draws."""
    parts = [
        outcome.point(outputs.flatten(0, 1), None).double().mean(0).cpu()
        for outputs in draw_outputs(student, samples, inputs)
    ]
    return torch.cat(parts).numpy()


def draws_of_numbers(
    student: Student, samples: PosteriorSamples, inputs: Tensor, units: Units | None
) -> tuple[Floats, Floats]:
    """Means and standard deviations under each draw, each (draw, example, target)."""
    parts = [
        torch.stack(mixture(outputs.flatten(0, 1), units)).cpu()
        for outputs in draw_outputs(student, samples, inputs)
    ]
    means, spreads = torch.cat(parts, 2).numpy()
    return means, spreads


def pooled_probs(said: Said, complete: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """The teachers' weighted pool and their disagreement, flat and 0 where nobody speaks.

    Args:
        said: With the teachers' weights.
        complete: What each says by itself, shape (teacher, ..., class).
        heard: Where any teacher speaks, shape (...).

    Returns:
        Probabilities, shape (..., class), and the weighted Jensen-Shannon divergence in nats,
        shape (...).
    """
    pool = pool_log_probs(said.log_weights, complete, said.nobody).exp().double()
    pool = torch.where(heard.unsqueeze(-1), pool, 1 / pool.shape[-1])
    trusted = torch.log_softmax(said.log_weights.masked_fill(~heard, 0.0), 0)
    return pool, torch.where(heard, disagreement(trusted, complete), 0.0).double()


def probs_of(log_probs: Tensor) -> Floats:
    """Probabilities in double precision."""
    return np.exp(log_probs.double().numpy())
