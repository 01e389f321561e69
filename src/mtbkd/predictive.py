"""The posterior predictive: point estimates, the split of uncertainty, intervals and sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.inference.samples import PosteriorSamples
from mtbkd.student.finite import CORRECT_INPUTS, SCALE_INPUTS, all_finite, check_finite
from mtbkd.student.student import Student
from mtbkd.types import Family, Floats, InputError
from mtbkd.weights.units import Units

_BUDGET = 2**24  # floats held at a time: draws times examples times classes
_GRID, _BISECTIONS = 64, 40


@dataclass(frozen=True)
class Predictive:
    """What the posterior says about each example; uncertainties are in nats.

    Attributes:
        probs: The point estimate, shape (example, class).
        total: Entropy of the mean over draws, shape (example,).
        aleatoric: Mean entropy of a draw, shape (example,).
        lower: Lower end of the credible interval of each probability, shape (example, class).
        upper: Upper end, shape (example, class).
        second: Mean probability of a draw's second most probable class, shape (example,): how much
            it is believed that there is another one. Two classes alike give nearly 0.5, many
            classes alike little.
        level: Posterior mass of the intervals.
    """

    probs: Floats
    total: Floats
    aleatoric: Floats
    lower: Floats
    upper: Floats
    second: Floats
    level: float

    @property
    def epistemic(self) -> Floats:
        """Mutual information of label and parameters, ``total - aleatoric``, in nats."""
        return np.maximum(self.total - self.aleatoric, 0.0)

    @property
    def deviance(self) -> Floats:
        """The paper's mean Bayesian deviance, ``mean sum_c -2 q_c log q_c``, in nats."""
        return 2 * self.aleatoric

    def credible_set(self, level: float = 0.9) -> NDArray[np.bool_]:
        """Smallest set of classes with this predictive mass, shape (example, class)."""
        return credible_set(self.probs, level)


def credible_set(probs: Floats, level: float) -> NDArray[np.bool_]:
    """Smallest set of classes whose probabilities sum to ``level`` or more.

    Args:
        probs: Shape (example, class).
        level: In (0, 1).

    Example:
        >>> credible_set(np.array([[0.2, 0.7, 0.1]]), 0.8)
        array([[ True,  True, False]])
    """
    order = np.argsort(-probs, axis=1, kind="stable")
    ranked = np.take_along_axis(probs, order, 1)
    inside = np.cumsum(ranked, axis=1) - ranked < level - 1e-12
    sets = np.zeros(probs.shape, dtype=bool)
    np.put_along_axis(sets, order, inside, 1)
    return sets


@dataclass(frozen=True)
class LabelPredictive:
    """What the posterior says about each label; uncertainties are in nats.

    Attributes:
        probs: Probability of yes, shape (example, label).
        total: Binary entropy of the mean over draws, shape (example, label).
        aleatoric: Mean binary entropy of a draw, shape (example, label).
        lower: Lower end of the credible interval of each probability, shape (example, label).
        upper: Upper end, shape (example, label).
        level: Posterior mass of the intervals.
    """

    probs: Floats
    total: Floats
    aleatoric: Floats
    lower: Floats
    upper: Floats
    level: float

    @property
    def epistemic(self) -> Floats:
        """Mutual information of each label and the parameters, in nats."""
        return np.maximum(self.total - self.aleatoric, 0.0)


@dataclass(frozen=True)
class NumberPredictive:
    """What the posterior says about real-valued targets, in their own units.

    Attributes:
        mean: Shape (example, target).
        aleatoric: Mean variance of a draw: noise that more data would not remove.
        epistemic: Variance of the draws' means: what the draws disagree on.
        lower: Lower end of the interval that holds a new observation with mass ``level``.
        upper: Upper end.
        mean_lower: Lower end of the credible interval of the mean.
        mean_upper: Upper end.
        level: Posterior mass of the intervals.
    """

    mean: Floats
    aleatoric: Floats
    epistemic: Floats
    lower: Floats
    upper: Floats
    mean_lower: Floats
    mean_upper: Floats
    level: float

    @property
    def total(self) -> Floats:
        """Variance of a new observation, ``aleatoric + epistemic``."""
        return self.aleatoric + self.epistemic


