"""How far a run's predictions are from the converged posterior, by a long reference run."""

from __future__ import annotations

import math
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.config.run import RunConfig
from mtbkd.app.folder import JUDGED, SHOWN, amended, check_run, read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Recipe
from mtbkd.app.report import ReferenceData, draw_reference
from mtbkd.app.run import stages
from mtbkd.app.run.baselines import modes_as_samples
from mtbkd.distillation.posterior import Posterior
from mtbkd.files import read_json, save_json, write_bytes
from mtbkd.inference.diagnostics import convergence
from mtbkd.inference.engines import METHODS, SamplerSettings
from mtbkd.inference.modes import progress_of, starting_modes
from mtbkd.inference.run import Chains, sample
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.metrics import agreement, total_variation
from mtbkd.predictive import draw_probs
from mtbkd.student.finite import all_finite
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet, training_set
from mtbkd.types import Floats, InputError, Report, check_positive

RHAT_LIMIT, ESS_LIMIT = 1.01, 400.0
_GOOD, _FAIR = (0.99, 0.015), (0.97, 0.03)
_DRAWS, _BURN_IN_SHARE, _LEAST_RANGE = 500, 1 / 12, 1e-4
_SEED_SHIFT = 1000
_LARGEST_FACTOR = 10_000
_CHAINS, _POINTS = 8, 100


class _Seen(NamedTuple):
    """A reference in function space.

    Attributes:
        halves: Means of the first and second half of the chains, shape (2, example, class).
        running: Total variation of the halves, mean over examples, over the draws up to each of
            some, shape (point,).
        rhat: Shape (function,).
        ess: Shape (function,).
    """

    halves: Floats
    running: Floats
    rhat: Floats
    ess: Floats

    @property
    def probs(self) -> Floats:
        return self.halves.mean(0)


