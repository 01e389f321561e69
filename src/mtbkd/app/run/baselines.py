"""Baselines: what a student is usually trained with, and what a Bayesian one has to beat."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Task
from mtbkd.app.run.costs import metered
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.app.run.scoring_shared import Rival
from mtbkd.app.run.stages import learned, modes_of
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.distillation.shares import was_decided
from mtbkd.inference.modes import MapSettings, mode_scores, progress_of, starting_modes
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import OUTCOMES
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.mixture import Prior
from mtbkd.student.student import Student, widened
from mtbkd.training import TrainingSet, training_set
from mtbkd.types import Report
from mtbkd.weights.rules import Weighting

_WIDENINGS = (1.0, 4.0)
_HOTTEST = 10.0  # a temperature is between this and its reciprocal
_ROWS = 2**14
_DEAR_MODES = 2
TRAININGS: dict[Literal["all", "fast", "none"], int] = {"all": 12, "fast": 3, "none": 0}
"""Times that modes are found for baselines: each under two weight priors, and on all."""


def rival_name(weighting: Weighting) -> str:
    """The baseline that knows all that the student knows, and samples nothing."""
    return f"ensemble on the {weighting.rule} pool"


def stages_of(name: str) -> Iterator[str]:
    """The stages in which a baseline is trained, one for each weight prior and one on all."""
    return (f"{name.replace(' ', '-')}-{kind}" for kind in (*map("{:g}".format, _WIDENINGS), "all"))


def baselines(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    posterior: Posterior,
    out: Path,
    report: Report | None,
) -> dict[str, Rival]:
    """What a student is usually trained with, and `rival_name`, by name.

    Every baseline has the student's network, number of updates and number of modes, whose
    predictions are averaged. With a budget, and a network whose chains go one by one, they have
    two. Where they are to be fast, or a budget leaves no time for all, the rival is alone.
    What it learns from differs. Its weight prior is the student's or a wider one, whichever has the
    better log score on the calibration labels. The ensemble on the pool learns from the teachers
    under the student's own weights, and has a temperature. Where the student learns from the
    calibration examples in the end, so does every baseline; where no other example has a label, the
    one on labels only has the student's weight prior.
    """
    which = was_decided(out, "baselines", config.baselines)
    if which == "none":
        return {}
    posterior = posterior.at_temperature(1.0)
    prior, units, told = posterior.prior, posterior.units, metered(out, report)
    names = [rival_name(posterior.weighting)] if which == "fast" else None
    trials = lessons(task.train, teachers, posterior, names)
    again = lessons(learned(config, task), teachers, posterior, names)
    if names is None and not len(again["labels only"]):
        del trials["labels only"]
        warnings.warn(
            "The baseline `labels only` is left out, since no training example has a label.",
            stacklevel=2,
        )
    known = task.calibration.known
    held = task.calibration.subset(known.nonzero()[:, 0])
    labels = held.labels if units is None else units.labels(held.labels)
    found: dict[str, Rival] = {}
    for name, training in trials.items():
        its_prior = replace(prior, power=0.0) if name == "labels only" else prior
        *single, last = stages_of(name)
        if not len(training):
            n = len(learned(config, task))
            own = posterior.student
            modes = trained(config, own, again[name], its_prior, n, out, last, told)
            samples = modes_as_samples(own, modes)
            found[name] = Rival(own, samples, held=samples)
            continue
        best = -math.inf
        for widening, stage in zip(_WIDENINGS, single, strict=True):
            student = widened(posterior.student, widening)
            modes = trained(config, student, training, its_prior, len(task.train), out, stage, told)
            scores = mode_scores(student, modes, held.inputs, labels, training.observation)
            score = float(scores.mean())
            if score > best:
                samples = modes_as_samples(student, modes)
                best, found[name] = score, Rival(student, samples, held=samples)
        if name == rival_name(posterior.weighting):
            temperature = best_temperature(found[name], held, units)
            found[name] = found[name]._replace(temperature=temperature)
        if len(again[name]) > len(training):
            student = found[name].student
            training, n = again[name], len(learned(config, task))
            modes = trained(config, student, training, its_prior, n, out, last, told)
            found[name] = found[name]._replace(samples=modes_as_samples(student, modes))
    return found


def trained(
    config: RunConfig,
    student: Student,
    training: TrainingSet,
    prior: Prior,
    n_all: int,
    out: Path,
    stage: str,
    told: Report,
) -> Tensor:
    """Modes of a baseline, with as many updates as the student's on ``n_all`` examples."""
    return starting_modes(
        student,
        training,
        prior,
        same_updates(modes_of(config, n_all, out), len(training), n_all),
        n_chains=n_modes(config, student),
        seed=config.seed,
        path=out / "baselines" / f"{stage}.safetensors",
        progress=progress_of(told, stage),
    )


