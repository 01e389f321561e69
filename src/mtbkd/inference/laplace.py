"""Laplace's approximation: a Gaussian at each chain's mode, drawn from independently."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.inference.chains import fill_normal
from mtbkd.inference.method import Method, PrecisionAt, every_example
from mtbkd.types import Engine, Generators, InputError


class State(NamedTuple):
    """What the next draw needs, each with a leading chain axis.

    Attributes:
        position: The present draw, shape (chain, parameter).
        mode: Shape (chain, parameter).
        which: Parameters that vary, shape (chain, varying).
        factor: Lower Cholesky factor of their precision, shape (chain, varying, varying), or the
            square root of its diagonal, shape (chain, varying).
    """

    position: Tensor
    mode: Tensor
    which: Tensor
    factor: Tensor


def build(precision: PrecisionAt, *, temperature: float) -> Engine:
    """Build the engine (MacKay 1992; Daxberger et al. 2021, arXiv:2106.14806).

    Each update is a draw from ``N(mode, temperature * inv(precision))``, independent of the last
    one; parameters outside ``which`` stay at the mode.

    Args:
        precision: Precision of the log posterior whose temperature is the next argument.
        temperature: 1 for a precision that sums over examples, 1/N for one averaged per example.

    Returns:
        The engine; ``info`` is empty.

    Raises:
        InputError: From ``init``, if a precision is not finite or not positive definite.
    """

    def init(position: Tensor, generators: Generators) -> State:
        del generators
        which, matrix = precision(position)
        return State(position.clone(), position.clone(), which.clone(), _factor(matrix))

    def update(state: State, batch: Any, generators: Generators) -> tuple[State, dict[str, Tensor]]:
        del batch
        noise = fill_normal(torch.empty_like(state.mode[:, : state.which.shape[1]]), generators)
        shift = _solve(state.factor, noise).mul_(math.sqrt(temperature))
        position = state.position.copy_(state.mode).scatter_add_(1, state.which, shift)
        return state._replace(position=position), {}

    return Engine(init, update)


def _factor(matrix: Tensor) -> Tensor:
    """Lower Cholesky factors, or square roots of diagonals, computed in double precision."""
    double = matrix.double()
    if matrix.dim() == 2:
        factor = double.sqrt()
        good = (factor > 0).all(1)
    else:
        factor, failed = torch.linalg.cholesky_ex(double)
        good = (failed == 0) & factor.isfinite().all(2).all(1)
    if not good.all():
        raise InputError(
            "Expected a positive definite curvature at every mode, but got another at the mode of "
            f"chain {int((~good).nonzero()[0])}. Search its mode longer, or use another engine."
        )
    return factor.to(matrix.dtype).contiguous()  # the layout that a checkpoint gives back


def _solve(factor: Tensor, noise: Tensor) -> Tensor:
    """Noise of precision one, shape (chain, varying), to noise of the factor's precision."""
    if factor.dim() == 2:
        return noise / factor
    return torch.linalg.solve_triangular(factor.mT, noise.unsqueeze(2), upper=True).squeeze(2)


METHOD = Method(
    build=lambda problem, plan: build(problem.precision, temperature=1.0),
    steps=lambda settings: (0, settings.draws, 1),
    batch_size=every_example,
    independent=True,
)
