"""What the scores of every family are made of: mean answers, draws of numbers, units."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit, logit, softmax, xlogy
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.explain.influence import disagreement
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import Outcome, Said
from mtbkd.observation.answers import LabelPredictive, NumberPredictive
from mtbkd.observation.units import Units, mixture
from mtbkd.predictive import draw_outputs
from mtbkd.student.student import Student
from mtbkd.types import Floats
from mtbkd.weights.rules import pool_log_probs

_LEAST = 1e-300

Scores = dict[str, float | None]
Pool = dict[str, Tensor]


class Rival(NamedTuple):
    """A student and its draws, which are averaged; those of a baseline are its modes.

    Attributes:
        student: The network.
        samples: Draws of its parameters.
        temperature: Divides the log of the mean probabilities, or multiplies variances.
        held: Draws that did not learn from the calibration examples, of a baseline.
    """

    student: Student
    samples: PosteriorSamples
    temperature: float = 1.0
    held: PosteriorSamples | None = None


def unit_of(units: Units | None) -> Floats | None:
    """What errors are counted in: each target's own unit if there is one, else its spread."""
    if units is None or len(units.scale) == 1:
        return None
    return units.scale.double().numpy()


def mean_probs(rival: Rival, inputs: Tensor, outcome: Outcome) -> Floats:
    """Probabilities of classes, or of yes for each label, averaged over all draws and tempered."""
    parts = [
        outcome.point(outputs.flatten(0, 1), None).double().mean(0).cpu()
        for outputs in draw_outputs(rival.student, rival.samples, inputs)
    ]
    return tempered(torch.cat(parts).numpy(), rival.temperature, outcome.exclusive)


def tempered(probs: Floats, temperature: float, exclusive: bool) -> Floats:
    """Probabilities to the power ``1 / temperature``, so that they sum to 1 again.

    Args:
        probs: Probabilities of classes, or of yes for each label, shape (..., column).
        temperature: Above 1 they become more equal.
        exclusive: Whether exactly one of the columns is true.

    Example:
        >>> tempered(np.array([[0.9, 0.1]]), 0.5, True).round(4)
        array([[0.9878, 0.0122]])
        >>> tempered(np.array([[0.9, 0.1]]), 2.0, False)
        array([[0.75, 0.25]])
    """
    if temperature == 1:
        return probs
    if exclusive:
        return softmax(np.log(np.maximum(probs, _LEAST)) / temperature, axis=-1)
    return expit(logit(probs) / temperature)


def entropy(probs: Floats) -> Floats:
    """Entropy in nats, over the last axis."""
    return -xlogy(probs, probs).sum(-1)


def draws_of_numbers(rival: Rival, inputs: Tensor, units: Units | None) -> tuple[Floats, Floats]:
    """Means and tempered standard deviations under each draw, each (draw, example, target)."""
    parts = [
        torch.stack(mixture(outputs.flatten(0, 1), units)).cpu()
        for outputs in draw_outputs(rival.student, rival.samples, inputs)
    ]
    means, spreads = torch.cat(parts, 2).numpy()
    return means, math.sqrt(rival.temperature) * spreads


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


def arrays_of(answer: LabelPredictive | NumberPredictive) -> dict[str, Tensor]:
    """What an answer holds for each example and column, by name."""
    arrays = {k: v for k, v in asdict(answer).items() if isinstance(v, np.ndarray)}
    arrays["epistemic"] = answer.epistemic
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def by_label(
    test: Dataset, quarrel: dict[str, Floats], shares: dict[str, Tensor]
) -> dict[str, Any]:
    """A column for each label or target, then the disagreement, and one share for each example."""
    return {
        **{f"label.{c}": test.labels[:, i].numpy() for i, c in enumerate(test.classes)},
        **quarrel,
        **{f"responsibility.{name}": own.mean(-1).numpy() for name, own in shares.items()},
    }
