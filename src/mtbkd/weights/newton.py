"""Many small smooth problems at once: Newton's method in a trust region, convex or not.

In NumPy, which does not spread operations on small arrays over threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtbkd.types import Floats, Ints

_MOST = 100  # steps
_RADIUS = 2.0  # of the trust region at the start
_ROUNDING = 1e-13  # share of a value below which a difference of two says nothing

Looked = list[Floats]
"""Values, (problem,), gradients, (problem, unknown), and what products with the Hessian need."""

Look = Callable[[Floats, Ints], Looked]
"""What is known at points, (problem, unknown), of some of the problems."""

Product = Callable[[Looked, Floats], Floats]
"""Products of the Hessian where one looked and directions, (problem, unknown)."""


def minimise(look: Look, product: Product, start: Floats, exact: float) -> Floats:
    """The minimum of each problem that is reached from where it starts, (problem, unknown).

    A step minimises the quadratic model in a ball of the trust region's radius by conjugate
    gradients, which follow a direction of negative curvature to its edge (Steihaug 1983; Nocedal
    and Wright 2006, algorithms 4.1 and 7.2). Unknowns should be of the order of 1. A problem whose
    gradient has no larger component than ``exact`` is done, and not looked at again.
    """
    found, left = start.copy(), np.arange(len(start))
    here, radius, looked = found.copy(), np.full(len(start), _RADIUS), look(start, left)
    for _ in range(_MOST):
        going = np.abs(looked[1]).max(1) > exact
        if not going.all():
            left, here, radius = left[going], here[going], radius[going]
            looked = [part[going] for part in looked]
        if not len(left):
            break
        step = _step(product, looked, radius)
        model = (step * (looked[1] + 0.5 * product(looked, step))).sum(1)
        tried = look(here + step, left)
        slack = _ROUNDING * np.maximum(np.abs(looked[0]), 1)
        ratio = (looked[0] - tried[0] + slack) / (slack - model)
        length = np.sqrt((step * step).sum(1))
        grown = np.where((ratio > 0.75) & (length > 0.99 * radius), 2 * radius, radius)
        radius = np.where(ratio > 0.25, grown, 0.25 * length)
        taken = ratio > 1e-3  # false where the value is not finite
        here[taken] += step[taken]
        for part, new in zip(looked, tried, strict=True):
            part[taken] = new[taken]
        found[left] = here
    return found


def _step(product: Product, looked: Looked, radius: Floats) -> Floats:
    """Minimum of the quadratic models in balls of these radii, as far as it is worth it."""
    gradient = looked[1]
    step, residual, direction = np.zeros_like(gradient), gradient, -gradient
    square = (residual * residual).sum(1)
    enough = square * np.minimum(np.sqrt(square), 0.25)  # so that convergence is superlinear
    going = np.ones(len(square), dtype=bool)
    for _ in range(2 * gradient.shape[1]):
        bent = product(looked, direction)
        curvature = (direction * bent).sum(1)
        length = square / np.where(curvature == 0, 1.0, curvature)
        a, b = (direction * direction).sum(1), (step * direction).sum(1)
        c = radius * radius - (step * step).sum(1)
        edge = c / (b + np.sqrt(b * b + a * c))  # |step + edge direction| = radius
        outside = (curvature <= 0) | (length >= edge)
        ahead = step + np.where(outside, edge, length)[:, None] * direction
        step = np.where(going[:, None], ahead, step)
        residual = residual + length[:, None] * bent
        before, square = square, (residual * residual).sum(1)
        going = going & ~outside & (square > enough)
        if not going.any():
            break
        direction = (square / before)[:, None] * direction - residual
    return step
