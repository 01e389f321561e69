"""How `hmc` adapts in its burn-in: step size and diagonal mass, each chain on its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_TARGET, _GAIN, _DELAY, _DECAY = 0.8, 0.05, 10.0, 0.75
_WINDOWS = (0.1, 0.2, 0.4, 0.7)  # shares of the burn-in at which the mass is set anew
_SHORT, _TRAJECTORIES, _LONGEST = 10, 60, 1000
_MORE_DRAWS = 5.0

LOG_STEP, ERROR, COUNT, ANCHOR, DRAWS, JUMP, WINDOW = range(7)
"""Columns of ``State.tuning``: of dual averaging the mean log step size, the mean error, the
number of trajectories and the point shrunk to; of the present window the draws and the sum of
their mean squared jumps in units of the scale; windows closed."""


def start(step_size: Tensor) -> Tensor:
    """What is remembered before the first trajectory: (chain,) to (chain, 7)."""
    tuning = step_size.new_zeros(len(step_size), 7)
    tuning[:, LOG_STEP] = step_size.log()
    tuning[:, ANCHOR] = (2 * step_size).log()
    return tuning


def longest(done: Tensor, burn_in: int) -> Tensor:
    """Most leapfrog steps of a trajectory: few in the burn-in, so that there are many to learn."""
    few = max(_SHORT, burn_in // _TRAJECTORIES)
    return torch.where(done < burn_in, few, _LONGEST)


def adapt(state: Any, rows: Tensor, probability: Tensor, jump: Tensor, burn_in: int) -> None:
    """Learn from trajectories that have ended and the draws that they left.

    Args:
        state: The state of `hmc`; changed in place.
        rows: The chains, all of them still burning in.
        probability: That the trajectories' ends were accepted with, shape (row,).
        jump: Mean squared distance of the draw from the one before, in units of the scale, (row,).
        burn_in: Updates in all.
    """
    _adapt_step_size(state, rows, probability)
    state.tuning[rows, DRAWS] += 1
    state.tuning[rows, JUMP] += jump
    ahead = state.position[rows] - state.mean[rows]
    mean = state.mean[rows] + ahead / state.tuning[rows, DRAWS, None]
    state.square[rows] += ahead * (state.position[rows] - mean)
    state.mean[rows] = mean
    ends = burn_in * torch.tensor([*_WINDOWS, torch.inf], device=rows.device)
    closing = state.done[rows] >= ends[state.tuning[rows, WINDOW].long()]
    if closing.any():
        _adapt_mass(state, rows[closing])


def finish(state: Any, rows: Tensor) -> None:
    """After the burn-in: the averaged step size, once and for all."""
    rows = rows[state.tuning[rows, COUNT] > 0]
    state.step_size[rows] = state.tuning[rows, LOG_STEP].exp()
    state.tuning[rows, COUNT] = 0


def _adapt_step_size(state: Any, rows: Tensor, probability: Tensor) -> None:
    """Dual averaging of the log step size (Hoffman and Gelman 2014, arXiv:1111.4246)."""
    tuning = state.tuning[rows]
    count = tuning[:, COUNT] + 1
    error = tuning[:, ERROR]
    error = error + (_TARGET - probability - error) / (count + _DELAY)
    log_step = tuning[:, ANCHOR] - count.sqrt() / _GAIN * error
    mean = tuning[:, LOG_STEP] + count**-_DECAY * (log_step - tuning[:, LOG_STEP])
    state.tuning[rows, COUNT], state.tuning[rows, ERROR] = count, error
    state.tuning[rows, LOG_STEP] = mean
    state.step_size[rows] = log_step.exp()


def _adapt_mass(state: Any, rows: Tensor) -> None:
    """Close a window: the variances of its draws become the inverse mass.

    They are shrunk to the present ones as if by a few more draws, the more the less the draws are
    worth: with the autocorrelation r that their jumps tell, n draws are worth ``n (1 - r) / (1 +
    r)``. The step size starts anew from one that is as long in space.
    """
    draws = state.tuning[rows, DRAWS, None]
    old = state.scale[rows]
    variance = state.square[rows] / (draws - 1).clamp_min(1)
    spread = (variance / old**2).mean(1, keepdim=True).clamp_min(1e-12)
    independence = (state.tuning[rows, JUMP, None] / draws / (2 * spread)).clamp(0.01, 1.0)
    worth = (draws - 1) * independence / (2 - independence)
    new = ((worth * variance + _MORE_DRAWS * old**2) / (worth + _MORE_DRAWS)).sqrt()
    guess = state.step_size[rows].log() + old.log().mean(1) - new.log().mean(1)
    state.scale[rows], state.step_size[rows] = new, guess.exp()
    state.tuning[rows, LOG_STEP], state.tuning[rows, ANCHOR] = guess, guess + math.log(2)
    state.tuning[rows, WINDOW] += 1
    for column in (ERROR, COUNT, DRAWS, JUMP):
        state.tuning[rows, column] = 0
    state.mean[rows] = state.square[rows] = 0