def diagnose_run(
    out: Path,
    *,
    engine: str = "hmc",
    factor: float = 10.0,
    seed: int | None = None,
    network: str | None = None,
    report: Report | None = None,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Compare a run with a reference: other modes, another seed, many more steps.

    The reference lies in ``RUN/reference/`` and goes on from where it was stopped. R-hat and ESS
    are over all test probabilities that move by more than 1e-4; the others change nothing that is
    reported. A reference whose R-hat exceeds 1.01 for more than 1 % of them, or whose ESS is
    below 400 for more than 5 %, has not converged and judges nothing.

    | verdict | agreement | total variation |
    |---|---|---|
    | agrees | >= 0.99 | <= 0.015 |
    | agrees roughly | >= 0.97 | <= 0.03 |
    | differs | below | above |

    Args:
        out: The run directory.
        engine: Engine of the reference.
        factor: The reference's steps over those of the run.
        seed: Seed of the reference; by default that of the run plus 1000.
        network: As `read_run` takes it.
        report: Called with each stage's progress.
        recipe: Another one than the run names.

    Returns:
        What is written to ``diagnose.json``: ``verdict``, ``converged``, ``agreement`` and
        ``total_variation`` (None if not converged), those two of the reference's halves and of
        the run's modes, ``rhat_99``, ``rhat_median``, ``ess``, ``ess_median`` and costs.

    Raises:
        InputError: If the run is unfinished, or not of classification, or the reference cannot
            be made.
    """
    config = read_run(out, "samples/manifest.json", "teachers/costs.json", network=network)
    check_run(out, but=(*JUDGED, *SHOWN))
    seed = config.seed + _SEED_SHIFT if seed is None else seed
    _check(engine, factor, seed, config.seed)
    recipe = recipe or find_recipe(config.recipe)
    task = stages.load(recipe, config, out)
    if not task.test.outcome.exclusive:
        raise InputError(
            f"Expected a run of classification to diagnose, but {out} is one of "
            f"{task.test.family}. Look at R-hat and the effective sample size in its report."
        )
    teachers, _ = stages.teach(recipe, config, task, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.test.classes, out)
    training = training_set(
        posterior.student,
        stages.learned(config, task),
        teachers,
        posterior.weighting,
        out,
        posterior.units,
    )
    task, behind = stages.on_features(task, posterior, out)
    inputs = task.test.inputs
    _check_draws(
        behind.samples,
        out / "samples",
        "Run it again with sampler.step_size=null or a smaller sampler.tolerance.",
    )
    own = _mean_of(behind.student, behind.samples, inputs)
    chains, seconds = _reference(out, config, posterior, training, engine, factor, seed, report)
    seen = _look(behind.student, chains.samples, inputs)
    modes = _mean_of(behind.student, modes_as_samples(behind.student, behind.modes), inputs)
    found = _judge(own, modes, seen) | {
        "reference": engine,
        "factor": factor,
        "seed": seed,
        "steps": chains.plan.burn_in + chains.plan.draws * chains.plan.thinning,
        "run_engine": posterior.plan.engine,
        "run_steps": _run_steps(config, posterior),
        "cpu_seconds": seconds,
        "n_functions": len(seen.rhat),
        **{name: value.tolist() for name, value in sorted(chains.statistics.items())},
    }
    drawing = draw_reference(
        ReferenceData(
            found["verdict"], own, seen.probs, seen.halves, seen.running, seen.rhat, RHAT_LIMIT
        )
    )
    with amended(out, "diagnose.json", "diagnose.svg"):
        save_json(out / "diagnose.json", found)
        write_bytes(out / "diagnose.svg", drawing.encode())
    return found


def _check(engine: str, factor: float, seed: int, own_seed: int) -> None:
    """Refuse what makes no reference; engines without chains converge to no posterior."""
    if not factor > _LARGEST_FACTOR:
        check_positive(factor=factor)
    known = [name for name, method in METHODS.items() if not method.independent]
    faults = []
    if engine not in known:
        faults.append(
            f"Expected one of the engines {', '.join(known)} as reference, but got {engine!r}. "
            "Use hmc, which is exact up to chance."
        )
    if factor > _LARGEST_FACTOR:
        faults.append(
            f"Expected factor of at most {_LARGEST_FACTOR:,}, but got {factor}. Lower it."
        )
    if not 0 <= seed < 2**31:
        faults.append(f"Expected seed from 0 to {2**31 - 1}, but got {seed}. Choose another.")
    if seed == own_seed:
        faults.append(
            f"Expected another seed than the run's, but got {seed}, whose modes are the run's own. "
            "Choose another, so that the reference is independent."
        )
    if faults:
        raise InputError(*faults)


def _mean_of(student: Student, samples: PosteriorSamples, inputs: Tensor) -> Floats:
    """Mean probabilities, shape (example, class)."""
    parts = draw_probs(student, samples, inputs)
    return torch.cat([part.double().mean((0, 1)).cpu() for part in parts]).numpy()


def _check_draws(samples: PosteriorSamples, folder: Path, remedy: str) -> None:
    if not all(map(all_finite, samples.segments)):
        raise InputError(f"Expected finite draws in {folder}, but its sampler diverged. {remedy}")


def _run_steps(config: RunConfig, posterior: Posterior) -> int:
    sampler = stages.as_it_ran(config, posterior)
    return sampler.burn_in + sampler.draws * sampler.thinning


def _reference(
    out: Path,
    config: RunConfig,
    posterior: Posterior,
    training: TrainingSet,
    engine: str,
    factor: float,
    seed: int,
    report: Report | None,
) -> tuple[Chains, float]:
    """The long run, from modes of its own, and the CPU seconds of the call that finished it."""
    start = process_time()
    folder = out / "reference" / f"{engine}-{str(factor).removesuffix('.0')}-{seed}"
    modes = starting_modes(
        posterior.student,
        training,
        posterior.prior,
        config.modes(len(training)),
        n_chains=_CHAINS,
        seed=seed,
        path=folder / "modes.safetensors",
        progress=progress_of(report, "modes"),
    )
    steps = math.ceil(factor * _run_steps(config, posterior))
    after = max(1, steps - math.ceil(steps * _BURN_IN_SHARE))
    thinning = math.ceil(after / _DRAWS)
    draws = after // thinning
    settings = SamplerSettings(
        engine=engine,  # type: ignore[arg-type]
        burn_in=max(1, steps - draws * thinning),
        draws=draws,
        thinning=thinning,
        batch_size=stages.as_it_ran(config, posterior).batch_size,
        tolerance=config.sampler.tolerance,
    )
    chains = sample(
        posterior.student,
        training,
        posterior.prior,
        settings,
        modes,
        seed=seed,
        folder=folder / "samples",
        progress=progress_of(report, "reference"),
    )
    _check_draws(chains.samples, folder / "samples", "Use another --reference or --seed.")
    cost = folder / "cost.json"
    if not cost.exists():
        save_json(cost, {"cpu_seconds": round(process_time() - start, 1)})
    return chains, read_json(cost)["cpu_seconds"]


def _look(student: Student, samples: PosteriorSamples, inputs: Tensor) -> _Seen:
    """Means and convergence, batch of examples by batch."""
    halves, rhat, ess, running = [], [], [], 0.0
    at = np.unique(np.linspace(1, samples.n_draws, _POINTS).round().astype(int)) - 1
    for probs in draw_probs(student, samples, inputs):
        values = probs.double().cpu()
        half = len(values) // 2
        means = torch.stack([part.mean(0) for part in (values[:half], values[half:])])
        halves.append(means.mean(1).numpy())
        apart = (means[0] - means[1]).cumsum(0)[at].abs().sum((1, 2)) / 2
        running = running + apart.numpy() / (at + 1) / len(inputs)
        for found, into in zip(
            convergence(values.flatten(2).numpy(), _LEAST_RANGE), (rhat, ess), strict=True
        ):
            into.append(found)
    return _Seen(
        np.concatenate(halves, 1), np.asarray(running), np.concatenate(rhat), np.concatenate(ess)
    )


def _judge(own: Floats, modes: Floats, seen: _Seen) -> dict[str, Any]:
    """Numbers and the verdict in words."""

    def compared(probs: Floats, reference: Floats) -> tuple[float | None, float | None]:
        apart = float(total_variation(probs, reference).mean())
        return (agreement(probs, reference), apart) if math.isfinite(apart) else (None, None)

    rhat_99 = rhat_median = ess_5 = ess_median = None
    if len(seen.rhat):
        rhat_median, rhat_99 = np.nanquantile(seen.rhat, [0.5, 0.99]).tolist()
        ess_5, ess_median = np.nanquantile(seen.ess, [0.05, 0.5]).tolist()
    converged = bool(
        rhat_99 is not None and rhat_99 <= RHAT_LIMIT and ess_5 is not None and ess_5 >= ESS_LIMIT
    )
    same, apart = compared(own, seen.probs) if converged else (None, None)
    numbers: dict[str, Any] = {"agreement": same, "total_variation": apart}
    if same is None or apart is None:
        reached = "nothing moved, or fewer than 4 draws"
        if rhat_99 is not None:
            reached = f"R-hat {rhat_99:.3f}, ESS {ess_5:.0f}"
        verdict = (
            f"No verdict: the reference has not converged ({reached}; expected R-hat at most "
            f"{RHAT_LIMIT} for 99 % of the test probabilities and ESS at least {ESS_LIMIT:.0f} "
            "for 95 %). Raise --factor."
        )
    else:
        manner = "differs from"
        for words, (least, most) in (("agrees with", _GOOD), ("agrees roughly with", _FAIR)):
            if same >= least and apart <= most:
                manner = words
                break
        verdict = (
            f"The run {manner} the converged posterior: the same class on {same:.1%} of the test "
            f"examples, total variation {apart:.4f}."
        )
    halves, by_modes = compared(*seen.halves), compared(modes, seen.probs)
    return {
        "verdict": verdict,
        "converged": converged,
        **numbers,
        "halves_agreement": halves[0],
        "halves_total_variation": halves[1],
        "modes_agreement": by_modes[0] if converged else None,
        "modes_total_variation": by_modes[1] if converged else None,
        "rhat_99": rhat_99,
        "rhat_median": rhat_median,
        "ess": ess_5,
        "ess_median": ess_median,
    }
