"""The stages of a run, each of which reads and writes the run directory."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Labelling, Recipe, Task
from mtbkd.data import Dataset, check_splits
from mtbkd.distillation.distill import Posterior, distill, load_posterior
from mtbkd.explain.causes import Background, load_background, make_background, save_background
from mtbkd.files import read_json, save_json
from mtbkd.inference.modes import mode_score, progress_of, starting_modes
from mtbkd.inference.samples import PosteriorSamples, read_manifest
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.outputs.store import load_outputs, save_outputs
from mtbkd.prior.mixture import Prior
from mtbkd.student.student import Student, widened
from mtbkd.training import TrainingSet, behind, training_set
from mtbkd.types import Family, InputError, Report, quiet
from mtbkd.weights.rules import Weighting

BACKGROUND = "background.safetensors"
_WIDENINGS = (1.0, 4.0)
_TIMED, _ROWS = 128, 2**14
_MOST_GIGABYTES = 64


class Rival(NamedTuple):
    """A baseline: a student and its modes, as draws."""

    student: Student
    samples: PosteriorSamples


def check_scenario(recipe: Recipe, config: RunConfig) -> None:
    """Refuse a scenario that the recipe does not have.

    Raises:
        InputError: If there is none of this name.
    """
    if config.scenario is not None and config.scenario not in recipe.scenarios:
        known = f"one of {', '.join(recipe.scenarios)}" if recipe.scenarios else "none"
        raise InputError(
            f"Expected `scenario` of the recipe {recipe.name} to be {known}, but got "
            f"{config.scenario!r}. Correct it."
        )


def load(recipe: Recipe, config: RunConfig, out: Path, report: Report = quiet) -> Task:
    """The recipe's data, none of its splits empty."""
    check_scenario(recipe, config)
    task = recipe.load(config, out / "features", report)
    splits = {"train": task.train, "calibration": task.calibration, "test": task.test}
    check_splits(**{**task.others, **splits})
    check_size(config, task.train)
    return task


def check_size(config: RunConfig, train: Dataset) -> None:
    """Refuse draws that no memory holds.

    Raises:
        InputError: If they take more than 64 GB.
    """
    n_outputs = OUTCOMES[train.family].n_outputs * len(train.classes)
    widths = [train.inputs.shape[-1], *config.student.hidden, n_outputs]
    n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
    gigabytes = 4e-9 * n_parameters * config.chains * config.sampler.draws
    if gigabytes > _MOST_GIGABYTES:
        raise InputError(
            f"Expected draws of at most {_MOST_GIGABYTES} GB, but got {gigabytes:,.0f} GB: "
            f"{config.sampler.draws} draws of {config.chains} chains of {n_parameters:,} "
            "parameters. Lower `student.hidden`, `chains` or `sampler.draws`."
        )


def teach(
    recipe: Recipe,
    config: RunConfig,
    task: Task,
    out: Path,
    labelling: Labelling = Labelling(),
) -> tuple[TeacherOutputs, Costs]:
    """Train, read or ask the teachers, or take what the folder holds already."""
    folder, costs = out / "teachers", out / "teachers" / "costs.json"
    if not costs.exists():
        if recipe.teach is not None:
            outputs, spent = recipe.teach(config, task, labelling.report)
            save_outputs(folder, outputs)
        elif recipe.label is not None:
            spent = recipe.label(config, task, folder, labelling)
        else:
            raise ValueError(f"the recipe {recipe.name} has no teachers")
        save_json(costs, spent)
    return load_outputs(folder), read_json(costs)


def learn(
    recipe: Recipe,
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    out: Path,
    report: Report,
) -> Posterior:
    """Distil, going on from what the folder holds."""
    return distill(
        network(recipe, config, task.train.inputs, task.train.classes, task.train.family),
        task.train,
        teachers,
        calibration=task.calibration,
        prior=config.prior,
        modes=config.map,
        sampler=config.sampler,
        chains=config.chains,
        weight_scale=config.student.weight_scale,
        seed=config.seed,
        device=config.device,
        out=out,
        report=report,
    )


def network(
    recipe: Recipe, config: RunConfig, example: Tensor, classes: tuple[str, ...], family: Family
) -> nn.Module:
    """The recipe's student, with as many outputs as the family needs."""
    return recipe.network(config, example, OUTCOMES[family].n_outputs * len(classes))


def recall(
    recipe: Recipe, config: RunConfig, example: Tensor, classes: tuple[str, ...], out: Path
) -> Posterior:
    """The posterior of a finished run."""
    family = read_manifest(out / "samples")["family"]
    return load_posterior(
        network(recipe, config, example, classes, family),
        out,
        example,
        classes,
        weight_scale=config.student.weight_scale,
        device=config.device,
    )


