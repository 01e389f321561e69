"""Drives chains: modes, burn-in with step-size adaptation, thinning, checkpoints, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.files import save_tensors
from mtbkd.inference.batches import Minibatches, in_parts
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.checkpoint import Checkpoint, Probe, restore, save
from mtbkd.inference.engines import (
    METHODS,
    Method,
    Plan,
    Problem,
    SamplerSettings,
    hopeless_for_hmc,
    make_plan,
)
from mtbkd.inference.samples import PosteriorSamples, segment_path
from mtbkd.inference.step_size import gradient_noise, largest_curvature, start_direction
from mtbkd.prior.settings import Prior
from mtbkd.student.curvature import choose_kind, precision
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import Gradient, Progress

_SEGMENT = 10
_SAMPLER_STREAM = 1
_PROBES, _PROBE_EXAMPLES, _FIRST_ITERATIONS, _LATER_ITERATIONS = 20, 512, 10, 3


class Chains(NamedTuple):
    """What sampling leaves behind.

    Attributes:
        samples: The draws.
        plan: Which engine, why, and its steps.
        statistics: Numbers on the chains after burn-in, each of shape (chain,), as far as the
            engine has them: ``step_size``; the ``curvature`` and ``gradient_noise`` that limited
            it; ``kinetic_temperature``, or ``acceptance``, ``trajectories`` and ``divergences``.
    """

    samples: PosteriorSamples
    plan: Plan
    statistics: dict[str, Tensor]


def sample(
    student: Student,
    data: TrainingSet,
    prior: Prior,
    settings: SamplerSettings,
    modes: Tensor,
    *,
    seed: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Chains:
    """Explore the posterior from the modes.

    With a folder, draws are written there in segments, and a run that was killed goes on from
    the last segment to the same bytes.

    Args:
        student: What is sampled.
        data: What it learns from.
        prior: The mixture prior.
        settings: Of the sampler.
        modes: Where the chains start, shape (chain, parameter).
        seed: Of the chains' generators.
        folder: Where draws and the checkpoint go; None keeps them in memory.
        progress: Called now and then.
    """
    generators = chain_generators(seed, _SAMPLER_STREAM, len(modes), modes.device)
    batches = Minibatches(data, prior, generators)
    n = batches.n_examples
    gradient = in_parts(posterior_gradient(student, n, prior.strength, data.observation))
    direction = start_direction(modes, generators)
    plan, steps = _plan(settings, gradient, batches, modes, direction)
    method = METHODS[plan.engine]
    size = n if method.every_example else settings.batch_size
    problem = Problem(
        gradient,
        1 / n,
        lambda at: precision(
            student, at, batches(n), prior.strength, choose_kind(student), data.observation
        ),
    )
    engine = method.build(problem, plan, steps)
    state = engine.init(modes, generators)
    probe = Probe(direction, modes.new_zeros(2, len(modes)))
    at = Checkpoint(state, probe, {}, 0, 0)
    segments: list[Tensor] = []
    if folder is not None:
        at, segments = restore(folder, at, generators)
    state, probe, totals, done, _ = at
    kept: list[Tensor] = []
    every = max(1, plan.burn_in // _PROBES)
    total = plan.burn_in + plan.draws * plan.thinning
    while done < total:
        adapting = settings.step_size is None and done < plan.burn_in and done % every == 0
        if method.stable_step_size is not None and (adapting or done == 0):
            if adapting:  # momentum gathered at another step size is forgotten
                state = engine.init(state.position, generators)
            progressed = done / plan.burn_in
            state, probe = _adapt(state, probe, method, settings, gradient, batches, progressed)
        if method.cyclical and done == plan.burn_in:
            state = engine.init(state.position, generators)._replace(step_size=state.step_size)
        state, info = engine.update(state, batches(size), generators)
        done += 1
        after = done - plan.burn_in
        if after > 0:
            told = {name: value for name, value in info.items() if name != "log_posterior"}
            totals = {name: totals.get(name, 0) + value for name, value in told.items()}
            if after % plan.thinning == 0:
                kept.append(student.natural(state.position))
        if len(kept) == _SEGMENT or (kept and done == total):
            segments.append(torch.stack(kept, dim=1))
            kept = []
            if folder is not None:
                save_tensors(segment_path(folder, len(segments) - 1), {"draws": segments[-1]})
                save(folder, Checkpoint(state, probe, totals, done, len(segments)), generators)
        if progress is not None and (done % 50 == 0 or done == total):
            progress(done, total)
    shapes = tuple(tuple(shape) for shape in student.shapes)
    samples = PosteriorSamples(tuple(segments), student.names, shapes)
    statistics = _statistics(totals, plan.draws * plan.thinning)
    if "step_size" in state._fields:
        statistics |= {"step_size": state.step_size}
    if method.stable_step_size is not None:
        statistics |= {"curvature": probe.limits[0], "gradient_noise": probe.limits[1]}
    return Chains(samples, plan, statistics)


def _plan(
    settings: SamplerSettings,
    gradient: Gradient,
    batches: Minibatches,
    modes: Tensor,
    direction: Tensor,
) -> tuple[Plan, Tensor]:
    """The engine, and the step sizes that it starts from, shape (chain,)."""
    steps = modes.new_full((len(modes),), settings.step_size or 0.0)
    n = batches.n_examples
    if settings.engine not in ("auto", "hmc") or hopeless_for_hmc(settings, n):
        return make_plan(settings, n, 0.0), steps
    curvature, _ = largest_curvature(gradient, modes, batches(n), direction, _FIRST_ITERATIONS)
    if settings.step_size is None:
        steps = (n * curvature).rsqrt()
    return make_plan(settings, n, n * float(curvature.max())), steps


def _statistics(totals: dict[str, Tensor], n_updates: int) -> dict[str, Tensor]:
    """Sums over all updates to means and counts."""
    found = dict(totals)
    if "kinetic_temperature" in found:
        found["kinetic_temperature"] = found["kinetic_temperature"] / n_updates
    if "trajectories" in found:
        found["acceptance"] = found["acceptance"] / found["trajectories"].clamp_min(1)
    return found


def _adapt(
    state: Any,
    probe: Probe,
    method: Method,
    settings: SamplerSettings,
    gradient: Gradient,
    batches: Minibatches,
    progressed: float,
) -> tuple[Any, Probe]:
    """Measure what limits the step size and set it, unless the user fixed it.

    A mode is flatter and its gradients are quieter than the posterior around it, so the step grows
    to its limit over the first half of the burn-in, and a worse limit counts at once.
    """
    first = progressed == 0
    n, size = batches.n_examples, settings.batch_size
    curvature, direction = largest_curvature(
        gradient,
        state.position,
        batches(max(size, _PROBE_EXAMPLES)),
        probe.direction,
        _FIRST_ITERATIONS if first else _LATER_ITERATIONS,
    )
    noise = gradient_noise(gradient, state.position, (batches(size), batches(size)))
    seen = torch.stack([n * curvature, n**2 * noise])
    limits = seen if first else torch.maximum(seen, (probe.limits + seen) / 2)
    if settings.step_size is None and method.stable_step_size is not None:
        step_size = method.stable_step_size(*limits, tolerance=settings.tolerance)
        ramp = min(1.0, 0.1 + 2 * progressed)
        state = state._replace(step_size=ramp * step_size)
    return state, Probe(direction, limits)
