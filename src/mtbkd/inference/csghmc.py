"""Cyclical SG-MCMC: `sghmc` whose step size falls from large to small, again and again."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.inference import sghmc
from mtbkd.inference.chains import fill_normal
from mtbkd.inference.method import Method, Probe, Run
from mtbkd.inference.step_size import adapted, limits_and_means
from mtbkd.types import Engine, Generators, Gradient


class State(NamedTuple):
    """What the next update needs, each with a leading chain axis.

    Attributes:
        position: Shape (chain, parameter).
        momentum: Shape (chain, parameter).
        step_size: The largest of a cycle, shape (chain,).
        done: Updates done in the present cycle, the same for all chains, shape (chain,).
    """

    position: Tensor
    momentum: Tensor
    step_size: Tensor
    done: Tensor


def build(
    gradient: Gradient,
    *,
    temperature: float,
    step_size: float | Tensor,
    cycle: int,
    friction: float = 1.0,
) -> Engine:
    """Build the engine (Zhang et al. 2020, arXiv:1902.03932).

    Update ``k`` of a cycle takes the step ``step_size * (1 + cos(pi * k / cycle)) / 2``, and a
    cycle starts with a momentum drawn anew; the position to keep is the one at its end. A kick is
    half of the last step's and half of this one's, as BAOAB asks for. With whole kicks of the
    present step, the jump from the smallest step to the largest heats: at a largest step of 0.4
    and cycles of 20, variances on a correlated Gaussian and on logarithms of gamma variables were
    2 to 9 % too large, where with halves they are 1 to 3 % too small.

    The noise-free share at the start of a cycle that the paper explores with is left out: what it
    forgets is not regained while the step is small. At a largest step of 0.2 and cycles of 20, a
    quarter of the cycle without noise left 0.46 to 0.80 of the variance, a half 0.14 to 0.26.
    Without it, at the largest step that `stable_step_size` allows and cycles of 50, it is 0.97 to
    1.00 of the variance. ``benchmarks/csghmc.py`` measures all of these.

    Args:
        gradient: Gradient of the log posterior averaged per example.
        temperature: 1/N for the posterior of N examples.
        step_size: The largest of a cycle, in time, the same or one for each chain.
        cycle: Updates in a cycle.
        friction: As in `sghmc.build`.

    Returns:
        The engine; ``info`` is that of `sghmc`.
    """
    share = 1.0

    def kick(position: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        values, grads = gradient(position, batch)
        return values, grads * share

    inner = sghmc.build(kick, temperature=temperature, step_size=step_size, friction=friction)

    def init(position: Tensor, generators: Generators) -> State:
        start = inner.init(position, generators)
        return State(*start, done=torch.zeros_like(start.step_size))

    def update(state: State, batch: Any, generators: Generators) -> tuple[State, dict[str, Tensor]]:
        nonlocal share
        at = int(state.done[0])
        if at == 0:
            fill_normal(state.momentum, generators)
        size = _schedule(at, cycle)
        before = _schedule(at - 1, cycle) if at else 0.0
        share = (before + size) / (2 * size)  # half a kick of the last step, half of this one
        moment = sghmc.State(state.position, state.momentum, size * state.step_size)
        moved, info = inner.update(moment, batch, generators)
        done = state.done.add_(1).remainder_(cycle)
        return State(moved.position, moved.momentum, state.step_size, done), info

    return Engine(init, update)


def stable_step_size(
    curvature: Tensor, gradient_noise: Tensor, *, tolerance: float, friction: float = 1.0
) -> Tensor:
    """Largest step size of a cycle within the tolerance: 1.5 times that of `sghmc`.

    The mean step of a cycle is then 0.75 of that of `sghmc`, and the largest is 0.75 of what the
    stiffest direction bears.

    Args:
        curvature: As in `sghmc.stable_step_size`.
        gradient_noise: As there.
        tolerance: As there.
        friction: As given to `build`.
    """
    steady = sghmc.stable_step_size(
        curvature, gradient_noise, tolerance=tolerance, friction=friction
    )
    return 1.5 * steady


def _schedule(at: int, cycle: int) -> float:
    """Share of the largest step size at one update of a cycle."""
    return 0.5 * (1 + math.cos(math.pi * at / cycle))


_adapt = adapted(stable_step_size)


def _before(run: Run, state: Any, probe: Probe, done: int) -> tuple[Any, Probe]:
    """The step size is adapted, and a cycle starts when the burn-in ends."""
    state, probe = _adapt(run, state, probe, done)
    if done == run.plan.burn_in:
        fresh = run.engine.init(state.position, run.generators)
        state = fresh._replace(step_size=state.step_size)
    return state, probe


METHOD = Method(
    build=lambda problem, plan: build(
        problem.gradient,
        temperature=problem.temperature,
        step_size=plan.step_size or 0.0,
        cycle=plan.thinning,
    ),
    before=_before,
    statistics=limits_and_means,
)
