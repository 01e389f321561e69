"""What limits the step size: the stiffest direction and the noise of minibatch gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mtbkd.inference.chains import fill_normal
from mtbkd.inference.method import Before, Probe, Run
from mtbkd.types import Generators, Gradient

_PROBES, _PROBE_EXAMPLES, _MOST_EXAMPLES, _LATER_ITERATIONS = 20, 512, 4096, 3
FIRST_ITERATIONS = 10
"""Power iterations from a random direction; later ones go on from the direction found."""


def largest_curvature(
    gradient: Gradient, position: Tensor, batch: Any, direction: Tensor, n_iterations: int
) -> tuple[Tensor, Tensor]:
    """Largest absolute curvature of the log posterior, by power iteration.

    Hessian products are central differences of gradients on one batch, so any network that has
    first derivatives will do.

    Args:
        gradient: Gradient of the log posterior averaged per example.
        position: Shape (chain, parameter).
        batch: The same at every iteration.
        direction: Where to start, shape (chain, parameter).
        n_iterations: At least one.

    Returns:
        Curvatures, shape (chain,), and the directions found, to start from next time.
    """
    radius = 1e-2
    curvature = torch.ones(len(position), device=position.device)
    for _ in range(n_iterations):
        unit = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        ahead = gradient(position + radius * unit, batch)[1].clone()
        behind = gradient(position - radius * unit, batch)[1]
        direction = (behind - ahead).div_(2 * radius)
        curvature = torch.linalg.vector_norm(direction, dim=1)
    return curvature, direction


def gradient_noise(gradient: Gradient, position: Tensor, batches: tuple[Any, Any]) -> Tensor:
    """Mean variance of a component of the minibatch gradient, from two batches: (chain,)."""
    first = gradient(position, batches[0])[1].clone()
    second = gradient(position, batches[1])[1]
    return (first - second).square().mean(1) / 2


def start_direction(position: Tensor, generators: Generators) -> Tensor:
    """A random direction for each chain to start the power iteration from."""
    return fill_normal(torch.empty_like(position), generators)


def adapted(stable_step_size: Callable[..., Tensor]) -> Before:
    """What an engine does between updates whose step size the driver adapts.

    Twenty times in the burn-in it measures what limits the step size and sets it, unless the user
    fixed it. A mode is flatter and its gradients are quieter than the posterior around it, so the
    step grows to its limit over the first half of the burn-in, and a worse limit counts at once.

    Args:
        stable_step_size: ``(curvature, gradient_noise, tolerance=...) -> step size``, the largest
            within the tolerance for each chain.
    """

    def before(run: Run, state: Any, probe: Probe, done: int) -> tuple[Any, Probe]:
        burn_in = run.plan.burn_in
        if run.plan.step_size is not None:
            return state, probe if done else _measured(run, state.position, probe, done)
        if done >= burn_in or done % max(1, burn_in // _PROBES):
            return state, probe
        state = run.engine.init(state.position, run.generators)  # forgets the old step's momentum
        probe = _measured(run, state.position, probe, done)
        step_size = stable_step_size(*probe.limits, tolerance=run.settings.tolerance)
        ramp = min(1.0, 0.1 + 2 * (done / burn_in))
        return state._replace(step_size=ramp * run.caution * step_size), probe

    return before


def passes_to_adapt(burn_in: int, n_examples: int) -> float:
    """Gradients over all examples that `adapted` takes beside those of the steps."""
    later = math.ceil(burn_in / max(1, burn_in // _PROBES)) - 1
    gradients = 2 * (FIRST_ITERATIONS + _LATER_ITERATIONS * later)
    return gradients * min(1.0, _MOST_EXAMPLES / n_examples)


def _measured(run: Run, position: Tensor, probe: Probe, done: int) -> Probe:
    """The limits of the step size at a position, beside those seen so far."""
    n, size = run.n_examples, run.plan.batch_size
    examples = min(n, max(min(size or n, _MOST_EXAMPLES), _PROBE_EXAMPLES))
    curvature, direction = largest_curvature(
        run.gradient,
        position,
        run.batches(examples),
        probe.direction,
        _LATER_ITERATIONS if done else FIRST_ITERATIONS,
    )
    noise = torch.zeros_like(curvature)
    if size is not None:
        noise = gradient_noise(run.gradient, position, (run.batches(size), run.batches(size)))
    seen = torch.stack([n * curvature, n**2 * noise])
    worst = torch.maximum(seen, (probe.limits + seen) / 2)
    return Probe(direction, worst if done else seen)


def limits_and_means(
    state: Any, probe: Probe, totals: dict[str, Tensor], n_updates: int
) -> dict[str, Tensor]:
    """What an adapted engine tells: means over updates, its step size and what limited it."""
    return {
        **{name: total / n_updates for name, total in totals.items()},
        "step_size": state.step_size,
        "curvature": probe.limits[0],
        "gradient_noise": probe.limits[1],
    }
