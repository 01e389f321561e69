"""Mixtures of Gaussians, such as the posterior predictive of numbers, at the true numbers.

Means and standard deviations of the components have shape (draw, example, target), numbers
(example, target). Weights of the components sum to 1 over draws and broadcast to their shape; they
are equal if not given.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from mtbkd.types import Floats

_HALVINGS = 40
_LEAST_SD = 1e-12


def mixture_log_density(
    means: Floats, sds: Floats, labels: Floats, weights: Floats | None = None
) -> Floats:
    """Log density of a mixture of Gaussians at the labels, in nats.

    Returns:
        Shape (example, target); NaN where the label is.

    Example:
        >>> means = np.array([[[-1.0]], [[1.0]]])
        >>> mixture_log_density(means, np.ones_like(means), np.zeros((1, 1))).round(4)
        array([[-1.4189]])
    """
    from scipy.special import logsumexp

    sds = np.maximum(sds, _LEAST_SD)
    each = -0.5 * np.square((labels - means) / sds) - np.log(sds) - 0.5 * math.log(2 * math.pi)
    return np.asarray(logsumexp(each, axis=0, b=equal_weights(means, weights)))


def mixture_crps(
    means: Floats, sds: Floats, labels: Floats, weights: Floats | None = None
) -> Floats:
    """Continuous ranked probability score of a mixture of Gaussians, in units of the labels.

    ``sum_i w_i A(y - m_i, s_i^2) - 1/2 sum_ij w_i w_j A(m_i - m_j, s_i^2 + s_j^2)`` with
    ``A(d, s^2) = E|N(d, s^2)| = 2 s phi(d / s) + d (2 Phi(d / s) - 1)``
    (Grimit et al. 2006, eq. 5). Memory grows with the number of draws, time with its square.

    Returns:
        Shape (example, target); NaN where the label is.

    Example:
        >>> means = np.array([[[-1.0]], [[1.0]]])
        >>> mixture_crps(means, np.full_like(means, 1e-6), np.zeros((1, 1))).round(4)
        array([[0.5]])
    """
    share = np.broadcast_to(equal_weights(means, weights), means.shape)
    score = np.zeros(labels.shape)
    for i in range(len(means)):
        score += share[i] * expected_distance(labels - means[i], sds[i])
        score -= 0.5 * share[i] ** 2 * expected_distance(np.zeros(()), math.sqrt(2) * sds[i])
        both = np.hypot(sds[i], sds[i + 1 :])
        pairs = share[i + 1 :] * expected_distance(means[i] - means[i + 1 :], both)
        score -= share[i] * pairs.sum(0)
    return score


def pit(means: Floats, sds: Floats, labels: Floats, weights: Floats | None = None) -> Floats:
    """Probability integral transform: the predictive's mass below each label.

    Uniform on [0, 1] if the predictions are calibrated (Dawid 1984).

    Returns:
        Shape (example, target); NaN where the label is.

    Example:
        >>> pit(np.zeros((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1)))
        array([[0.5]])
    """
    below = ndtr((labels - means) / np.maximum(sds, _LEAST_SD))
    return (equal_weights(means, weights) * below).sum(0)


def mixture_quantile(
    means: Floats, sds: Floats, level: float, weights: Floats | None = None
) -> Floats:
    """Where a mixture of Gaussians has this mass, in (0, 1), below it, by bisection.

    Returns:
        Shape (example, target).

    Example:
        >>> mixture_quantile(np.zeros((1, 1, 1)), np.ones((1, 1, 1)), 0.975).round(3)
        array([[1.96]])
    """
    z = torch.special.ndtri(torch.tensor(level, dtype=torch.float64)).item()
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused as an answer
        each = means + z * sds  # of each component; that of the mixture is between them
        low, high = each.min(0), each.max(0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = pit(means, sds, middle, weights) >= level
            low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


def equal_weights(means: Floats, weights: Floats | None) -> Floats:
    """The given ones, or equal ones."""
    return np.full((len(means), 1, 1), 1 / len(means)) if weights is None else weights


def ndtr(z: Floats) -> Floats:
    """The normal distribution function; of torch, as SciPy takes long to import."""
    return torch.special.ndtr(torch.from_numpy(np.asarray(z, np.float64))).numpy()


def expected_distance(difference: Floats, sd: Floats) -> Floats:
    """Mean absolute value of a Gaussian with this mean and standard deviation."""
    sd = np.maximum(sd, _LEAST_SD)
    z = difference / sd
    density = np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)
    return 2 * sd * density + difference * (2 * ndtr(z) - 1)
