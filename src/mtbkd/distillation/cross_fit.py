"""What the student would say of examples that it learned from, had it not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mtbkd.data import Dataset, joined
from mtbkd.distillation.choose import choose_weighting
from mtbkd.distillation.posterior import Posterior
from mtbkd.distillation.temperature import tempered_by_others
from mtbkd.distillation.trials import Trials
from mtbkd.files import load_tensors, save_tensors
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import progress_of, starting_modes
from mtbkd.inference.run import sample
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer, draw_outputs
from mtbkd.prior.settings import Prior
from mtbkd.teachers.folds import group_folds
from mtbkd.training import TrainingSet, training_set
from mtbkd.types import Ints

FOLDS, _CHAINS = 5, 2  # where folds are fewer, chains are more, up to the student's
_SHARE = 5  # of the chains' draws, and half of their burn-in and thinning
_FEWEST = 10


def cross_fit(
    posterior: Posterior,
    trials: Trials,
    sampler: SamplerSettings,
    without: Callable[[Tensor], tuple[TrainingSet, Prior]],
    *,
    level: float = 0.9,
    groups: Ints | None = None,
    folds: int = FOLDS,
) -> tuple[Answer, float]:
    """Answers on the calibration examples of students that did not learn from them.

    The examples are dealt into folds, or one for each group where these are fewer. For each, a
    few chains learn from all the others, under a prior and weights that the labels of all the
    others have chosen, and answer on the fold. A fold is left out with what the
    teachers say on it, as an example to come is. So what is chosen on these answers, sets,
    thresholds and flags, keeps its promise on examples to come, though the student learned from
    each label (cross-conformal prediction, Vovk 2015). Its chains are fewer and shorter than the
    student's, which makes the sets a little larger than need be. The second that is returned is the
    temperature that they find for the student; see `mtbkd.distillation.temperature`.

    Args:
        posterior: What `distill` made with ``learn_calibration``.
        trials: All that it learned from, the calibration examples last, behind its frozen part.
        sampler: As given to `distill`.
        without: What is learned from without the calibration examples of a mask, shape
            (calibration example,), and under which prior, as `refitted` makes it.
        level: Level of the intervals.
        groups: Number of the group of each calibration example, shape (calibration example,); a
            group is left out as a whole. If not given, each example is a group of its own.
        folds: How many, at most.
    """
    head, calibration = trials.student, trials.calibration
    if calibration is None:
        raise ValueError("there are no calibration examples to answer on")
    fold = calibration_folds(len(calibration), groups, trials.seed, folds)
    n_folds = int(fold.max()) + 1
    n_chains = max(_CHAINS, min(len(posterior.modes), _CHAINS * folds // n_folds))
    settings = shorter_chains(sampler)
    every, order = [], []
    for held in range(n_folds):
        path = None if trials.out is None else trials.out / "cross_fit" / f"fold-{held}.safetensors"
        mine = fold == held
        order.append(mine.nonzero()[:, 0])
        if path is not None and path.exists():
            every.append(load_tensors(path)["outputs"])
            continue
        own, prior = without(mine)
        name = f"fold {held + 1} of {n_folds}"
        start = starting_modes(
            head,
            own,
            prior,
            trials.modes,
            n_chains=n_chains,
            seed=trials.seed,
            path=None,
            progress=progress_of(trials.report, f"modes of {name}"),
        )
        drawn = sample(
            head,
            own,
            prior,
            settings,
            start,
            seed=trials.seed,
            progress=progress_of(trials.report, name),
        )
        answers = draw_outputs(head, drawn.samples, calibration.inputs[mine])
        outputs = torch.cat([part.flatten(0, 1) for part in answers], 1).cpu()
        every.append(outputs)
        if path is not None:
            save_tensors(path, {"outputs": outputs})
    outputs = torch.cat(every, 1)[:, torch.cat(order).argsort()]
    family = posterior.family

    def answer(mine: Tensor, temperature: float) -> Answer:
        own = outputs[:, mine] / temperature
        return OUTCOMES[family].summarise(own, units=trials.units, level=level, point="mean")

    return tempered_by_others(outputs, calibration.labels, fold, family, answer)


def refitted(
    posterior: Posterior,
    trials: Trials,
    train: Dataset,
    teachers: TeacherOutputs,
    choose: Callable[[Tensor], Prior],
) -> Callable[[Tensor], tuple[TrainingSet, Prior]]:
    """What is learned from without some calibration examples, which choose nothing either.

    Args:
        posterior: Where its weights are stacked, they are fitted again.
        trials: As `cross_fit` is given.
        train: The training examples as the head reads them.
        teachers: What they say on these and on the calibration examples.
        choose: The prior that the calibration examples of a mask choose.

    Returns:
        From a mask of calibration examples, shape (calibration example,), to all others.
    """
    calibration, units = cast(Dataset, trials.calibration), posterior.units

    def without(held: Tensor) -> tuple[TrainingSet, Prior]:
        kept = ~held
        if posterior.weighting.stacked is None:
            n_others = len(trials.training) - len(calibration)
            others = torch.cat([torch.ones(n_others, dtype=torch.bool), kept])
            return trials.training.subset(others.nonzero()[:, 0]), choose(kept)
        rest = calibration.subset(kept.nonzero()[:, 0])
        weighting = choose_weighting("auto", train, teachers, rest, None, units)
        own = training_set(trials.student, joined(train, rest), teachers, weighting, units=units)
        return own, choose(kept)

    return without


def shorter_chains(sampler: SamplerSettings) -> SamplerSettings:
    """Chains of those that did not learn from some labels."""
    return replace(
        sampler,
        burn_in=math.ceil(sampler.burn_in / 2),
        thinning=math.ceil(sampler.thinning / 2),
        draws=max(sampler.draws // _SHARE, min(_FEWEST, sampler.draws)),
    )


def calibration_folds(n: int, groups: Ints | None, seed: int, folds: int = FOLDS) -> Tensor:
    """The fold of each of ``n`` examples, shape (example,)."""
    n_folds = min(folds, n if groups is None else len(np.unique(groups)))
    if groups is None or n_folds == 1:
        return torch.arange(n) % n_folds
    return group_folds(groups.tolist(), n_folds, seed)
