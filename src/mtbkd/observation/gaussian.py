r"""Numbers: a Gaussian likelihood whose mean and log variance are the student's outputs.

A teacher's prediction ``N(m, s^2)`` worth ``concentration`` pseudo-observations that are spread as
it says gives the component

    f_k = exp(-concentration * KL(N(m, s^2) || N(mu, v)))

up to one constant shared by all teachers: the normal-inverse-gamma density of ``(mu, v)`` relative
to the measure ``dmu dv / v^(3/2)``, Jeffreys' for location and scale, under which it is proper for
any concentration. Given ``v = s^2`` it is the density ``N(mu; m, s^2 / concentration)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbkd.metrics.mixtures import mixture_quantile
from mtbkd.observation.answers import Answer, NumberPredictive, arrays, quantiles
from mtbkd.observation.base import Kind, Labels, Names, Observation, Said, Tempering, psd_root
from mtbkd.observation.reading import number_labels
from mtbkd.observation.units import Units, mixture
from mtbkd.prior.mixture import Prior
from mtbkd.prior.spaces import Spaces
from mtbkd.types import Batch, Family, Floats, Ints

_INTERVALS = 16


class GaussianTerms(NamedTuple):
    """What the mixture needs from the teachers, each of shape (teacher, example, target).

    Attributes:
        mean: The teacher's mean.
        log_variance: The teacher's log variance, softened.
        counts: Pseudo-observations; 0 where no teacher says anything.
        log_offsets: Log weights.
    """

    mean: Tensor
    log_variance: Tensor
    counts: Tensor
    log_offsets: Tensor


@dataclass(frozen=True)
class Gaussian:
    """Real numbers; the student's outputs are the means of all targets, then their log variances.

    Values are means and log variances.
    """

    spaces: Spaces | None = None
    family: ClassVar[Family] = "regression"
    column: ClassVar[str] = "target"
    columns: ClassVar[str] = "targets"
    exclusive: ClassVar[bool] = False
    twice: ClassVar[str] = "Targets can only be renamed; leave one of them out."
    kinds: ClassVar[tuple[Kind, ...]] = ("mean",)
    missing: ClassVar[float] = math.nan
    mapping: ClassVar[str] = "targets to means and log variances, two outputs each"
    n_outputs: ClassVar[int] = 2
    numeric: ClassVar[bool] = True

    def observe(
        self, n_columns: int, blocks: Tensor | None = None, kept: Tensor | None = None
    ) -> Observation:
        return self

    def read_labels(self, labels: Labels, n_rows: int, names: Names) -> tuple[Tensor, list[str]]:
        return number_labels(labels, n_rows, names)

    def faults(self, numbers: Floats, kind: Kind, names: Names) -> list[str]:
        """Means that overflow in single precision."""
        large = np.abs(numbers) > np.finfo(np.float32).max
        if not large.any():
            return []
        row, column = np.argwhere(large)[0]
        return [
            f"Expected means of teacher {names.owner!r} that single precision holds, but got "
            f"{numbers[row, column]:.4g} for {names.columns[column]!r} of id {names.row(row)}. "
            "Correct it, or change the target's unit."
        ]

    def settle(
        self, numbers: Floats, kind: Kind, target: Ints, log_variance: Floats | None
    ) -> Tensor:
        """Means and log variances, NaN where the teacher gives none."""
        spread = np.full_like(numbers, np.nan) if log_variance is None else log_variance
        return torch.from_numpy(np.stack([numbers, spread], -1)).float()

    def unsaid(self, n_columns: int) -> Tensor:
        return torch.zeros(n_columns, 2)

    def neutral(self, kind: Kind, n_columns: int) -> float:
        return 0.0

    def pooled(self, log_weights: Tensor, complete: Tensor) -> Tensor:
        """Mean and log variance of the weighted mixture; 0 where nobody says anything."""
        own = log_weights.exp()
        mean = (own * complete[..., 0]).sum(0)
        around = complete[..., 1].exp() + (complete[..., 0] - mean).square()
        spread = (own * around).sum(0).clamp_min(1e-12).log()
        silent = torch.isneginf(log_weights).all(0)
        return torch.stack([mean, torch.where(silent, 0.0, spread)], -1)

    def point(self, outputs: Tensor, units: Units | None) -> Tensor:
        return mixture(outputs, units)[0]

    def traced(self, outputs: Tensor) -> Tensor:
        return outputs

    def cuts(self, draws: Tensor) -> Tensor:
        """Near the quantiles of all draws together, so that a number is one of 16 intervals."""
        mean, log_variance = draws.chunk(2, -1)
        spread = (log_variance.exp().mean(0) + mean.var(0, correction=0)).sqrt()
        shares = torch.arange(1, _INTERVALS, device=draws.device) / _INTERVALS
        return mean.mean(0).unsqueeze(-1) + spread.unsqueeze(-1) * torch.special.ndtri(shares)

    def events(self, outputs: Tensor, cuts: Tensor) -> Tensor:
        mean, log_variance = (part.unsqueeze(-1) for part in outputs.chunk(2, -1))
        below = torch.special.ndtr((cuts - mean) * (-0.5 * log_variance).exp())
        ends = torch.zeros_like(below[..., :1]), torch.ones_like(below[..., :1])
        return torch.cat([ends[0], below, ends[1]], -1).diff(dim=-1).clamp_min(0)

    def summarise(self, draws: Tensor, *, units: Units | None, level: float, point: str) -> Answer:
        """From (draw, example, output) to the fields of `NumberPredictive`."""
        means, spreads = mixture(draws, units)
        mean_lower, mean_upper = quantiles(means, level)
        fields = arrays(
            mean=means.mean(0),
            aleatoric=spreads.square().mean(0),
            epistemic=means.var(0, correction=0),
            mean_lower=mean_lower,
            mean_upper=mean_upper,
        )
        components = means.cpu().numpy(), spreads.cpu().numpy()
        lower, upper = (mixture_quantile(*components, (1 + s * level) / 2) for s in (-1, 1))
        return NumberPredictive(**fields, lower=lower, upper=upper, level=level)

    def log_likelihood(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return _likelihood(outputs, labels)[0].sum(-1)

    def terms(
        self, said: Said, concentration: float, softening: float | Tensor, discount: float
    ) -> GaussianTerms:
        """There is nothing to discount: a wide variance pulls weakly by itself."""
        del discount
        mean, log_variance = said.values.unbind(-1)
        if isinstance(softening, Tensor):
            log_variance = log_variance + softening.log()[:, None, None]
        else:
            log_variance = log_variance + math.log(softening)
        silent = torch.isneginf(said.log_weights).all(0)
        offsets = torch.where(silent, -math.log(len(mean)), said.log_weights)
        counts = torch.full_like(mean, concentration) * ~silent
        return GaussianTerms(mean, log_variance, counts, offsets)

    def value(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        mean, log_variance = outputs.chunk(2, -1)
        soft = math.log(prior.student_softening)
        parts, _ = _parts(batch.terms, mean, log_variance + soft)
        mixture = torch.logsumexp(parts, -3)
        return (_likelihood(outputs, batch.labels)[0] + prior.power * mixture).sum(-1)

    def value_and_slope(self, outputs: Tensor, batch: Batch, prior: Prior) -> tuple[Tensor, Tensor]:
        mean, log_variance = outputs.chunk(2, -1)
        ell = log_variance + math.log(prior.student_softening)
        value, by_mean, by_spread = _likelihood(outputs, batch.labels)
        terms: GaussianTerms = batch.terms
        parts, distance = _parts(terms, mean, ell)
        mixture = torch.logsumexp(parts, -3)
        pull = (parts - mixture.unsqueeze(-3)).exp() * terms.counts
        to_mean = (pull * (terms.mean - mean.unsqueeze(-3))).sum(-3) * torch.exp(-ell)
        to_spread = 0.5 * (pull * (distance - 1)).sum(-3)
        power = prior.power
        if isinstance(power, Tensor):
            power = power[:, None, None]
        slopes = torch.cat([by_mean + power * to_mean, by_spread + power * to_spread], -1)
        return (value + power * mixture).sum(-1), slopes

    def roots(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        """Roots of the Fisher information ``diag(1 / v, 1 / 2)`` less ``Cov_r`` of pulls."""
        mean, log_variance = outputs.chunk(2, -1)
        ell = log_variance + math.log(prior.student_softening)
        terms: GaussianTerms = batch.terms
        parts, distance = _parts(terms, mean, ell)
        shares = torch.softmax(parts, 0)
        pulls = terms.counts[..., None] * torch.stack(
            [(terms.mean - mean) * torch.exp(-ell), 0.5 * (distance - 1)], -1
        )
        centred = pulls - (shares[..., None] * pulls).sum(0)
        covariance = torch.einsum("knd,kndi,kndj->ndij", shares, centred, centred)
        counts = (shares * terms.counts).sum(0)

        def fisher(spread: Tensor, times: Tensor) -> Tensor:
            both = torch.stack([torch.exp(-spread), torch.full_like(spread, 0.5)], -1)
            return torch.diag_embed(both * times[..., None])

        known = (~batch.labels.isnan()).to(outputs.dtype)
        curvature = fisher(log_variance, known) + prior.power * (fisher(ell, counts) - covariance)
        blocks = psd_root(curvature)  # (example, target, 2, 2)
        same = torch.eye(mean.shape[-1]).to(blocks)
        return torch.einsum("ntij,ts->nitjs", blocks, same).flatten(3).flatten(1, 2)

    def log_responsibilities(
        self, terms: GaussianTerms, outputs: Tensor, softening: float
    ) -> Tensor:
        mean, log_variance = outputs.chunk(2, -1)
        return torch.log_softmax(_parts(terms, mean, log_variance + math.log(softening))[0], -3)

    def complete(self, said: Said, temperature: Tensor | None) -> Tensor:
        """Means and log variances, the variances times the temperature."""
        if temperature is None:
            return said.values
        mean, log_variance = said.values.unbind(-1)
        return torch.stack([mean, log_variance + temperature.log()[:, None, None]], -1)

    def score(self, said: Said, labels: Tensor, temperature: Tensor | None) -> Tensor:
        complete = self.complete(said, temperature)
        return _likelihood(torch.cat(complete.unbind(-1), -1), labels.expand(complete.shape[:-1]))[
            0
        ]

    def tempering(self, said: Said, labels: Tensor) -> Tempering:
        mean, log_variance = said.values.unbind(-1)
        gap = torch.where(labels.isnan(), 0.0, labels - mean)
        scale = 0.5 * (math.log(2 * math.pi) + log_variance)[..., None]
        distance = gap.square() * torch.exp(-log_variance)
        return Tempering(-0.5 * distance, torch.zeros_like(scale), scale, power=0.5)

    def certainty(self, values: Tensor, mask: Tensor) -> Tensor:
        """By precision, ``w_k ∝ 1 / s_k^2``: the entropy of a density may be negative."""
        return -values[..., 1]

    def features(self, values: Tensor) -> Tensor:
        return 0.5 * values[..., 1:]

    def n_alike(self, values: Tensor) -> int:
        """Numbers that are alike would have no density; nobody is never trusted alone."""
        return 1


def _parts(terms: GaussianTerms, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Log of weighted components, and squared distances in units of the student's variance.

    Returns:
        Both of shape (..., teacher, example, target).
    """
    mu, ell = mean.unsqueeze(-3), log_variance.unsqueeze(-3)
    distance = ((mu - terms.mean).square() + terms.log_variance.exp()) * torch.exp(-ell)
    divergence = 0.5 * (ell - terms.log_variance + distance - 1)
    return terms.log_offsets - terms.counts * divergence, distance


def _likelihood(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log likelihood and its derivatives in mean and log variance: (..., example, target)."""
    mean, log_variance = outputs.chunk(2, -1)
    known = ~labels.isnan()
    gap = torch.where(known, labels.nan_to_num() - mean, 0.0)
    precision = torch.exp(-log_variance)
    distance = gap.square() * precision
    value = -0.5 * (math.log(2 * math.pi) + log_variance + distance)
    return torch.where(known, value, 0.0), gap * precision, 0.5 * (distance - 1) * known


GAUSSIAN = Gaussian()
"""Real numbers."""