def milliseconds(posterior: Posterior, inputs: Tensor) -> float:
    """What a prediction costs for one example, its frozen part included."""
    some = inputs[:_TIMED]
    start = perf_counter()
    posterior.predict(some)
    return 1000 * (perf_counter() - start) / len(some)


def on_features(task: Task, posterior: Posterior, out: Path) -> tuple[Task, Posterior]:
    """The same task and posterior behind the frozen part, which has run once for each example."""
    student = posterior.student
    if student.frozen is None:
        return task, posterior

    read = replace(
        task,
        train=behind(student, task.train, out),
        calibration=behind(student, task.calibration, out),
        test=behind(student, task.test, out),
        others={name: behind(student, other, out) for name, other in task.others.items()},
    )
    return read, replace(posterior, student=replace(student, frozen=None))


def background(
    config: RunConfig, task: Task, teachers: TeacherOutputs, posterior: Posterior, out: Path
) -> Background:
    """What new examples are compared with, made once for each run."""
    path = out / BACKGROUND
    if not path.exists():
        made = make_background(
            posterior,
            task.train,
            task.calibration,
            teachers,
            level=config.predict.level,
            seed=config.seed,
        )
        save_background(path, made)
    return load_background(path, config.predict.level)


def baselines(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    posterior: Posterior,
    out: Path,
    report: Report,
) -> dict[str, Rival]:
    """What a student is usually trained with.

    Every baseline has the student's network, steps and number of modes, whose predictions are
    averaged; what it learns from differs. Its weight prior is the student's or a wider one,
    whichever has the better log score on the calibration labels.
    """
    if not config.baselines:
        return {}
    prior, units = posterior.prior, posterior.units
    student, weighting = posterior.student, posterior.weighting
    full = training_set(student, task.train, teachers, weighting, units=units)
    raw = training_set(student, task.train, teachers, Weighting("entropy"), units=units)
    even = training_set(student, task.train, teachers, Weighting("uniform"), units=units)
    trials: dict[str, tuple[TrainingSet, Prior]] = {
        "labels only": (
            full.subset(task.train.known),
            replace(prior, power=0.0),
        ),
        "averaged KD": (pooled(even), prior),
        "entropy-weighted KD": (pooled(raw), prior),
    }
    known = task.calibration.known
    labels = task.calibration.labels[known]
    labels = labels if units is None else units.labels(labels)
    if not task.train.known.any():
        del trials["labels only"]
        warnings.warn(
            "The baseline `labels only` is left out, since no training example has a label.",
            stacklevel=2,
        )
    found: dict[str, Rival] = {}
    for name, (training, its_prior) in trials.items():
        best = -torch.inf
        for widening in _WIDENINGS:
            stage = f"{name.replace(' ', '-')}-{widening:g}"
            student = widened(posterior.student, widening)
            modes = starting_modes(
                student,
                training,
                its_prior,
                config.map,
                n_chains=config.chains,
                seed=config.seed,
                path=out / "baselines" / f"{stage}.safetensors",
                progress=progress_of(report, stage),
            )
            inputs = task.calibration.inputs[known]
            score = mode_score(student, modes, inputs, labels, training.observation)
            if score > best:
                best, found[name] = score, Rival(student, modes_as_samples(student, modes))
    return found


def modes_as_samples(student: Student, modes: Tensor) -> PosteriorSamples:
    """Modes as one draw of each chain, so that they are averaged as draws are."""
    shapes = tuple(tuple(shape) for shape in student.shapes)
    return PosteriorSamples((student.natural(modes)[:, None],), student.names, shapes)


def pooled(data: TrainingSet) -> TrainingSet:
    """The same examples with one teacher: the weighted mean of all, which knows every class."""
    outcome, values, weights = OUTCOMES[data.observation.family], [], []
    for start in range(0, len(data), _ROWS):
        said = data.said(slice(start, start + _ROWS))
        log_weights = said.log_weights
        silent = torch.isneginf(log_weights).all(0)
        complete = data.observation.complete(said, data.temperature)
        pool = outcome.pooled(log_weights, complete)
        values.append(pool[None])
        weights.append(torch.zeros_like(log_weights[:1]).masked_fill(silent, -torch.inf))
    return TrainingSet(
        features=data.features,
        labels=data.labels,
        values=torch.cat(values, 1),
        log_weights=torch.cat(weights, 1),
        observation=outcome.observe(values[0].shape[2]),
    )
