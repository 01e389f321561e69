"""How sure a score is: standard errors over examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtbkd.types import Bools, Floats, Ints

_RESAMPLES = 100


def mean_with_error(each: Floats, known: Bools) -> tuple[float, float]:
    """Mean over the known answers, and its standard error.

    Answers on one example belong together, so the error is that of a ratio of sums over examples.

    Args:
        each: Shape (example, column).
        known: Which count, shape (example, column).
    """
    mean = float(each[known].mean())
    strays = np.where(known, each - mean, 0.0).sum(1)
    return mean, float(np.sqrt(np.square(strays).sum()) / known.sum())


def bootstrap_error(statistic: Callable[[Ints], float | None], n: int) -> float:
    """Standard error of a statistic of examples, from 100 resamples (Efron 1979).

    Args:
        statistic: Takes the rows of the examples that were drawn, shape (example,); gives None
            where these have no statistic.
        n: How many examples there are.

    Example:
        >>> values = np.arange(100.0)
        >>> round(bootstrap_error(lambda rows: values[rows].mean(), 100), 1)
        2.8
    """
    chance = np.random.default_rng(0)
    drawn = [statistic(chance.integers(n, size=n)) for _ in range(_RESAMPLES)]
    known = [value for value in drawn if value is not None]
    return float(np.std(known)) if known else float("nan")
