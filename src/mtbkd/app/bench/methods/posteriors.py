"""Posteriors: ours, and those that ours is made of, each through the stages of `mtbkd run`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from mtbkd.app.bench.answers import Answers, Fitted, of_rival
from mtbkd.app.bench.world import World
from mtbkd.app.run.baselines import modes_as_samples, pooled
from mtbkd.app.run.calibration import calibrated, on_calibration
from mtbkd.app.run.costs import metered, training_seconds
from mtbkd.app.run.few import keep_few
from mtbkd.app.run.others import of_examples
from mtbkd.app.run.scoring_shared import Rival, unit_of
from mtbkd.app.run.stages import learn, on_features
from mtbkd.data import joined
from mtbkd.distillation.posterior import Posterior
from mtbkd.observation.answers import rows_of
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer, NumberPredictive
from mtbkd.prior.settings import PAPER, PriorSettings
from mtbkd.types import Report

Taught = Callable[[World], tuple[TeacherOutputs, PriorSettings]]
"""Who teaches a posterior, and what that is worth."""


def everyone(world: World) -> tuple[TeacherOutputs, PriorSettings]:
    """All teachers, under the settings of the task: ours."""
    return world.teachers, world.config.prior


def paper(world: World) -> tuple[TeacherOutputs, PriorSettings]:
    """All teachers under the prior of MT-BKD (arXiv:2605.27967); the sampler stays ours."""
    return world.teachers, PAPER


def best_alone(world: World) -> tuple[TeacherOutputs, PriorSettings]:
    """BKD (PMLR 235:12935): the mixture prior of one teacher, the best on calibration labels."""
    return world.alone(world.best_teacher()), replace(world.config.prior, weights="uniform")


def pool_alone(world: World) -> tuple[TeacherOutputs, PriorSettings]:
    """The stacked pool as the one teacher: a posterior without a mixture.

    Its values are those that the ensemble on the pool learns from, labels included.
    """
    examples = joined(joined(world.read.train, world.read.calibration), world.read.test)
    known = joined(world.read.train, world.read.calibration)
    data = joined(known, world.read.test.without_labels(range(len(world.read.test))))
    values = pooled(world.lesson(data)).values
    if world.units is not None:
        values = torch.stack(
            [
                world.units.shift + world.units.scale * values[..., 0],
                values[..., 1] + 2 * world.units.scale.log(),
            ],
            -1,
        )
    heard = world.teachers.at(examples.ids).mask.any(0, keepdim=True)
    outputs = TeacherOutputs(
        names=("pool",),
        values=values,
        mask=heard,
        ids=examples.ids,
        classes=world.teachers.classes,
        held_out=world.teachers.held_out,
        family=world.teachers.family,
    )
    return outputs, replace(world.config.prior, weights="uniform")


def posterior_of(
    world: World, taught: Taught, folder: Path, report: Report
) -> tuple[World, Posterior, Answers]:
    """Train as `mtbkd run` does; the world in its units, and answers for calibration."""
    teachers, settings = taught(world)
    config = world.config.model_copy(update={"prior": settings})
    own = learn(world.recipe, config, world.task, teachers, folder, report)
    read, head = on_features(world.task, own, folder)
    head, _ = calibrated(config, read, teachers, head, folder, metered(folder, report))
    said, _ = on_calibration(config, read, teachers, head, folder, metered(folder, report))
    known = read.calibration.known.numpy().nonzero()[0]
    return replace(world, units=head.units), head, _answers(rows_of(said, known), head)


def _answers(said: Answer, posterior: Posterior) -> Answers:
    parts = of_examples(said, unit_of(posterior.units))
    if isinstance(said, NumberPredictive):
        predicted = said.mean[None], said.total[None] ** 0.5  # one Gaussian with these moments
    else:
        predicted = said.probs
    return Answers(predicted, parts["total"], parts["epistemic"])


def whole(taught: Taught) -> Callable[[World, Path, Report], Fitted]:
    """All draws answer."""

    def fit(world: World, folder: Path, report: Report) -> Fitted:
        own, posterior, held = posterior_of(world, taught, folder, report)
        found = of_rival(Rival(posterior.student, posterior.samples), own)
        spent = sum(training_seconds(folder).values())
        return replace(found, held=held, cpu_seconds=spent)

    return fit


def few(world: World, folder: Path, report: Report) -> Fitted:
    """Eight draws answer for all, chosen as `mtbkd run` chooses them."""
    own, posterior, held = posterior_of(world, everyone, folder, report)
    small = keep_few(posterior, world.read.train.inputs, folder)
    found = of_rival(Rival(small.student, small.samples), own)
    return replace(found, held=held, cpu_seconds=sum(training_seconds(folder).values()))


def modes(world: World, folder: Path, report: Report) -> Fitted:
    """The modes answer that the chains started from; what chains cost is not counted.

    The temperature is none: that of the chains was found for their draws.
    """
    own, posterior, held = posterior_of(world, everyone, folder, report)
    student = posterior.at_temperature(1.0).student
    found = of_rival(Rival(student, modes_as_samples(student, posterior.modes)), own)
    spent = training_seconds(folder)
    return replace(
        found,
        held=held,
        cpu_seconds=sum(s for n, s in spent.items() if "sampling" not in n and "fold" not in n),
    )
