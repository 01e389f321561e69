"""Sampling until chains agree: rounds, each twice as long as the one before, within a budget."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.files import load_tensors, read_sealed, save_sealed, save_tensors
from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.inference.diagnostics import rhat
from mtbkd.inference.engines import METHODS, SamplerSettings
from mtbkd.inference.modes import progress_of
from mtbkd.inference.run import Chains, DivergedError, Target, sample_cautiously
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.inference.sghmc import stable_step_size
from mtbkd.inference.step_size import (
    FIRST_ITERATIONS,
    gradient_noise,
    largest_curvature,
    passes_to_adapt,
    start_direction,
)
from mtbkd.observation import OUTCOMES
from mtbkd.predictive import draw_outputs
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import Student
from mtbkd.training import Minibatches
from mtbkd.types import Family, Report

AGREED = 1.05
"""R-hat (95th percentile over what the student says) below which sampling ends."""
_HOT = 1.1  # times the posterior's temperature
TOO_HOT = 1.5
"""Chains that are hotter, in units of the posterior's temperature, have not arrived."""
_SLOWER, _MUCH_SLOWER, _LEAST_CAUTION = 0.7, 0.35, 1e-4
_FALLING = 2 / 3  # of the heat of the round before: what has fallen below it goes on falling
_LENGTHS = (2.0, 1.5, 1.0)  # of the next round in units of the last, the first that fits
PROBES = 100
"""Unlabelled examples on which what chains say is compared."""
_FEWEST_STEPS = 500  # over all examples, below which batches may take chains further
_SMALLEST_BATCH = 256
_SHORTEST = 4  # steps of a burn-in, in which step sizes are found
_TIMED, _TIMED_IN_TURN = 3, 256
_ROUNDS = "rounds.json"


@dataclass(frozen=True)
class Round:
    """One round of sampling.

    Attributes:
        burn_in: Steps before its first draw.
        thinning: Steps for each draw.
        batch_size: Examples of a step; None for all.
        caution: Multiplies each chain's adapted step size.
        seconds: What it took; None while it is not done.
        rhat_95: R-hat of its draws, 95th percentile over what the student says on unlabelled
            examples.
        heat: Kinetic temperature of each chain, in units of the posterior's, where it is known.
    """

    burn_in: int
    thinning: int
    batch_size: int | None
    caution: tuple[float, ...]
    seconds: float | None = None
    rhat_95: float | None = None
    heat: tuple[float, ...] | None = None


