"""Whether chains explored the posterior, judged by what the student says, not by its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mtbkd.types import Floats

RHAT_LIMIT = 1.1
"""Chains of a larger R-hat disagree."""

_ESS_LIMIT, _DISTANCE_LIMIT, _HEAT_LIMIT = 50.0, 0.05, 0.2
_RHAT_MOST, _HOT = 1000.0, 2.0
_FAR_OFF = (
    ": its draws are not those of the posterior. Use a longer burn-in, a smaller tolerance or step "
    "size, or a lower power or concentration."
)
_ACCEPTANCE_LIMIT, _DIVERGENCE_LIMIT = 0.4, 0.01


@dataclass(frozen=True)
class Diagnostics:
    """Numbers on the chains, and plain warnings.

    Attributes:
        rhat_median: Median over functions of the rank-normalised split R-hat; 1 is perfect.
        rhat_95: Its 95th percentile over functions.
        ess_median: Median bulk effective sample size of all chains together.
        ess_5: Its 5th percentile over functions.
        distance_moved: Root mean square distance from the mode in units of the weight prior's
            standard deviation, for each chain.
        warnings: What a user should know, in sentences.
    """

    rhat_median: float
    rhat_95: float
    ess_median: float
    ess_5: float
    distance_moved: tuple[float, ...]
    warnings: tuple[str, ...]


def diagnose(
    functions: Floats,
    distance_moved: Floats,
    statistics: Mapping[str, Floats] = {},
    *,
    approximation: str | None = None,
) -> Diagnostics:
    """Judge chains in function space, where label switching does not matter; see `convergence`.

    Args:
        functions: The student's log-probabilities at probe examples, shape (chain, draw, function).
        distance_moved: See `Diagnostics`, shape (chain,).
        statistics: Numbers on the chains, each of shape (chain,): ``kinetic_temperature``, or
            ``trajectories``, ``acceptance`` and ``divergences``, as their engine has them.
        approximation: The engine's name if its draws are independent around modes, so that R-hat
            and ESS cannot tell how far they are from the posterior.
    """
    if approximation is not None:
        said = (
            f"The draws are those of an approximation, {approximation}, whose distance from the "
            "posterior R-hat cannot tell. See `mtbkd diagnose`."
        )
        nan = float("nan")
        return Diagnostics(nan, nan, nan, nan, tuple(distance_moved.tolist()), (said,))
    rhats, ess = convergence(functions, 1e-9)
    if not len(rhats):
        rhats = ess = np.array([np.nan])
    rhat_median, rhat_95 = np.nanquantile(rhats, [0.5, 0.95]).tolist()
    ess_5, ess_median = np.nanquantile(ess, [0.05, 0.5]).tolist()
    warnings = []
    for chain in np.flatnonzero(distance_moved < _DISTANCE_LIMIT):
        warnings.append(
            f"Chain {chain} has hardly moved from its mode ({distance_moved[chain]:.3f} prior "
            "standard deviations): its uncertainty is that of a point. Raise the step size or "
            "the number of steps."
        )
    if rhat_95 > RHAT_LIMIT:
        warnings.append(
            f"Chains disagree on what the student says (95th percentile of R-hat {rhat_95:.2f}, "
            f"expected below {RHAT_LIMIT}). Run longer: with a budget by `mtbkd run RUN --more "
            "5min`, else raise sampler.thinning or sampler.burn_in."
        )
    if ess_5 < _ESS_LIMIT:
        warnings.append(
            f"Few independent draws (5th percentile of the effective sample size {ess_5:.0f}, "
            f"expected above {_ESS_LIMIT:.0f}). Raise sampler.draws or sampler.thinning."
        )
    warnings += [*heat_warnings(statistics), *_of_trajectories(statistics)]
    return Diagnostics(
        rhat_median, rhat_95, ess_median, ess_5, tuple(distance_moved.tolist()), tuple(warnings)
    )


def convergence(functions: Floats, least_range: float) -> tuple[Floats, Floats]:
    """`rhat` and the bulk effective sample size (by arviz-stats) of each function that moves.

    Args:
        functions: As in `rhat`.
        least_range: As in `rhat`. A function that is not finite everywhere has an ESS of 0.

    Returns:
        Both of shape (moving function,); empty with fewer than four draws.
    """
    from arviz_stats.base.array import array_stats  # slow to import, and needed here alone

    moving = _moving(functions, least_range)
    found = rhat(functions, least_range)
    if not len(found):
        return found, found
    with np.errstate(divide="ignore", invalid="ignore"):
        ess = np.atleast_1d(array_stats.ess(moving, chain_axis=0, draw_axis=1))
    return found, np.where(np.isfinite(moving).all((0, 1)), ess, 0.0)


def rhat(functions: Floats, least_range: float) -> Floats:
    """Rank-normalised split R-hat of each function that moves.

    That of Vehtari et al. 2021 (doi:10.1214/20-BA1221), the larger of the functions' and of their
    distances' from the median; the same as arviz-stats has, for all functions at once.

    Args:
        functions: Shape (chain, draw, function).
        least_range: Functions whose largest and smallest values are no further apart than this
            are left out. A function that is not finite everywhere has R-hat 1000.

    Returns:
        Shape (moving function,); empty with fewer than four draws. Chains that stand still in
        different places have an infinite R-hat, and JSON no infinity: it ends at 1000.
    """
    moving = _moving(functions, least_range)
    half = moving.shape[1] // 2
    if half < 2 or not moving.shape[2]:
        return np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        split = np.concatenate([moving[:, :half], moving[:, -half:]])
        folded = np.abs(split - np.median(split, axis=(0, 1)))
        found = np.maximum(_rhat_of_ranks(split), _rhat_of_ranks(folded))
    finite = np.isfinite(moving).all((0, 1))
    return np.where(finite, np.minimum(found, _RHAT_MOST), _RHAT_MOST)


def _moving(functions: Floats, least_range: float) -> Floats:
    with np.errstate(invalid="ignore"):
        still = np.ptp(functions, axis=(0, 1)) <= least_range
    return functions[:, :, ~still]


def _rhat_of_ranks(values: Floats) -> Floats:
    """R-hat of normal scores of the ranks of all chains' draws (Vehtari et al., eq. 14)."""
    from scipy.special import ndtri  # slow to import, and needed here alone
    from scipy.stats import rankdata

    n_chains, n_draws, _ = values.shape
    n = n_chains * n_draws
    ranks = rankdata(values.reshape(n, -1), axis=0)
    scores = ndtri((ranks - 0.375) / (n + 0.25)).reshape(values.shape)
    within = scores.var(1, ddof=1).mean(0)
    between = scores.mean(1).var(0, ddof=1)
    return np.sqrt((n_draws - 1) / n_draws + between / within)


