"""Hamiltonian Monte Carlo on all examples: exact up to chance, the reference for other engines."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.inference import warm_up
from mtbkd.inference.chains import fill_normal
from mtbkd.inference.method import Method, Plan, Probe, Problem, every_example
from mtbkd.types import Engine, Generators, Gradient

_DIVERGED = 1000.0
_COUNTS = ("acceptance", "trajectories", "divergences")
_DURATION = math.pi / 2


class State(NamedTuple):
    """Everything that the next leapfrog step needs, each with a leading chain axis.

    Attributes:
        position: The chain's present draw, shape (chain, parameter).
        value: Log posterior there, averaged per example, shape (chain,).
        slope: Its gradient there, shape (chain, parameter).
        moving: Where the trajectory is, shape (chain, parameter).
        velocity: Momentum over the square root of the mass, shape (chain, parameter).
        energy: Hamiltonian at the trajectory's start, shape (chain,).
        left: Leapfrog steps left in the trajectory; -1 before the first, shape (chain,).
        done: Leapfrog steps done in all, shape (chain,).
        step_size: In units of ``scale``, shape (chain,).
        scale: Inverse square root of the diagonal mass, shape (chain, parameter).
        tuning: What `warm_up` remembers, shape (chain, 7).
        mean: Mean of the draws of the present window, shape (chain, parameter).
        square: Sum of their squared deviations, shape (chain, parameter).
    """

    position: Tensor
    value: Tensor
    slope: Tensor
    moving: Tensor
    velocity: Tensor
    energy: Tensor
    left: Tensor
    done: Tensor
    step_size: Tensor
    scale: Tensor
    tuning: Tensor
    mean: Tensor
    square: Tensor


def build(
    gradient: Gradient,
    *,
    temperature: float,
    step_size: float | Tensor,
    burn_in: int = 0,
) -> Engine:
    """Build the engine (Neal 2011, arXiv:1206.1901), one leapfrog step in each update.

    A trajectory of ``n`` steps takes ``n`` updates, after which its end is accepted with
    probability ``min(1, exp(-change of energy))``; meanwhile ``position`` stays the present draw.
    So one update costs one gradient as in every other engine, and chains whose trajectories have
    different lengths run side by side without waiting. A trajectory takes the time ``pi / 2`` on
    average, a quarter of the period of a direction of unit variance, which is what the mass makes
    of every parameter; it is drawn from 0.5 to 1.5 times that, so that no period is hit for good,
    and independently of where the chain is, so that the draw at any fixed update is a draw from
    the posterior.

    Over the first ``burn_in`` updates each chain adapts on its own, by `warm_up`: its step size to
    an acceptance of 0.8, and its diagonal mass.

    Args:
        gradient: Gradient of the log posterior averaged per example, over all examples.
        temperature: 1/N for the posterior of N examples.
        step_size: To start from, the same or one for each chain.
        burn_in: Updates in which the chain adapts; 0 keeps the step size and a mass of 1.

    Returns:
        The engine; ``info`` holds ``log_posterior`` of the moving point and, of the trajectories
        that ended at this update, their number ``trajectories``, the sum of their acceptance
        probabilities ``acceptance``, and how many diverged, ``divergences``; each (chain,).
    """

    def init(position: Tensor, generators: Generators) -> State:
        del generators
        n_chains = len(position)
        steps = torch.as_tensor(step_size, dtype=position.dtype, device=position.device)
        steps = steps.expand(n_chains).clone()
        zeros = torch.zeros_like(position)
        none = torch.zeros_like(steps)
        return State(
            position=position.clone(),
            value=none.clone(),
            slope=zeros.clone(),
            moving=position.clone(),
            velocity=zeros.clone(),
            energy=none.double(),
            left=none - 1,
            done=none.clone(),
            step_size=steps,
            scale=torch.ones_like(position),
            tuning=warm_up.start(steps),
            mean=zeros.clone(),
            square=zeros,
        )

    def update(state: State, batch: Any, generators: Generators) -> tuple[State, dict[str, Tensor]]:
        if bool(state.left[0] < 0):
            values, grads = gradient(state.position, batch)
            state.value.copy_(values)
            state.slope.copy_(grads)
            every = torch.arange(len(values), device=values.device)
            _launch(state, every, generators, temperature, burn_in)
        step = state.step_size[:, None]
        state.moving.addcmul_(state.scale * state.velocity, step)
        values, grads = gradient(state.moving, batch)
        state.velocity.addcmul_(state.scale * grads, step / temperature)
        state.left.sub_(1)
        state.done.add_(1)
        info = {name: torch.zeros_like(values) for name in _COUNTS}
        ended = torch.nonzero(state.left <= 0)[:, 0]
        if len(ended):
            before = state.position[ended]
            change = _finish(state, ended, values[ended], grads[ended], generators, temperature)
            probability = torch.exp(-change.clamp_min(0)).to(values.dtype)
            learning = state.done[ended] <= burn_in
            if learning.any():
                jump = ((state.position[ended] - before) / state.scale[ended]).square().mean(1)
                rows = ended[learning]
                warm_up.adapt(state, rows, probability[learning], jump[learning], burn_in)
            info["acceptance"][ended] = probability
            info["trajectories"][ended] = 1
            info["divergences"][ended] = (change > _DIVERGED).to(values.dtype)
            _launch(state, ended, generators, temperature, burn_in)
        return state, {"log_posterior": values, **info}

    return Engine(init, update)


def _launch(
    state: State, rows: Tensor, generators: Generators, temperature: float, burn_in: int
) -> None:
    """Start trajectories of some chains: fresh velocity, random length, first half kick."""
    warm_up.finish(state, rows[state.done[rows] >= burn_in])
    own = [generators[row] for row in rows.tolist()]
    velocity = fill_normal(torch.empty_like(state.position[rows]), own)
    value, step = state.value[rows], state.step_size[rows]
    state.energy[rows] = _energy(value, velocity, temperature)
    most = warm_up.longest(state.done[rows], burn_in)
    n_steps = torch.minimum((0.5 + _uniform(step, own)) * _DURATION / step, most)
    state.left[rows] = n_steps.ceil().clamp_min(1)
    state.moving[rows] = state.position[rows]
    kick = (step / (2 * temperature))[:, None]
    state.velocity[rows] = velocity.addcmul_(state.scale[rows] * state.slope[rows], kick)


def _finish(
    state: State,
    rows: Tensor,
    values: Tensor,
    slopes: Tensor,
    generators: Generators,
    temperature: float,
) -> Tensor:
    """Accept or reject the ends of some chains' trajectories; returns the changes of energy."""
    kick = (state.step_size[rows] / (2 * temperature))[:, None]
    velocity = state.velocity[rows].addcmul_(state.scale[rows] * slopes, -kick)
    change = _energy(values, velocity, temperature) - state.energy[rows]
    change = change.nan_to_num(nan=torch.inf)
    chance = _uniform(change, [generators[row] for row in rows.tolist()])
    accepted = chance < torch.exp(-change.clamp_min(0))
    moved = rows[accepted]
    state.position[moved] = state.moving[moved]
    state.value[moved] = values[accepted]
    state.slope[moved] = slopes[accepted]
    return change


