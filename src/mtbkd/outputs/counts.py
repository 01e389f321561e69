"""Counts, as people's votes: how probable they make each class, and how well that is known."""

from __future__ import annotations

import numpy as np
import torch

from mtbkd.types import Floats

_TOTALS = np.geomspace(0.01, 10, 61)  # prior counts in all that are tried
_ROWS = 10_000  # that they are found from


def shares(counts: Floats) -> tuple[Floats, Floats]:
    """Mean and total of the Dirichlet posterior of each example's shares.

    The prior counts are the shares of all counts times a number that makes the counts most probable
    (Dirichlet-multinomial, Minka 2000, "Estimating a Dirichlet distribution"), so that few counts
    say less than many.

    Args:
        counts: Shape (example, class).

    Returns:
        Probabilities, shape (example, class), and the counts behind them with the prior's, shape
        (example,).
    """
    base = (counts.sum(0) + 1) / (counts.sum() + counts.shape[1])  # no class is impossible
    some = torch.from_numpy(counts[:: -(-len(counts) // _ROWS)])
    n, shape = some.sum(1), torch.from_numpy(base)

    def log_likelihood(total: float) -> float:
        prior = torch.lgamma(some + total * shape) - torch.lgamma(total * shape)
        spread = torch.lgamma(n + total) - torch.lgamma(torch.tensor(total, dtype=n.dtype))
        return float(prior.sum() - spread.sum())

    prior = max(_TOTALS, key=log_likelihood) * base
    posterior = counts + prior
    totals = posterior.sum(1)
    return posterior / totals[:, None], totals
