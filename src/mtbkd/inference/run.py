"""Drives chains: burn-in, thinning, checkpoints, resume."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mtbkd.files import save_tensors
from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.inference.checkpoint import Checkpoint, restore, save
from mtbkd.inference.engines import METHODS, make_plan
from mtbkd.inference.method import Plan, Probe, Problem, Run
from mtbkd.inference.samples import PosteriorSamples, segment_path
from mtbkd.inference.settings import SamplerSettings
from mtbkd.inference.step_size import FIRST_ITERATIONS, largest_curvature, start_direction
from mtbkd.prior.settings import Prior
from mtbkd.student.curvature import Precision, choose_kind, precision
from mtbkd.student.finite import all_finite
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import Student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.types import InputError, Progress

_SEGMENT = 10
_SAMPLER_STREAM = 1


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


class Target(NamedTuple):
    """The posterior that is sampled: of a student, what it learns from, and the mixture prior."""

    student: Student
    data: TrainingSet
    prior: Prior


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
        settings: What the user asked of the sampler.
        modes: Where the chains start, shape (chain, parameter).
        seed: Seed of the chains' generators.
        folder: Where draws and the checkpoint go; None keeps them in memory.
        progress: Called now and then.

    Raises:
        DivergedError: If a chain diverges to numbers that are not finite.
    """
    target, caution = Target(student, data, prior), torch.ones_like(modes[:, 0])
    return sample_cautiously(
        target, settings, modes, caution, seed=seed, folder=folder, progress=progress
    )


def sample_cautiously(
    target: Target,
    settings: SamplerSettings,
    modes: Tensor,
    caution: Tensor,
    *,
    seed: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Chains:
    """As `sample`, with adapted step sizes times ``caution``, shape (chain,)."""
    student, data, prior = target
    generators = chain_generators(seed, _SAMPLER_STREAM, len(modes), modes.device)
    batches = Minibatches(data, prior, generators)
    n = batches.n_examples
    gradient = in_parts(posterior_gradient(student, n, prior, data.observation), work=student.work)
    direction = start_direction(modes, generators)

    @cache
    def curvature() -> Tensor:
        return n * largest_curvature(gradient, modes, batches(n), direction, FIRST_ITERATIONS)[0]

    def precision_at(positions: Tensor) -> Precision:
        kind = choose_kind(student)
        return precision(student, positions, batches(n), prior, kind, data.observation)

    plan = make_plan(settings, n, curvature, noisy=data.augment is not None)
    method = METHODS[plan.engine]
    problem = Problem(
        gradient=gradient, temperature=1 / n, curvature=curvature, precision=precision_at
    )
    run = Run(
        engine=method.build(problem, plan),
        plan=plan,
        settings=settings,
        gradient=gradient,
        batches=batches,
        n_examples=n,
        generators=generators,
        caution=caution,
    )
    at = Checkpoint(
        state=run.engine.init(modes, generators),
        probe=Probe(direction, modes.new_zeros(2, len(modes))),
        totals={},
        done=0,
        n_segments=0,
    )
    segments: list[Tensor] = []
    if folder is not None:
        at, segments = restore(folder, at, generators)
    size, total = plan.batch_size or n, plan.burn_in + plan.draws * plan.thinning
    kept: list[Tensor] = []
    while at.done < total:
        state, probe = method.before(run, at.state, at.probe, at.done)
        state, info = run.engine.update(state, batches(size), generators)
        at = at._replace(state=state, probe=probe, done=at.done + 1)
        after = at.done - plan.burn_in
        if after > 0:
            at = at._replace(totals=_added(at.totals, info))
            if after % plan.thinning == 0:
                kept.append(student.natural(state.position))
        if len(kept) == _SEGMENT or (kept and at.done == total):
            segments.append(_finite(torch.stack(kept, dim=1), plan))
            kept = []
            at = at._replace(n_segments=len(segments))
            if folder is not None:
                save_tensors(segment_path(folder, at.n_segments - 1), {"draws": segments[-1]})
                save(folder, at, generators)
        if progress is not None and (at.done % 50 == 0 or at.done == total):
            progress(at.done, total)
    shapes = tuple(tuple(shape) for shape in student.shapes)
    samples = PosteriorSamples(tuple(segments), student.names, shapes)
    told = method.statistics(at.state, at.probe, at.totals, plan.draws * plan.thinning)
    return Chains(samples, plan, told)


class DivergedError(InputError):
    """A chain that left the numbers; ``chain`` says which."""

    def __init__(self, message: str, chain: int) -> None:
        super().__init__(message)
        self.chain = chain


def _finite(draws: Tensor, plan: Plan) -> Tensor:
    """Draws as they are, shape (chain, draw, parameter), once they are known to be numbers."""
    for chain, own in enumerate(draws):
        if not all_finite(own):
            lower = "prior.power or prior.concentration, or raise sampler.burn_in"
            raise DivergedError(
                f"Expected finite draws, but chain {chain} of {plan.engine} diverged. Lower "
                f"{lower if plan.step_size is None else 'sampler.step_size'}.",
                chain,
            )
    return draws


def _added(totals: dict[str, Tensor], info: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums over updates of what they told, but for the log posterior, which is no statistic."""
    told = {name: value for name, value in info.items() if name != "log_posterior"}
    return {name: totals.get(name, 0) + value for name, value in told.items()}