def n_modes(config: RunConfig, student: Student) -> int:
    """As many as the student has chains; with a budget fewer of a network whose steps are dear."""
    dear = config.budget is not None and student.passage.in_turn
    return min(_DEAR_MODES, config.chains) if dear else config.chains


def lessons(
    data: Dataset,
    teachers: TeacherOutputs,
    posterior: Posterior,
    names: Collection[str] | None = None,
) -> dict[str, TrainingSet]:
    """What each baseline learns from, by name; of those named alone, if any are."""
    student, units, own = posterior.student, posterior.units, posterior.weighting

    def weighed(weighting: Weighting) -> TrainingSet:
        return training_set(student, data, teachers, weighting, units=units)

    every = {
        "labels only": lambda: weighed(own).subset(data.known),
        "averaged KD": lambda: pooled(weighed(Weighting("uniform"))),
        "entropy-weighted KD": lambda: pooled(weighed(Weighting("entropy"))),
        rival_name(own): lambda: pooled(weighed(own)),
    }
    return {name: lesson() for name, lesson in every.items() if names is None or name in names}


def same_updates(settings: MapSettings, n: int, n_all: int) -> MapSettings:
    """As many updates on a part of the examples as the settings make on all: more epochs.

    Args:
        settings: For all examples.
        n: How many the part has.
        n_all: How many there are.

    Example:
        >>> same_updates(MapSettings(epochs=10, batch_size=50), 60, 500).epochs
        50
    """
    steps, own = (math.ceil(count / settings.batch_size) for count in (n_all, n))
    return replace(settings, epochs=math.ceil(settings.epochs * steps / own))


def best_temperature(rival: Rival, held: Dataset, units: Units | None) -> float:
    """The temperature of the mean prediction with the best log score on held-out labels.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599) after the average over modes, as Rahaman
    and Thiery (2021, arXiv:2007.08792) find best: a probability becomes its power, and the variance
    of a number is multiplied. The log temperature has a standard normal prior, so that a few
    labels, all of them answered rightly, do not make it as small as it can be.

    Args:
        rival: Whose predictions are tempered; its own temperature does not count.
        held: Labelled examples that it was not trained on.
        units: For regression only.

    Returns:
        Between 0.1 and 10.
    """
    scoring, labels = SCORINGS[held.family], held.labels.numpy()

    def loss(log_temperature: float) -> float:
        warm = rival._replace(temperature=math.exp(log_temperature))
        losses = scoring.losses(scoring.predicted(warm, held.inputs, units), labels)
        return float(np.nansum(losses)) + 0.5 * log_temperature**2

    most = math.log(_HOTTEST)
    found = minimize_scalar(loss, bounds=(-most, most), method="bounded", options={"xatol": 1e-3})
    return math.exp(found.x)


def modes_as_samples(student: Student, modes: torch.Tensor) -> PosteriorSamples:
    """Modes as one draw of each chain, so that they are averaged as draws are."""
    shapes = tuple(tuple(shape) for shape in student.shapes)
    return PosteriorSamples((student.natural(modes)[:, None],), student.names, shapes)


def pooled(data: TrainingSet) -> TrainingSet:
    """The same examples with one teacher: the weighted mean of all, which knows every class.

    As far as nobody is trusted, classes are equally probable to it.
    """
    outcome, values, weights = OUTCOMES[data.observation.family], [], []
    for start in range(0, len(data), _ROWS):
        said = data.said(slice(start, start + _ROWS))
        log_weights, complete = said.log_weights, data.observation.complete(said, data.temperature)
        silent = torch.isneginf(log_weights).all(0)
        weights.append(torch.zeros_like(log_weights[:1]).masked_fill(silent, -torch.inf))
        if said.nobody is not None:
            flat = outcome.unsaid(complete.shape[2]).to(complete).expand(complete[:1].shape)
            complete = torch.cat([complete, flat])
            log_weights = torch.cat([log_weights, said.nobody[None]])
        values.append(outcome.pooled(log_weights, complete)[None])
    return TrainingSet(
        features=data.features,
        labels=data.labels,
        values=torch.cat(values, 1),
        log_weights=torch.cat(weights, 1),
        observation=outcome.observe(values[0].shape[2]),
        augment=data.augment,
    )
