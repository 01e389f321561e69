"""Stochastic-gradient Langevin dynamics: gradient steps with noise of matched variance."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.inference.chains import fill_normal
from mtbkd.inference.method import Method
from mtbkd.inference.step_size import adapted, limits_and_means
from mtbkd.types import Engine, Generators, Gradient


class State(NamedTuple):
    """Positions, shape (chain, parameter), and step sizes, shape (chain,)."""

    position: Tensor
    step_size: Tensor


def build(gradient: Gradient, *, temperature: float, step_size: float | Tensor) -> Engine:
    """Build the engine (Welling and Teh 2011): ``x + step * grad / T + sqrt(2 * step) * noise``.

    Args:
        gradient: Gradient of the log posterior averaged per example.
        temperature: 1/N for the posterior of N examples.
        step_size: Step in squared units of the position, the same or one for each chain.

    Returns:
        The engine; ``info`` holds ``log_posterior`` for each chain.
    """

    def init(position: Tensor, generators: Generators) -> State:
        del generators
        steps = torch.as_tensor(step_size, dtype=position.dtype, device=position.device)
        return State(position.clone(), steps.expand(position.shape[0]).clone())

    def update(state: State, batch: Any, generators: Generators) -> tuple[State, dict[str, Tensor]]:
        step = state.step_size[:, None]
        values, grads = gradient(state.position, batch)
        position = state.position.addcmul_(grads, step / temperature)
        noise = fill_normal(torch.empty_like(position), generators)
        position.addcmul_(noise, (2 * step).sqrt())
        return State(position, state.step_size), {"log_posterior": values}

    return Engine(init, update)


def stable_step_size(curvature: Tensor, gradient_noise: Tensor, *, tolerance: float) -> Tensor:
    """Largest step size within the tolerance, for each chain.

    On a Gaussian direction of curvature L the stationary variance is too large by the factor
    ``1 / (1 - step * L / 2)``, and minibatch noise of variance V adds ``step * V / 2`` to it.

    Args:
        curvature: Largest curvature of the log posterior divided by temperature, shape (chain,).
        gradient_noise: Mean variance of a component of its minibatch gradient, shape (chain,).
        tolerance: Relative error of the variance that each of the two may add.
    """
    return 2 * tolerance / torch.maximum(curvature * (1 + tolerance), gradient_noise)


METHOD = Method(
    build=lambda problem, plan: build(
        problem.gradient, temperature=problem.temperature, step_size=plan.step_size or 0.0
    ),
    before=adapted(stable_step_size),
    statistics=limits_and_means,
)
