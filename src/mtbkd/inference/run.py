"""Drives chains: modes, burn-in with step-size adaptation, thinning, checkpoints, resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mtbkd.inference import map as map_engine
from mtbkd.inference import sghmc, sgld
from mtbkd.inference.batches import Minibatches, Prior, TrainingSet
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.checkpoint import Checkpoint, Probe, State, restore, save
from mtbkd.inference.step_size import gradient_noise, largest_curvature, start_direction
from mtbkd.posterior import posterior_gradient
from mtbkd.prior import warmed_concentration
from mtbkd.samples import PosteriorSamples, save_tensors, segment_path
from mtbkd.student import Student
from mtbkd.types import Engine, Gradient, check_positive

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

_SEGMENT = 10
_PROBES, _PROBE_EXAMPLES, _FIRST_ITERATIONS, _LATER_ITERATIONS = 20, 512, 10, 3
_MAP_STREAM, _SAMPLER_STREAM = 0, 1


@dataclass(frozen=True)
class MapSettings:
    """How modes are found: passes over the data, examples per step, Adam's learning rate."""

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 0.02

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        check_positive(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate
        )


@dataclass(frozen=True)
class SamplerSettings:
    """How the posterior is explored from each mode.

    Attributes:
        engine: ``sghmc`` or ``sgld``.
        burn_in: Steps dropped at the start, in which the step size adapts.
        draws: Kept from each chain.
        thinning: Steps for each draw kept.
        batch_size: Examples per step and chain.
        step_size: None to adapt.
        tolerance: Relative error that the discretisation, and minibatch noise, may each add.
    """

    engine: Literal["sghmc", "sgld"] = "sghmc"
    burn_in: int = 1000
    draws: int = 50
    thinning: int = 50
    batch_size: int = 256
    step_size: float | None = None
    tolerance: float = 0.05

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        check_positive(
            burn_in=self.burn_in,
            draws=self.draws,
            thinning=self.thinning,
            batch_size=self.batch_size,
            step_size=1.0 if self.step_size is None else self.step_size,
            tolerance=self.tolerance,
        )


class Chains(NamedTuple):
    """What sampling leaves behind.

    Attributes:
        samples: The draws.
        step_size: Used after burn-in, shape (chain,).
        curvature: The largest curvature seen when the step size was set, shape (chain,).
        noise: Mean variance of the minibatch gradient then, shape (chain,).
        kinetic_temperature: Mean after burn-in, shape (chain,); None for ``sgld``.
    """

    samples: PosteriorSamples
    step_size: Tensor
    curvature: Tensor
    noise: Tensor
    kinetic_temperature: Tensor | None


def find_modes(
    student: Student,
    data: TrainingSet,
    prior: Prior,
    settings: MapSettings,
    *,
    n_chains: int,
    seed: int,
    progress: Progress | None = None,
) -> Tensor:
    """Find one mode for each chain, with the concentration warmed up from 1.

    Returns:
        Positions, shape (chain, parameter).
    """
    generators = chain_generators(seed, _MAP_STREAM, n_chains, data.labels.device)
    batches = Minibatches(data, prior, generators)
    steps_per_epoch = -(-batches.n_examples // settings.batch_size)
    n_steps = settings.epochs * steps_per_epoch
    gradient = posterior_gradient(student, batches.n_examples, prior.strength)
    engine = map_engine.build(gradient, learning_rate=settings.learning_rate, n_steps=n_steps)
    state = engine.init(student.initial_position(generators), generators)
    for step in range(n_steps):
        if step % steps_per_epoch == 0:
            batches.set_concentration(warmed_concentration(step / n_steps, prior.concentration))
            if progress is not None:
                progress(step, n_steps)
        state, _ = engine.update(state, batches(settings.batch_size), generators)
    if progress is not None:
        progress(n_steps, n_steps)
    return state.position


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
    gradient = posterior_gradient(student, batches.n_examples, prior.strength)
    engine = _build(settings, gradient, batches.n_examples)
    state = engine.init(modes, generators)
    probe = Probe(start_direction(modes, generators), modes.new_zeros(2, len(modes)))
    at = Checkpoint(state, probe, modes.new_zeros(len(modes)), 0, 0)
    segments: list[Tensor] = []
    if folder is not None:
        at, segments = restore(folder, at, generators)
    state, probe, heat, done, _ = at
    kept: list[Tensor] = []
    total = settings.burn_in + settings.draws * settings.thinning
    while done < total:
        adapting = settings.step_size is None and done < settings.burn_in
        if done == 0 or (adapting and done % _probe_interval(settings) == 0):
            if adapting:  # momentum gathered at another step size is forgotten
                state = engine.init(state.position, generators)
            progressed = done / settings.burn_in
            state, probe = _adapt(state, probe, settings, gradient, batches, progressed)
        state, info = engine.update(state, batches(settings.batch_size), generators)
        done += 1
        after = done - settings.burn_in
        if after > 0:
            heat = heat + info.get("kinetic_temperature", torch.zeros_like(heat))
            if after % settings.thinning == 0:
                kept.append(student.natural(state.position))
        if len(kept) == _SEGMENT or (kept and done == total):
            segments.append(torch.stack(kept, dim=1))
            kept = []
            if folder is not None:
                save_tensors(segment_path(folder, len(segments) - 1), {"draws": segments[-1]})
                save(folder, Checkpoint(state, probe, heat, done, len(segments)), generators)
        if progress is not None and (done % 50 == 0 or done == total):
            progress(done, total)
    shapes = tuple(tuple(shape) for shape in student.shapes)
    heat = heat / (settings.draws * settings.thinning)
    return Chains(
        PosteriorSamples(tuple(segments), student.names, shapes),
        state.step_size,
        probe.limits[0],
        probe.limits[1],
        heat if settings.engine == "sghmc" else None,
    )


def _build(settings: SamplerSettings, gradient: Gradient, n_examples: int) -> Engine:
    step_size = 0.0 if settings.step_size is None else settings.step_size
    build = {"sghmc": sghmc.build, "sgld": sgld.build}[settings.engine]
    return build(gradient, temperature=1 / n_examples, step_size=step_size)


def _probe_interval(settings: SamplerSettings) -> int:
    return max(1, settings.burn_in // _PROBES)


def _adapt(
    state: State,
    probe: Probe,
    settings: SamplerSettings,
    gradient: Gradient,
    batches: Minibatches,
    progressed: float,
) -> tuple[State, Probe]:
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
    if settings.step_size is None:
        stable = {"sghmc": sghmc.stable_step_size, "sgld": sgld.stable_step_size}
        step_size = stable[settings.engine](*limits, tolerance=settings.tolerance)
        ramp = min(1.0, 0.1 + 2 * progressed)
        state = state._replace(step_size=ramp * step_size)
    return state, Probe(direction, limits)
