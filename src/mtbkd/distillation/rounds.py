"""Sampling until chains agree: rounds, each twice as long as the one before, within a budget."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from mtbkd.files import load_tensors, read_sealed, save_sealed, save_tensors
from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.inference.diagnostics import convergence
from mtbkd.inference.engines import METHODS, SamplerSettings
from mtbkd.inference.modes import progress_of
from mtbkd.inference.run import Chains, DivergedError, Target, sample_cautiously
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import OUTCOMES
from mtbkd.predictive import draw_outputs
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import Student
from mtbkd.training import Minibatches
from mtbkd.types import Family, Report

AGREED = 1.05
"""R-hat (95th percentile over what the student says) below which sampling ends."""
TRIAL = SamplerSettings(engine="sghmc", burn_in=100, draws=20, thinning=10, batch_size=None)
"""How draws that judge a choice are made."""
TRIAL_IN_TURN = replace(TRIAL, batch_size=256)
"""The same where chains go one after the other, and all examples would be much work."""
_HOT, _TOO_HOT = 1.1, 1.5  # times the posterior's temperature
_SLOWER, _MUCH_SLOWER, _LEAST_CAUTION = 0.7, 0.35, 1e-4
_LENGTHS = (2.0, 1.5, 1.0)  # of the next round in units of the last, the first that fits
_PROBES = 100  # unlabelled examples whose outputs are compared
_FEWEST_STEPS = 500  # over all examples, below which batches are taken
_SMALLEST_BATCH = 256
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
    """

    burn_in: int
    thinning: int
    batch_size: int | None
    caution: tuple[float, ...]
    seconds: float | None = None
    rhat_95: float | None = None


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
    diverged, at once. Which rounds there were is written down before each begins: a run
    that was killed goes on to the same bytes, but how many rounds a budget buys depends on the
    machine.

    Args:
        target: What is sampled.
        settings: Burn-in and thinning are those of the first round. A batch size of None becomes
            smaller where too few steps over all examples fit into the budget.
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
        batch_size = settings.batch_size or _batch_size(target, budget, modes)
        first = Round(settings.burn_in, settings.thinning, batch_size, (1.0,) * len(modes))
        rounds = (first,)
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
            rhat = disagreement(student, chains.samples, data.features, data.observation.family)
            known = 1.0 if math.isnan(rhat) else rhat
            now = replace(now, seconds=clock() - begun, rhat_95=known)
            rounds = (*rounds[:-1], now)
        following = _next(rounds, chains, budget)
        if following is None:
            _write(out, rounds, start)
            return chains, rounds
        last = student.standardised(chains.samples.segments[-1][:, -1].to(modes.device))
        heat = chains.statistics.get("kinetic_temperature", torch.zeros_like(last[:, 0]))
        start = torch.where((heat > _TOO_HOT)[:, None], start, last)
        rounds = (*rounds, following)
        _write(out, rounds, start, anew=True)


def disagreement(
    student: Student, samples: PosteriorSamples, inputs: Tensor, family: Family
) -> float:
    """R-hat of what the student says on some of the inputs, its 95th percentile.

    NaN if nothing that it says moves, or with fewer than four draws.
    """
    some, outcome = inputs[:: -(-len(inputs) // _PROBES)], OUTCOMES[family]
    values = [outcome.traced(outputs) for outputs in draw_outputs(student, samples, some)]
    functions = torch.cat(values, 2).flatten(2).double().cpu().numpy()
    rhat, _ = convergence(functions, 1e-9)
    rhat = rhat[~np.isnan(rhat)]
    return float(np.quantile(rhat, 0.95)) if len(rhat) else math.nan


def _next(rounds: tuple[Round, ...], chains: Chains, budget: float) -> Round | None:
    """The round to come; None if the chains agree or no time is left for it."""
    last = rounds[-1]
    heat = chains.statistics.get("kinetic_temperature", torch.ones(len(last.caution))).tolist()
    independent = METHODS[chains.plan.engine].independent
    if independent or (float(last.rhat_95 or 1.0) <= AGREED and max(heat) <= _HOT):
        return None
    left = budget - sum(each.seconds or 0.0 for each in rounds)
    share = next((s for s in _LENGTHS if s * float(last.seconds or 0.0) <= left), None)
    if share is None:
        return None
    caution = [c * _slower(t) for c, t in zip(last.caution, heat, strict=True)]
    thinning = round(share * last.thinning)
    burn_in = max(1, chains.plan.draws * thinning // 4)
    return Round(burn_in, thinning, last.batch_size, tuple(caution))


def _slower(heat: float) -> float:
    """What the step size of a chain at this temperature is multiplied by."""
    return _MUCH_SLOWER if heat > _TOO_HOT else _SLOWER if heat > _HOT else 1.0


def _batch_size(target: Target, budget: float, modes: Tensor) -> int | None:
    """None if enough steps over all examples fit into the budget, else the batch that lets them.

    Of a network whose gradients are much work, that of a few examples is timed.
    """
    student, data, prior = target
    n = len(data)
    gradient = in_parts(posterior_gradient(student, n, prior, data.observation), work=student.work)
    batches = Minibatches(data, prior, chain_generators(0, 0, len(modes), modes.device))
    timed = min(n, _TIMED_IN_TURN) if student.passage.in_turn else n
    batch = batches(timed)
    gradient(modes, batch)
    begun = perf_counter()
    for _ in range(_TIMED):
        gradient(modes, batch)
    step = max(perf_counter() - begun, 1e-9) / _TIMED * n / timed
    size, steps = n, budget / step
    while steps < _FEWEST_STEPS and size > 2 * _SMALLEST_BATCH:
        size, steps = size // 2, 2 * steps
    return None if size == n else size


def _read(out: Path | None, modes: Tensor) -> tuple[tuple[Round, ...], Tensor]:
    """The rounds up to the present one, and where it starts; none if nothing began."""
    if out is None or not (out / _ROUNDS).exists():
        return (), modes
    found = read_sealed(out / _ROUNDS)["rounds"]
    rounds = tuple(Round(**each | {"caution": tuple(each["caution"])}) for each in found)
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
