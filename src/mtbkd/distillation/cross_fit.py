"""What the student would say of examples that it learned from, had it not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mtbkd.data import Dataset, joined
from mtbkd.distillation.choose import Trials, choose_weighting
from mtbkd.distillation.posterior import Posterior
from mtbkd.files import load_tensors, save_tensors
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import progress_of, starting_modes
from mtbkd.inference.run import sample
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer, draw_outputs
from mtbkd.student.student import Student
from mtbkd.teachers.folds import group_folds
from mtbkd.training import TrainingSet, training_set
from mtbkd.types import Ints

_FOLDS, _CHAINS = 5, 2  # where folds are fewer, chains are more, up to the student's
_SHARE = 5  # of the chains' draws, and half of their burn-in and thinning
_FEWEST = 10


def cross_fit(
    posterior: Posterior,
    trials: Trials,
    sampler: SamplerSettings,
    without: Callable[[Tensor], TrainingSet],
    *,
    level: float = 0.9,
    groups: Ints | None = None,
) -> Answer:
    """Answers on the calibration examples of students that did not learn from them.

    The examples are dealt into five folds, or one for each group where these are fewer. For each, a
    few chains learn from all the others, under the posterior's own prior and weights that are
    fitted to the labels of all the others, and answer on the fold. A fold is left out with what the
    teachers say on it, as an example to come is. So what is chosen on these answers, sets,
    thresholds and flags, keeps its promise on examples to come, though the student learned from
    each label (cross-conformal prediction, Vovk 2015). Its chains are fewer and shorter than the
    student's, which makes the sets a little larger than need be.

    Args:
        posterior: What `distill` made with ``learn_calibration``.
        trials: All that it learned from, the calibration examples last, behind its frozen part.
        sampler: As given to `distill`.
        without: Where weights were fitted to labels, what is learned from without the calibration
            examples of a mask, shape (calibration example,), as `refitted` makes it.
        level: Level of the intervals.
        groups: Number of the group of each calibration example, shape (calibration example,); a
            group is left out as a whole. If not given, each example is a group of its own.
    """
    head, training, calibration = trials.student, trials.training, trials.calibration
    if calibration is None:
        raise ValueError("there are no calibration examples to answer on")
    n_others = len(training) - len(calibration)
    fold = _folds(len(calibration), groups, trials.seed)
    n_folds = int(fold.max()) + 1
    n_chains = max(_CHAINS, min(len(posterior.modes), _CHAINS * _FOLDS // n_folds))
    settings = replace(
        sampler,
        burn_in=math.ceil(sampler.burn_in / 2),
        thinning=math.ceil(sampler.thinning / 2),
        draws=max(sampler.draws // _SHARE, min(_FEWEST, sampler.draws)),
    )
    every, order = [], []
    for held in range(n_folds):
        path = None if trials.out is None else trials.out / "cross_fit" / f"fold-{held}.safetensors"
        mine = fold == held
        order.append(mine.nonzero()[:, 0])
        if path is not None and path.exists():
            every.append(load_tensors(path)["outputs"])
            continue
        if posterior.weighting.stacked is None:
            others = torch.cat([torch.ones(n_others, dtype=torch.bool), ~mine]).nonzero()[:, 0]
            own = training.subset(others)
        else:
            own = without(mine)
        name = f"fold {held + 1} of {n_folds}"
        start = starting_modes(
            head,
            own,
            posterior.prior,
            trials.modes,
            n_chains=n_chains,
            seed=trials.seed,
            path=None,
            progress=progress_of(trials.report, f"modes of {name}"),
        )
        drawn = sample(
            head,
            own,
            posterior.prior,
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
    outcome = OUTCOMES[posterior.family]
    return outcome.summarise(outputs, units=trials.units, level=level, point="mean")


def refitted(
    head: Student,
    posterior: Posterior,
    train: Dataset,
    calibration: Dataset,
    teachers: TeacherOutputs,
) -> Callable[[Tensor], TrainingSet]:
    """What is learned from without some calibration examples, which fit no weights either.

    Args:
        head: The student behind its frozen part.
        posterior: Its weights are stacked; they are fitted again.
        train: The training examples as the head reads them.
        calibration: The calibration examples likewise.
        teachers: What they say on both.

    Returns:
        From a mask of calibration examples, shape (calibration example,), to all others.
    """

    def without(held: Tensor) -> TrainingSet:
        rest = calibration.subset((~held).nonzero()[:, 0])
        units = posterior.units
        weighting = choose_weighting("auto", train, teachers, rest, None, units)
        return training_set(head, joined(train, rest), teachers, weighting, units=units)

    return without


def _folds(n: int, groups: Ints | None, seed: int) -> Tensor:
    """The fold of each of ``n`` examples, shape (example,)."""
    n_folds = min(_FOLDS, n if groups is None else len(np.unique(groups)))
    if groups is None or n_folds == 1:
        return torch.arange(n) % n_folds
    return group_folds(groups.tolist(), n_folds, seed)