def _uniform(like: Tensor, generators: Generators) -> Tensor:
    """One number in [0, 1) from each generator, shape (row,)."""
    numbers = torch.empty_like(like)
    for row, generator in zip(numbers, generators, strict=True):
        row.uniform_(generator=generator)
    return numbers


def _energy(values: Tensor, velocity: Tensor, temperature: float) -> Tensor:
    return 0.5 * velocity.double().square().sum(1) - values.double() / temperature


def _build(problem: Problem, plan: Plan) -> Engine:
    """Adapted from the largest step that is stable at the mode, or as the user set it."""
    if plan.step_size is not None:
        return build(problem.gradient, temperature=problem.temperature, step_size=plan.step_size)
    return build(
        problem.gradient,
        temperature=problem.temperature,
        step_size=problem.curvature().rsqrt(),
        burn_in=plan.burn_in,
    )


def _statistics(
    state: State, probe: Probe, totals: dict[str, Tensor], n_updates: int
) -> dict[str, Tensor]:
    """Counts of trajectories, the mean acceptance of each, and the step size."""
    del probe, n_updates
    acceptance = totals["acceptance"] / totals["trajectories"].clamp_min(1)
    return {**totals, "acceptance": acceptance, "step_size": state.step_size}


METHOD = Method(build=_build, batch_size=every_example, statistics=_statistics)