def heat_warnings(statistics: Mapping[str, ArrayLike], most_off: float = _HEAT_LIMIT) -> list[str]:
    """Warnings on chains that are not at the posterior's temperature.

    Args:
        statistics: As in `diagnose`.
        most_off: How far from 1 the kinetic temperature may be.
    """
    heat = np.asarray(statistics.get("kinetic_temperature", ()))
    return [
        f"Chain {chain} runs at {at:.2f} times the posterior's temperature"
        + (_FAR_OFF if at > _HOT else ". Use larger batches or a smaller sampler.tolerance.")
        for chain, at in enumerate(heat.tolist())
        if not abs(at - 1) <= most_off
    ]


def _of_trajectories(statistics: Mapping[str, Floats]) -> list[str]:
    """Warnings on what `hmc` tells of its trajectories."""
    warnings = []
    if "trajectories" in statistics:
        trajectories = statistics["trajectories"]
        for chain in np.flatnonzero(statistics["acceptance"] < _ACCEPTANCE_LIMIT):
            warnings.append(
                f"Chain {chain} accepts {statistics['acceptance'][chain]:.0%} of its trajectories, "
                "expected about 80 %. Raise sampler.burn_in, or use sampler.engine=sghmc."
            )
        diverged = statistics["divergences"] / np.maximum(trajectories, 1)
        for chain in np.flatnonzero(diverged > _DIVERGENCE_LIMIT):
            warnings.append(
                f"{diverged[chain]:.1%} of the trajectories of chain {chain} diverged, so it may "
                "avoid a part of the posterior. Raise sampler.burn_in, or use "
                "sampler.engine=sghmc."
            )
    return warnings
