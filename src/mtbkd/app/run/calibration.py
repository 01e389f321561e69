"""What calibration labels decide once the student is trained: its temperature, sets and flags."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Task
from mtbkd.app.run.stages import (
    BACKGROUND,
    as_it_ran,
    learned,
    learns_calibration,
    modes_of,
    sampling_seconds,
)
from mtbkd.distillation.choose import choose_prior
from mtbkd.distillation.cross_fit import FOLDS, calibration_folds, cross_fit, refitted
from mtbkd.distillation.posterior import Posterior
from mtbkd.distillation.shares import shortened, was_decided
from mtbkd.distillation.stand_in import stand_in
from mtbkd.distillation.temperature import outputs_of, tempered_by_others
from mtbkd.distillation.trials import Trials, within_budget
from mtbkd.explain.causes import Background, load_background, make_background, save_background
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer
from mtbkd.training import behind, training_set
from mtbkd.types import Report, quiet


def on_calibration(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    posterior: Posterior,
    out: Path,
    report: Report = quiet,
) -> tuple[Answer, float]:
    """Answers on the calibration examples of a student that did not learn from them.

    Each under a temperature that its own fold's labels did not find; the second that is returned is
    that of the student, which all of them find.
    """
    level, calibration = config.predict.level, task.calibration
    posterior = posterior.at_temperature(1.0)
    if not learns_calibration(config):
        fold = calibration_folds(len(calibration), task.together, config.seed)
        return tempered_by_others(
            outputs_of(posterior, calibration.inputs),
            calibration.labels,
            fold,
            posterior.family,
            lambda mine, temperature: posterior.at_temperature(temperature).predict(
                calibration.inputs[mine], level=level
            ),
        )
    head = replace(posterior.student, frozen=None)
    read = behind(posterior.student, learned(config, task), out)
    trials = Trials(
        student=head,
        training=training_set(head, read, teachers, posterior.weighting, units=posterior.units),
        modes=modes_of(config, len(task.train), out),
        calibration=behind(posterior.student, task.calibration, out),
        units=posterior.units,
        seed=config.seed,
        out=out,
        report=report,
    )
    train = behind(posterior.student, task.train, out)
    first = training_set(head, train, teachers, posterior.weighting, units=posterior.units)
    judged = replace(trials, training=first, modes=config.modes(len(task.train)))
    if config.budget is not None:
        seconds = sampling_seconds(config)
        judged, _ = within_budget(judged, stand_in(judged), config.prior, config.chains, seconds)
    length, folds = was_decided(out, "cross_fit", (1.0, FOLDS))
    return cross_fit(
        posterior,
        trials,
        shortened(as_it_ran(config, posterior), length),
        refitted(posterior, trials, train, teachers, partial(choose_prior, config.prior, judged)),
        level=level,
        groups=task.together,
        folds=folds,
    )


def calibrated(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    posterior: Posterior,
    out: Path,
    report: Report = quiet,
) -> tuple[Posterior, Background]:
    """The student at its temperature, and what new examples are compared with, made once."""
    path = out / BACKGROUND
    if not path.exists():
        sources = None if task.sources is None else task.sources.calibration
        answers, temperature = on_calibration(config, task, teachers, posterior, out, report)
        made = make_background(
            posterior.at_temperature(temperature),
            task.train,
            task.calibration,
            teachers,
            answers=answers,
            level=config.predict.level,
            seed=config.seed,
            groups=None if sources is None else np.unique(sources, return_inverse=True)[1],
        )
        save_background(path, made)
    found = load_background(path, config.predict.level)
    return posterior.at_temperature(float(found.temperature)), found
