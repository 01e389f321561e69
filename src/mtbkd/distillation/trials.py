"""Priors on trial: modes and short chains under them, judged by held-out labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.distillation.rounds import disagreement, steps_to_agree
from mtbkd.distillation.shares import TRIAL, TRIAL_CHAINS, Shares, few_rows, share_out
from mtbkd.files import load_tensors, save_tensors
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings, mode_scores, progress_of, starting_modes
from mtbkd.inference.run import Target, sample
from mtbkd.observation.units import Units
from mtbkd.prior.settings import Prior, PriorSettings
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import Report

_SHORTER = 3


@dataclass(frozen=True)
class Judged:
    """What a trial tells of a prior.

    Attributes:
        scores: Log score of each calibration label in nats, shape (label,).
        steps: Steps of all chains until they would agree; 0 where modes are judged.
    """

    scores: Tensor
    steps: float


@dataclass(frozen=True)
class Trials:
    """What modes are found on, and judged by, to choose the prior.

    Attributes:
        student: Whose modes are found.
        training: What it learns from.
        modes: How they are found.
        calibration: Labelled examples that judge them, if there are any.
        units: For regression only.
        sampler: How the posterior is explored from the modes, to judge draws in their place; None
            judges the modes. Modes like a stronger prior than draws do, and one that chains cannot
            explore.
        affordable: Steps of all chains that there is time for.
        seed: The same seed gives the same choice.
        out: A folder to write to, and to go on from.
        report: Told of each stage's progress.
    """

    student: Student
    training: TrainingSet
    modes: MapSettings
    calibration: Dataset | None
    units: Units | None = None
    sampler: SamplerSettings | None = None
    affordable: float = math.inf
    seed: int = 0
    out: Path | None = None
    report: Report | None = None

    def find(self, prior: Prior, n_chains: int, name: str) -> Tensor:
        """Modes under a prior, (chain, parameter)."""
        return starting_modes(
            self.student,
            self.training,
            prior,
            self.modes,
            n_chains=n_chains,
            seed=self.seed,
            path=None if self.out is None else self.out / "choices" / f"{name}.safetensors",
            progress=progress_of(self.report, name),
        )

    def judge(self, prior: Prior, name: str) -> Judged:
        """How good students under a prior are on the calibration labels, and how far to sample."""
        kept = self.out is not None and self.sampler is not None
        path = Path(self.out or "") / "choices" / f"{name}-score.safetensors"
        if kept and path.exists():
            stored = load_tensors(path)
            return Judged(stored["scores"], float(stored["steps"]))
        positions, steps = self.find(prior, TRIAL_CHAINS, name), 0.0
        if self.sampler is not None:
            drawn = sample(
                self.student,
                self.training,
                prior,
                self.sampler,
                positions,
                seed=self.seed,
                progress=progress_of(self.report, f"draws of {name}"),
            )
            every = torch.cat([s.flatten(0, 1) for s in drawn.samples.segments])
            positions = self.student.standardised(every.to(positions.device))
            family = self.training.observation.family
            rhat = disagreement(self.student, drawn.samples, self.training.features, family)
            steps = steps_to_agree(drawn, 1.0 if math.isnan(rhat) else rhat)
        found = Judged(self.log_scores(positions), steps)
        if kept:
            stored = {"scores": found.scores, "steps": torch.tensor(steps, dtype=torch.float64)}
            save_tensors(path, stored)
        return found

    def log_scores(self, positions: Tensor) -> Tensor:
        """Log score of each calibration label under the mixture of students, shape (label,)."""
        held = cast(Dataset, self.calibration)
        known, units = held.known, self.units
        labels = held.labels[known] if units is None else units.labels(held.labels[known])
        observation = self.training.observation
        return mode_scores(self.student, positions, held.inputs[known], labels, observation)


def shorter(modes: MapSettings) -> MapSettings:
    """How modes are found that only compare priors: in a third of the epochs."""
    return replace(modes, epochs=math.ceil(modes.epochs / _SHORTER))


def within_budget(
    trials: Trials, tried: Trials, prior: PriorSettings, n_chains: int, budget: float
) -> tuple[Trials, Shares]:
    """Trials that judge draws, and what a budget leaves for each part, so that they fit into it.

    Args:
        trials: Those of the student itself.
        tried: The same, or those of its stand-in.
        prior: What is to be chosen.
        n_chains: How many chains the student has.
        budget: Sampling's seconds.
    """
    training, options = trials.training, prior.candidates()
    n_trials = sum(len(values) for values in options.values() if len(values) > 1)
    first = prior.prior({name: values[0] for name, values in options.items()})
    target = Target(trials.student, training, first)
    its = Target(tried.student, tried.training, first)
    shares = share_out(target, its, trials.modes, n_chains, n_trials, budget, trials.out)
    few = tried.training.subset(few_rows(len(training), shares.compared, trials.seed))
    # with fewer examples the posterior is wider, and as much farther the steps go
    affordable = shares.steps * math.sqrt(len(few) / len(training))
    modes = shorter(replace(tried.modes, epochs=shares.tried_epochs))
    return replace(tried, training=few, modes=modes, sampler=TRIAL, affordable=affordable), shares