def sample_in_rounds(
    target: Target,
    settings: SamplerSettings,
    modes: Tensor,
    *,
    budget: float | None,
    seed: int,
    out: Path | None = None,
    report: Report | None = None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[Chains, tuple[Round, ...]]:
    """Sample until chains agree on what the student says, or the budget is over.

    Each round starts where the one before ended and its draws replace that one's, so all that is
    kept is as far from the modes as half of all steps take it. A chain that ran hot takes smaller
    steps in the next round, one that ran very hot from where it was before, and so does one that
    diverged, at once; but not one that only cools down. Which rounds there were is written down
    before each begins: a run that was killed goes on to the same bytes, but how many rounds a
    budget buys depends on the machine.

    Args:
        target: What is sampled.
        settings: Burn-in and thinning are those of the first round, or less where the budget does
            not last. A batch size of None becomes smaller where batches take chains further.
        modes: Where the chains start, shape (chain, parameter).
        budget: Seconds; None for a single round, as long as the settings say.
        seed: Seed of the chains' generators; later rounds have others.
        out: A run directory; draws end up in ``samples``.
        report: Told of each round's progress.
        clock: Seconds.

    Returns:
        The chains of the last round, and all rounds.

    Raises:
        DivergedError: If a chain diverges at however small steps, or at those that are given.
    """
    student, data, _ = target
    one = partial(sample_cautiously, target)
    folder = None if out is None else out / "samples"
    if budget is None:
        caution, progress = torch.ones_like(modes[:, 0]), progress_of(report, "sampling")
        return one(settings, modes, caution, seed=seed, folder=folder, progress=progress), ()
    if settings.engine == "auto":
        settings = replace(settings, engine="sghmc")
    rounds, start = _read(out, modes)
    if not rounds:
        rounds = (_first(target, settings, budget, modes),)
        _write(out, rounds, modes)
    while True:
        now, number = rounds[-1], len(rounds)
        begun = clock()
        steps = {"burn_in": now.burn_in, "thinning": now.thinning, "batch_size": now.batch_size}
        try:
            chains = one(
                replace(settings, **steps),
                start,
                modes.new_tensor(now.caution),
                seed=seed + 1_000_003 * (number - 1),
                folder=folder,
                progress=progress_of(report, f"sampling, round {number}"),
            )
        except DivergedError as error:
            if now.caution[error.chain] < _LEAST_CAUTION or settings.step_size is not None:
                raise
            caution = list(now.caution)
            caution[error.chain] *= _MUCH_SLOWER
            rounds = (*rounds[:-1], replace(now, caution=tuple(caution)))
            _write(out, rounds, start, anew=True)
            continue
        if now.seconds is None:
            found = disagreement(student, chains.samples, data.features, data.observation.family)
            known = 1.0 if math.isnan(found) else found
            heat = chains.statistics.get("kinetic_temperature", torch.ones(len(modes)))
            now = replace(now, seconds=clock() - begun, rhat_95=known, heat=tuple(heat.tolist()))
            rounds = (*rounds[:-1], now)
        following = _next(rounds, chains, budget)
        if following is None:
            _write(out, rounds, start)
            return chains, rounds
        last = student.standardised(chains.samples.segments[-1][:, -1].to(modes.device))
        slowed = torch.tensor(following.caution) < torch.tensor(now.caution)
        again = slowed & (torch.tensor(now.heat) > TOO_HOT)
        start = torch.where(again[:, None].to(last.device), start, last)
        rounds = (*rounds, following)
        _write(out, rounds, start, anew=True)


def disagreement(
    student: Student, samples: PosteriorSamples, inputs: Tensor, family: Family
) -> float:
    """R-hat of what the student says on some of the inputs, its 95th percentile.

    NaN if nothing that it says moves, or with fewer than four draws.
    """
    some, outcome = inputs[:: -(-len(inputs) // PROBES)], OUTCOMES[family]
    values = [outcome.traced(outputs) for outputs in draw_outputs(student, samples, some)]
    functions = torch.cat(values, 2).flatten(2).double().cpu().numpy()
    found = rhat(functions, 1e-9)
    found = found[~np.isnan(found)]
    return float(np.quantile(found, 0.95)) if len(found) else math.nan


def steps_to_agree(chains: Chains, rhat_95: float) -> float:
    """Steps of rounds until chains agree, as a few short ones tell.

    The square of R-hat exceeds 1 by about the autocorrelation time over the number of steps, and
    of all steps half are those of the last round. Infinite where chains run very hot: those have
    not arrived, and what they say of each other is not of the posterior.
    """
    heat = chains.statistics.get("kinetic_temperature", torch.ones(1))
    if float(heat.max()) > TOO_HOT:
        return math.inf
    drawn = chains.plan.draws * chains.plan.thinning
    return 2 * drawn * (rhat_95**2 - 1) / (AGREED**2 - 1)


def _next(rounds: tuple[Round, ...], chains: Chains, budget: float) -> Round | None:
    """The round to come; None if the chains agree or no time is left for it."""
    last = rounds[-1]
    heat = last.heat or (1.0,) * len(last.caution)
    independent = METHODS[chains.plan.engine].independent
    if independent or (float(last.rhat_95 or 1.0) <= AGREED and max(heat) <= _HOT):
        return None
    left = budget - sum(each.seconds or 0.0 for each in rounds)
    share = next((s for s in _LENGTHS if s * float(last.seconds or 0.0) <= left), None)
    if share is None:
        return None
    thinning = round(share * last.thinning)
    burn_in = max(1, chains.plan.draws * thinning // 4)
    return Round(burn_in, thinning, last.batch_size, _caution(rounds))


def _caution(rounds: tuple[Round, ...]) -> tuple[float, ...]:
    """What multiplies the step sizes of the round to come: less for chains that stay hot.

    Over all examples a chain may be hot because it still falls from where it started, which lies
    above the posterior's typical set: that passes, and smaller steps would only prolong it. So it
    is slowed there only if its heat has not fallen since the round before.
    """
    last = rounds[-1]
    heat = last.heat or (1.0,) * len(last.caution)
    if last.batch_size is None:
        before = rounds[-2].heat if len(rounds) > 1 else None
        if before is None:
            return last.caution
        heat = [t if t - 1 > _FALLING * (b - 1) else 1.0 for t, b in zip(heat, before, strict=True)]
    return tuple(c * _slower(t) for c, t in zip(last.caution, heat, strict=True))


def _slower(heat: float) -> float:
    """What the step size of a chain at this temperature is multiplied by."""
    return _MUCH_SLOWER if heat > TOO_HOT else _SLOWER if heat > _HOT else 1.0


def _first(target: Target, settings: SamplerSettings, budget: float, modes: Tensor) -> Round:
    """The first round: over all examples, or over batches where these take chains further.

    How far a budget takes chains is the number of steps times the step size that curvature and
    minibatch noise allow. A small batch has many steps, but under a strong prior its noise makes
    them so short that few steps over all examples go further. Where even small batches have too few
    steps to tell, the smallest has the most.
    """
    student, data, prior = target
    n, cautious, noisy = len(data), (1.0,) * len(modes), data.augment is not None
    if settings.batch_size is not None:
        return Round(settings.burn_in, settings.thinning, settings.batch_size, cautious)
    generators = chain_generators(0, 0, len(modes), modes.device)
    gradient = in_parts(posterior_gradient(student, n, prior, data.observation), work=student.work)
    batches = Minibatches(data, prior, generators)
    timed = min(n, _TIMED_IN_TURN) if student.passage.in_turn else n
    some = batches(timed)
    gradient(modes, some)
    begun = perf_counter()
    for _ in range(_TIMED):
        gradient(modes, some)
    steps = budget * _TIMED / max(perf_counter() - begun, 1e-9) * timed / n
    size, best = n, n
    if steps < _FEWEST_STEPS:
        direction = start_direction(modes, generators)
        curved = n * largest_curvature(gradient, modes, some, direction, FIRST_ITERATIONS)[0]
        furthest, smallest = 0.0, n
        while size >= min(_SMALLEST_BATCH, n):
            noise = torch.zeros_like(curved)
            if size < n or noisy:
                noise = n**2 * gradient_noise(gradient, modes, (batches(size), batches(size)))
            step = stable_step_size(curved, noise, tolerance=settings.tolerance).mean()
            reach = float(step) * steps * n / size
            if steps * n / size >= _FEWEST_STEPS / 4 and reach > furthest:
                best, furthest = size, reach
            smallest, size = size, size // 2
        best = best if furthest else smallest
    share = min(1.0, steps * n / best / _FEWEST_STEPS)
    while True:
        burn_in = max(min(_SHORTEST, settings.burn_in), int(share * settings.burn_in))
        thinning = max(1, int(share * settings.thinning))
        taken = passes_to_adapt(burn_in, n) + (burn_in + settings.draws * thinning) * best / n
        if taken <= steps or max(burn_in, thinning) <= _SHORTEST:
            return Round(burn_in, thinning, best if noisy or best < n else None, cautious)
        share *= _SLOWER


def _tupled(value: Any) -> Any:
    """JSON's lists as a `Round` has them."""
    return tuple(value) if isinstance(value, list) else value


def _read(out: Path | None, modes: Tensor) -> tuple[tuple[Round, ...], Tensor]:
    """The rounds up to the present one, and where it starts; none if nothing began."""
    if out is None or not (out / _ROUNDS).exists():
        return (), modes
    found = read_sealed(out / _ROUNDS)["rounds"]
    rounds = tuple(Round(**{k: _tupled(v) for k, v in each.items()}) for each in found)
    return rounds, load_tensors(_start(out, len(rounds)))["start"].to(modes.device)


def _write(
    out: Path | None, rounds: tuple[Round, ...], start: Tensor, *, anew: bool = False
) -> None:
    """Say where rounds stand; if the last begins anew, draws that are there are not its own."""
    if out is None:
        return
    began = len(read_sealed(out / _ROUNDS)["rounds"]) if (out / _ROUNDS).exists() else 0
    save_tensors(_start(out, len(rounds)), {"start": start})
    if anew:
        shutil.rmtree(out / "samples", ignore_errors=True)
    save_sealed(out / _ROUNDS, {"rounds": [asdict(each) for each in rounds]})
    if began < len(rounds):
        _start(out, began).unlink(missing_ok=True)


def _start(out: Path, number: int) -> Path:
    return out / f"start-{number}.safetensors"
