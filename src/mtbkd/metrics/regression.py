"""How good predicted numbers and their distributions are.

Numbers have shape (example, target). Labels that are NaN are left out of every mean. Averages are
over all known numbers: targets in different units should be standardised first.
"""

from __future__ import annotations

import math

import numpy as np

from mtbkd.metrics.mixtures import (
    equal_weights,
    expected_distance,
    mixture_crps,
    mixture_log_density,
    mixture_quantile,
    pit,
)
from mtbkd.types import Floats

LEVELS: Floats = np.linspace(0.05, 0.95, 19)
"""The quantiles at which calibration is measured."""

_CRPS_DRAWS = 256


def rmse(mean: Floats, labels: Floats) -> float:
    """Root mean squared error.

    Example:
        >>> round(rmse(np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])), 3)
        1.414
    """
    return math.sqrt(_mean(np.square(mean - labels)))


def mae(mean: Floats, labels: Floats) -> float:
    """Mean absolute error.

    Example:
        >>> mae(np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]]))
        1.0
    """
    return _mean(np.abs(mean - labels))


def r2(mean: Floats, labels: Floats) -> Floats:
    """Share of the variance that is explained, ``1 - sum (y - mean)^2 / sum (y - y_mean)^2``.

    Returns:
        Shape (target,); NaN where all labels are equal or unknown.

    Example:
        >>> r2(np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [3.0], [5.0]]))
        array([0.75])
    """
    known = ~np.isnan(labels)
    count = np.maximum(known.sum(0), 1)
    centre = np.where(known, labels, 0.0).sum(0) / count
    spread = np.where(known, np.square(labels - centre), 0.0).sum(0)
    error = np.where(known, np.square(labels - mean), 0.0).sum(0)
    ratio = np.divide(error, spread, out=np.full(len(spread), np.nan), where=spread > 0)
    return 1 - ratio


def gaussian_nll(mean: Floats, sd: Floats, labels: Floats) -> float:
    """Mean negative log density of a Gaussian at the labels, in nats.

    Example:
        >>> round(gaussian_nll(np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1))), 4)
        0.9189
    """
    return -_mean(mixture_log_density(mean[None], sd[None], labels))


def gaussian_crps(mean: Floats, sd: Floats, labels: Floats) -> float:
    """Mean continuous ranked probability score of a Gaussian, in units of the labels.

    ``sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))`` with ``z = (y - mean) / sd``
    (Gneiting et al. 2005, eq. 5).

    Example:
        >>> round(gaussian_crps(np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1))), 4)
        0.2337
    """
    return _mean(expected_distance(labels - mean, sd) - sd / math.sqrt(math.pi))


def interval_coverage(lower: Floats, upper: Floats, labels: Floats) -> float:
    """Share of known labels inside their interval.

    Example:
        >>> interval_coverage(np.zeros((2, 1)), np.ones((2, 1)), np.array([[0.5], [2.0]]))
        0.5
    """
    inside = ((lower <= labels) & (labels <= upper))[~np.isnan(labels)]
    return float(inside.mean()) if inside.size else float("nan")


def interval_width(lower: Floats, upper: Floats) -> float:
    """Mean width of intervals, in units of the labels."""
    return float((upper - lower).mean())


def quantile_shares(values: Floats, levels: Floats = LEVELS) -> Floats:
    """Share of labels below each quantile of their predictive, from `pit` values.

    Returns:
        Shape (level,), as the levels have; equal to ``levels`` if the predictions are calibrated.

    Example:
        >>> quantile_shares(np.array([0.1, 0.4, np.nan]), np.array([0.3, 0.5]))
        array([0.5, 1. ])
    """
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return np.full(len(levels), np.nan)
    return np.searchsorted(known, levels, side="right") / len(known)


def calibration_error(values: Floats, levels: Floats = LEVELS) -> float:
    """Mean gap between observed and stated share below quantiles (after Kuleshov et al. 2018).

    Values are from `pit`; levels are 0.05 to 0.95 if not given.

    Example:
        >>> round(calibration_error(np.full(10, 0.52)), 3)
        0.263
    """
    return float(np.abs(quantile_shares(values, levels) - levels).mean())


def number_scores(
    means: Floats,
    sds: Floats,
    labels: Floats,
    weights: Floats | None = None,
    unit: Floats | None = None,
) -> dict[str, float]:
    """Scores of predictive mixtures of Gaussians on labelled examples.

    Args:
        means: Means of the components, shape (draw, example, target); one draw for a Gaussian.
        sds: Their standard deviations, shape (draw, example, target).
        labels: NaN where missing, shape (example, target).
        weights: As in `mixture_log_density`; those of a pool of teachers, say.
        unit: Unit of each target, shape (target,): its standard deviation in training, where there
            are several, so that none outweighs the others. One if not given.

    Returns:
        ``rmse`` and ``mae`` of the mixture's mean; ``nll`` in nats per number; ``crps``;
        ``coverage_90`` and ``width_90`` of the central 90 % interval; ``calibration``, see
        `calibration_error`. RMSE, MAE, CRPS and width are in ``unit``, the NLL is always that of
        the labels as they are. More than 256 equally weighted draws are thinned evenly for the
        CRPS.
    """
    nll = -_mean(mixture_log_density(means, sds, labels, weights))
    if unit is not None:
        means, sds, labels = means / unit, sds / unit, labels / unit
    centre = (equal_weights(means, weights) * means).sum(0)
    lower, upper = (mixture_quantile(means, sds, level, weights) for level in (0.05, 0.95))
    return {
        "rmse": rmse(centre, labels),
        "mae": mae(centre, labels),
        "nll": nll,
        "crps": _mean(crps_of_draws(means, sds, labels, weights)),
        "coverage_90": interval_coverage(lower, upper, labels),
        "width_90": interval_width(lower, upper),
        "calibration": calibration_error(pit(means, sds, labels, weights)),
    }


def crps_of_draws(
    means: Floats, sds: Floats, labels: Floats, weights: Floats | None = None
) -> Floats:
    """`mtbkd.metrics.mixture_crps`, for which many equally weighted draws are thinned evenly."""
    thin = math.ceil(len(means) / _CRPS_DRAWS) if weights is None else 1
    return mixture_crps(means[::thin], sds[::thin], labels, weights)


def _mean(values: Floats) -> float:
    """Over what is known; NaN of nothing, without a warning."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
