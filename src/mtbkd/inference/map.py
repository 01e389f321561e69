"""Maximum a posteriori: Adam on all chains side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.types import Engine, Generators, Gradient

_DECAY, _SQUARE_DECAY, _EPS = 0.9, 0.999, 1e-8


class State(NamedTuple):
    """Positions and Adam's moments, shape (chain, parameter), and step counts, shape (chain,)."""

    position: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor


def build(gradient: Gradient, *, learning_rate: float, n_steps: int) -> Engine:
    """Build the optimiser (Adam, arXiv:1412.6980) with a cosine schedule to zero.

    The weight prior is part of the log posterior, so there is no weight decay to add.

    Args:
        gradient: Gradient of the log posterior averaged per example, which is climbed.
        learning_rate: At the start, in units of the position.
        n_steps: Length of the schedule.

    Returns:
        The engine; ``info`` holds ``log_posterior`` for each chain.
    """

    def init(position: Tensor, generators: Generators) -> State:
        del generators
        zeros = torch.zeros_like(position)
        return State(position, zeros, zeros.clone(), zeros[:, 0].clone())

    def update(state: State, batch: Any, generators: Generators) -> tuple[State, dict[str, Tensor]]:
        del generators
        values, grads = gradient(state.position, batch)
        rate = learning_rate * 0.5 * (1 + torch.cos(torch.pi * state.step / n_steps))
        step = state.step + 1
        mean = state.mean.lerp(grads, 1 - _DECAY)
        square = state.square.lerp(grads**2, 1 - _SQUARE_DECAY)
        scale = (square / (1 - _SQUARE_DECAY**step)[:, None]).sqrt_().add_(_EPS)
        rate = (rate / (1 - _DECAY**step))[:, None]
        position = state.position + rate * mean / scale
        return State(position, mean, square, step), {"log_posterior": values}

    return Engine(init, update)