Answer = Predictive | LabelPredictive | NumberPredictive


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
        units: Of regression.
        level: Posterior mass of the credible intervals, in (0, 1).
        point: ``mean`` over draws, or the paper's ``mode`` of each class's marginal density,
            renormalised (MT-BKD).

    Returns:
        `Predictive`, `LabelPredictive` or `NumberPredictive`, by the family.

    Raises:
        InputError: If inputs, draws or answers are not finite.
    """
    made = {"multilabel": LabelPredictive, "regression": NumberPredictive}.get(family, Predictive)
    parts = []
    for outputs in draw_outputs(student, samples, inputs):
        draws = outputs.flatten(0, 1)
        if family == "regression":
            parts.append(_numbers(draws, units, level))
        elif family == "multilabel":
            parts.append(_binary(torch.sigmoid(draws), level))
        else:
            parts.append(_summarise(torch.softmax(draws, -1), level, point))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    for column in columns:
        check_finite(torch.from_numpy(column), "answers", SCALE_INPUTS)
    return made(*columns, level)


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


def mixture(outputs: Tensor, units: Units | None) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of draws for numbers, in the targets' own units.

    Args:
        outputs: Of the student, shape (..., example, mean and log variance).
        units: Of the targets.

    Returns:
        Two tensors of shape (..., example, target), float64.
    """
    mean, log_variance = outputs.double().chunk(2, -1)
    spread = (0.5 * log_variance).exp()
    if units is None:
        return mean, spread
    scale = units.scale.to(mean)
    return units.shift.to(mean) + scale * mean, scale * spread


def _batches(student: Student, samples: PosteriorSamples, inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        first = student.features(inputs[:1].to(student.prior_mean.device))
        draw = samples.segments[0][0, 0].to(first.device)
        n_classes = student.logits_at(draw, first).shape[-1]
    per_example = samples.n_chains * samples.n_draws * n_classes
    return inputs.split(max(1, min(4096, _BUDGET // per_example)))


def _summarise(
    probs: Tensor, level: float, point: str
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """From (draw, example, class) to the fields of `Predictive`."""
    mean = probs.double().mean(0)
    lower, upper = _quantiles(probs, level)
    estimate = mean if point == "mean" else _marginal_mode(probs)
    total = -torch.special.xlogy(mean, mean).sum(-1)
    aleatoric = -torch.special.xlogy(probs, probs).sum(-1).double().mean(0)
    second = probs.topk(2, -1).values[..., 1].double().mean(0)
    fields = (estimate, total, aleatoric, lower, upper, second)
    return tuple(field.double().cpu().numpy() for field in fields)  # type: ignore[return-value]


def _binary(probs: Tensor, level: float) -> tuple[Floats, ...]:
    """From (draw, example, label) to the fields of `LabelPredictive`."""
    mean = probs.double().mean(0)

    def spread(p: Tensor) -> Tensor:
        return -torch.special.xlogy(p, p) - torch.special.xlogy(1 - p, 1 - p)

    fields = (mean, spread(mean), spread(probs.double()).mean(0), *_quantiles(probs, level))
    return tuple(field.double().cpu().numpy() for field in fields)


def _numbers(outputs: Tensor, units: Units | None, level: float) -> tuple[Floats, ...]:
    """From (draw, example, output) to the fields of `NumberPredictive`."""
    means, spreads = mixture(outputs, units)
    fields = (
        means.mean(0),
        spreads.square().mean(0),
        means.var(0, correction=0),
        _mixture_quantile(means, spreads, (1 - level) / 2),
        _mixture_quantile(means, spreads, (1 + level) / 2),
        *_quantiles(means, level),
    )
    return tuple(field.cpu().numpy() for field in fields)


def _mixture_quantile(means: Tensor, spreads: Tensor, mass: float) -> Tensor:
    """Quantile of equally weighted Gaussians, by bisection: (draw, ...) to (...)."""
    z = float(torch.special.ndtri(torch.tensor(mass, dtype=torch.float64)))
    each = means + z * spreads
    low, high = each.amin(0), each.amax(0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle - means) / spreads).mean(0) < mass
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _quantiles(values: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Ends of the central interval of the draws: (draw, ...) to two of (...)."""
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype)
    ranked = values.sort(0).values
    at = tails * (len(ranked) - 1)
    below, share = at.floor().long(), at - at.floor()
    above = (below + 1).clamp_max(len(ranked) - 1)
    lower, upper = (
        ranked[b].lerp(ranked[a], s.item()) for b, a, s in zip(below, above, share, strict=True)
    )
    return lower, upper


def _marginal_mode(probs: Tensor) -> Tensor:
    """Mode of a Gaussian kernel density of each class's draws, renormalised over classes.

    The bandwidth is Scott's; the mode is sought on a grid from the smallest to the largest draw.
    """
    n_draws = len(probs)
    low, high = probs.amin(0), probs.amax(0)
    width = (probs.std(0) * n_draws ** (-0.2)).clamp_min(1e-6)
    best, mode = torch.full_like(low, -1.0), low
    for fraction in torch.linspace(0, 1, _GRID).tolist():
        at = low + fraction * (high - low)
        density = torch.exp(-0.5 * ((at - probs) / width) ** 2).sum(0)
        mode, best = torch.where(density > best, at, mode), torch.maximum(best, density)
    return mode / mode.sum(-1, keepdim=True)
