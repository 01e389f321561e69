"""What is left of a run's budget, and what its parts after sampling make of that."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Task
from mtbkd.app.run import stages
from mtbkd.app.run.baselines import TRAININGS, n_modes
from mtbkd.distillation.cross_fit import FOLDS, shorter_chains
from mtbkd.distillation.posterior import Posterior
from mtbkd.distillation.shares import decided, read_shares, shortened
from mtbkd.inference.step_size import passes_to_adapt

Baselines = Literal["all", "fast", "none"]

_KEPT, _REPORT = 2000, 5.0  # examples that answers are compared with; seconds
_TIMED = 512  # examples, of which each takes less than of a few
_CHAINS, _FEW_FOLDS = 2, 2  # of cross-fitting
_LADDER = ((1.0, FOLDS), (0.5, FOLDS), (0.2, FOLDS), (0.2, _FEW_FOLDS), (0.1, _FEW_FOLDS))
"""How long its chains are, in units of what they usually are, and how many folds there are."""


@dataclass(frozen=True)
class Allowance:
    """A run's budget by the clock.

    Attributes:
        seconds: Those of the whole run; infinite without a budget.
        begun: When it began, by the clock.
        out: The run directory, where all that the clock decides is written down.
        clock: Seconds.
    """

    seconds: float
    begun: float
    out: Path
    clock: Callable[[], float] = perf_counter

    def spent(self) -> float:
        """Seconds since the run began; those of an earlier process are not known."""
        return self.clock() - self.begun


@dataclass(frozen=True)
class After:
    """Seconds that each part after sampling is expected to take.

    Attributes:
        judging: All that predicts, and the report.
        modes: Modes of students that did not see the labels of a fold.
        chains: From the length of their chains, in units of what they usually are, to the seconds
            that they take.
        baselines: By how much of them is trained.
    """

    judging: float
    modes: float
    chains: Callable[[float], float]
    baselines: dict[Baselines, float]


def expected(config: RunConfig, task: Task, posterior: Posterior, out: Path) -> After:
    """What is to come, from the seconds of a step, of a search for modes, and of an answer.

    Args:
        config: The run's.
        task: Whose examples are to be predicted.
        posterior: The student, behind its frozen part.
        out: The run directory.
    """
    milliseconds = stages.milliseconds(posterior, task.test.inputs, _TIMED)
    n, n_test = len(task.train), len(task.test) + sum(map(len, task.others.values()))
    answers = n + 2 * min(n, _KEPT) + 3 * len(task.calibration) + 5 * n_test
    shares = read_shares(out)
    part = _part(_CHAINS, config.chains) if stages.learns_calibration(config) else 0.0
    sampler = stages.as_it_ran(config, posterior)

    def chains(length: float) -> float:
        short = shorter_chains(shortened(sampler, length))
        steps = (short.burn_in + short.draws * short.thinning) * (short.batch_size or n) / n
        steps += passes_to_adapt(short.burn_in, n)
        return 0.0 if posterior.instead else part * steps * shares.per_step

    of_a_rival = _part(n_modes(config, posterior.student), config.chains) * shares.modes
    return After(
        judging=_REPORT + answers * milliseconds / 1000,
        modes=part * shares.modes,
        chains=chains,
        baselines={which: n * of_a_rival for which, n in TRAININGS.items()},
    )


def choose_folds(asked: Baselines, after: After, allowance: Allowance) -> None:
    """How many students there are that did not see the labels of a fold, and how long chains.

    As many and as long as usual if all that is to come fits then. They are shortened before the
    strongest baseline is alone with the student.
    """

    def decide() -> list[float]:
        left = allowance.seconds - allowance.spent() - after.judging
        left -= after.baselines[_least(asked)]
        costs = (k * (after.modes + after.chains(length)) for length, k in _LADDER)
        fits = [rung for rung, cost in zip(_LADDER, costs, strict=True) if cost <= left]
        return list(fits[0] if fits else _LADDER[-1])

    decided(allowance.out, "cross_fit", decide)


def choose_baselines(asked: Baselines, after: After, allowance: Allowance) -> None:
    """Which baselines there is time for, of those that are asked for.

    The strongest of them is never left out, unless none is asked for. Warns where it is alone.
    """

    def decide() -> Baselines:
        left = allowance.seconds - allowance.spent() - after.judging
        return asked if after.baselines[asked] <= left else _least(asked)

    if decided(allowance.out, "baselines", decide) != asked:
        warnings.warn(
            "The strongest baseline is trained alone, as the budget leaves no time for more. For "
            "all of them raise `budget`.",
            stacklevel=2,
        )


def _least(asked: Baselines) -> Baselines:
    return "none" if asked == "none" else "fast"


def _part(n: int, of: int) -> float:
    """What ``n`` chains take side by side of what ``of`` do: a part of a step is for all alike."""
    return min(1.0, (n + 1) / (of + 1))
