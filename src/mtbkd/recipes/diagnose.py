"""How far a run's predictions are from the converged posterior, by a long reference run."""

from __future__ import annotations

import math
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.config import RunConfig
from mtbkd.diagnostics import convergence
from mtbkd.distill import Posterior
from mtbkd.inference.batches import TrainingSet
from mtbkd.inference.engines import METHODS, SamplerSettings
from mtbkd.inference.run import Chains, sample
from mtbkd.learning import Report, mode_probs, progress_of, starting_modes, training_set
from mtbkd.metrics import agreement, total_variation
from mtbkd.predictive import draw_probs
from mtbkd.recipes import find_recipe, stages
from mtbkd.recipes.folder import read_run
from mtbkd.report import ReferenceData, draw_reference
from mtbkd.samples import PosteriorSamples, save_json
from mtbkd.student import Student
from mtbkd.types import InputError, check_positive

Floats = NDArray[np.float64]

RHAT_LIMIT, ESS_LIMIT = 1.01, 400.0
_GOOD, _FAIR = (0.99, 0.015), (0.97, 0.03)
_DRAWS, _BURN_IN_SHARE, _LEAST_RANGE = 500, 1 / 12, 1e-4
_SEED_SHIFT = 1000
_CHAINS = 8


class _Seen(NamedTuple):
    """A reference in function space: means (half, example, class), R-hat and ESS (function,)."""

    halves: Floats
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
    report: Report | None = None,
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
        engine: Of the reference.
        factor: The reference's steps over those of the run.
        seed: Of the reference; by default that of the run plus 1000.
        report: Called with each stage's progress.

    Returns:
        What is written to ``diagnose.json``: ``verdict``, ``converged``, ``agreement`` and
        ``total_variation`` (None if not converged), those two of the reference's halves and of
        the run's modes, ``rhat_99``, ``rhat_median``, ``ess``, ``ess_median`` and costs.

    Raises:
        InputError: If the run is unfinished, or the reference cannot be made.
    """
    _check(engine, factor, seed)
    config = read_run(out, "samples/manifest.json", "teachers/costs.json")
    recipe = find_recipe(config.recipe)
    task = stages.load(recipe, config, out)
    teachers, _ = stages.teach(recipe, config, task, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.test.classes, out)
    training = training_set(posterior.student, task.train, teachers, posterior.weighting, out)
    task, behind = stages.on_features(task, posterior, out)
    seed = config.seed + _SEED_SHIFT if seed is None else seed
    start = process_time()
    chains = _reference(out, config, posterior, training, engine, factor, seed, report)
    seconds = process_time() - start
    inputs = task.test.inputs
    seen = _look(behind.student, chains.samples, inputs)
    own = np.concatenate(
        [
            probs.double().mean((0, 1)).cpu().numpy()
            for probs in draw_probs(behind.student, behind.samples, inputs)
        ]
    )
    modes = mode_probs(behind.student, behind.modes, inputs).numpy()
    found = _judge(own, modes, seen) | {
        "reference": engine,
        "factor": factor,
        "seed": seed,
        "steps": chains.plan.burn_in + chains.plan.draws * chains.plan.thinning,
        "run_engine": posterior.plan.engine,
        "run_steps": _run_steps(config),
        "cpu_seconds": round(seconds, 1),
        "n_functions": len(seen.rhat),
        **{name: value.tolist() for name, value in sorted(chains.statistics.items())},
    }
    save_json(out / "diagnose.json", found)
    drawing = draw_reference(
        ReferenceData(found["verdict"], own, seen.probs, seen.halves, seen.rhat, RHAT_LIMIT)
    )
    partial = out / ".diagnose.svg.partial"
    partial.write_text(drawing, encoding="utf-8")
    partial.rename(out / "diagnose.svg")
    return found


def _check(engine: str, factor: float, seed: int | None) -> None:
    """Refuse what makes no reference; engines without chains converge to no posterior."""
    check_positive(factor=factor)
    known = [name for name, method in METHODS.items() if not method.independent]
    faults = []
    if engine not in known:
        faults.append(
            f"Expected one of the engines {', '.join(known)} as reference, but got {engine!r}. "
            "Use hmc, which is exact up to chance."
        )
    if math.isinf(factor):
        faults.append(f"Expected a finite factor, but got {factor}. Lower it.")
    if seed is not None and seed < 0:
        faults.append(f"Expected seed at least 0, but got {seed}. Raise it.")
    if faults:
        raise InputError(*faults)


def _run_steps(config: RunConfig) -> int:
    sampler = config.sampler
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
) -> Chains:
    """The long run, from modes of its own."""
    folder = out / "reference" / f"{engine}-{factor:g}-{seed}"
    modes = starting_modes(
        posterior.student,
        training,
        posterior.prior,
        config.map,
        _CHAINS,
        seed,
        folder,
        "modes",
        report,
    )
    steps = math.ceil(factor * _run_steps(config))
    after = max(1, steps - math.ceil(steps * _BURN_IN_SHARE))
    thinning = math.ceil(after / _DRAWS)
    draws = after // thinning
    settings = SamplerSettings(
        engine=engine,  # type: ignore[arg-type]
        burn_in=max(1, steps - draws * thinning),
        draws=draws,
        thinning=thinning,
        batch_size=config.sampler.batch_size,
        tolerance=config.sampler.tolerance,
    )
    return sample(
        posterior.student,
        training,
        posterior.prior,
        settings,
        modes,
        seed=seed,
        folder=folder / "samples",
        progress=progress_of(report, "reference"),
    )


def _look(student: Student, samples: PosteriorSamples, inputs: Tensor) -> _Seen:
    """Means and convergence, batch of examples by batch."""
    halves, rhat, ess = [], [], []
    for probs in draw_probs(student, samples, inputs):
        values = probs.double().cpu()
        half = max(1, len(values) // 2)
        parts = (values[:half], values[half:] if len(values) > 1 else values)
        halves.append(torch.stack([part.mean((0, 1)) for part in parts]).numpy())
        for found, into in zip(
            convergence(values.flatten(2).numpy(), _LEAST_RANGE), (rhat, ess), strict=True
        ):
            into.append(found)
    return _Seen(np.concatenate(halves, 1), np.concatenate(rhat), np.concatenate(ess))


def _judge(own: Floats, modes: Floats, seen: _Seen) -> dict[str, Any]:
    """Numbers and the verdict in words."""

    def compared(probs: Floats, reference: Floats) -> tuple[float, float]:
        return agreement(probs, reference), float(total_variation(probs, reference).mean())

    rhat_99 = rhat_median = ess_5 = ess_median = None
    if len(seen.rhat):
        rhat_median, rhat_99 = np.nanquantile(seen.rhat, [0.5, 0.99]).tolist()
        ess_5, ess_median = np.nanquantile(seen.ess, [0.05, 0.5]).tolist()
    converged = bool(
        rhat_99 is not None and rhat_99 <= RHAT_LIMIT and ess_5 is not None and ess_5 >= ESS_LIMIT
    )
    numbers: dict[str, Any] = {"agreement": None, "total_variation": None}
    if not converged:
        reached = (
            "nothing moved, or fewer than 4 draws"
            if rhat_99 is None
            else f"R-hat {rhat_99:.3f}, ESS {ess_5:.0f}"
        )
        verdict = (
            f"No verdict: the reference has not converged ({reached}; expected R-hat at most "
            f"{RHAT_LIMIT} for 99 % of the test probabilities and ESS at least {ESS_LIMIT:.0f} "
            "for 95 %). Raise --factor."
        )
    else:
        same, apart = compared(own, seen.probs)
        numbers = {"agreement": same, "total_variation": apart}
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
