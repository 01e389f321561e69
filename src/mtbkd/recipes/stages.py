"""The stages of a run, each of which reads and writes the run directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from mtbkd.config import RunConfig
from mtbkd.data import check_splits
from mtbkd.distill import Posterior, distill, load_posterior
from mtbkd.inference.batches import Prior, TrainingSet
from mtbkd.learning import (
    Report,
    cached_features,
    mode_probs,
    starting_modes,
    training_set,
)
from mtbkd.outputs import TeacherOutputs
from mtbkd.posterior import Strength
from mtbkd.recipes.base import Recipe, Task
from mtbkd.recipes.folder import read_json
from mtbkd.samples import save_json
from mtbkd.store import load_outputs, save_outputs
from mtbkd.student import widened
from mtbkd.types import InputError
from mtbkd.weights import entropy_weights, pool_log_probs, uniform_weights

_WIDENINGS = (1.0, 4.0)
_TIMED = 128

Costs = dict[str, dict[str, float]]


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


def load(recipe: Recipe, config: RunConfig, out: Path) -> Task:
    """The recipe's data, none of its splits empty."""
    check_scenario(recipe, config)
    task = recipe.load(config, out / "features")
    check_splits(train=task.train, calibration=task.calibration, test=task.test)
    return task


def teach(recipe: Recipe, config: RunConfig, task: Task, out: Path) -> tuple[TeacherOutputs, Costs]:
    """Train or read the teachers, or take what the folder holds already."""
    folder, costs = out / "teachers", out / "teachers" / "costs.json"
    if not costs.exists():
        outputs, spent = recipe.teach(config, task)
        save_outputs(folder, outputs)
        save_json(costs, spent)
    return load_outputs(folder), read_json(costs)


def learn(
    recipe: Recipe,
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    out: Path,
    report: Report | None,
) -> Posterior:
    """Distil, going on from what the folder holds."""
    return distill(
        recipe.network(config, task.train.inputs, len(task.train.classes)),
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


def recall(
    recipe: Recipe, config: RunConfig, example: Tensor, classes: tuple[str, ...], out: Path
) -> Posterior:
    """The posterior of a finished run."""
    return load_posterior(
        recipe.network(config, example, len(classes)),
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
    train, calibration, test = (
        replace(split, inputs=cached_features(student, split.inputs, out).cpu())
        for split in (task.train, task.calibration, task.test)
    )
    behind = replace(task, train=train, calibration=calibration, test=test)
    return behind, replace(posterior, student=replace(student, frozen=None))


def baselines(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    posterior: Posterior,
    out: Path,
    report: Report | None,
) -> dict[str, Tensor]:
    """Predictions on the test set of what a student is usually trained with.

    Every baseline has the student's network, steps and number of modes, whose predictions are
    averaged; what it learns from differs. Its weight prior is the student's or a wider one,
    whichever has the better log score on the calibration labels.

    Returns:
        Probabilities of each baseline, shape (example, class).
    """
    if not config.baselines:
        return {}
    prior = posterior.prior
    full = training_set(posterior.student, task.train, teachers, posterior.weighting)
    raw = teachers.at(task.train.ids)
    log_probs, mask = raw.values.to(full.labels.device), raw.mask.to(full.labels.device)
    known = full.labels >= 0
    labels_only = TrainingSet(
        full.features[known],
        full.labels[known],
        full.log_probs[:, known],
        full.log_weights[:, known],
    )
    trials: dict[str, tuple[TrainingSet, Prior]] = {
        "labels only": (labels_only, replace(prior, strength=Strength(power=0.0))),
        "averaged KD": (_pooled(full, log_probs, uniform_weights(mask)), prior),
        "entropy-weighted KD": (_pooled(full, log_probs, entropy_weights(log_probs, mask)), prior),
    }
    probs = {}
    for name, (training, its_prior) in trials.items():
        best = -torch.inf
        for widening in _WIDENINGS:
            student = widened(posterior.student, widening)
            found = starting_modes(
                student,
                training,
                its_prior,
                config.map,
                config.chains,
                config.seed,
                out / "baselines",
                f"{name.replace(' ', '-')}-{widening:g}",
                report,
            )
            held = mode_probs(student, found, task.calibration.inputs)
            picked = held.gather(1, task.calibration.labels.clamp_min(0)[:, None])[:, 0]
            score = float(picked[task.calibration.labels >= 0].log().mean())
            if score > best:
                best, probs[name] = score, mode_probs(student, found, task.test.inputs)
    return probs


def _pooled(full: TrainingSet, log_probs: Tensor, log_weights: Tensor) -> TrainingSet:
    """The same examples with one teacher: the weighted mean of all."""
    pool = pool_log_probs(log_weights, log_probs)[None]
    silent = torch.isneginf(log_weights).all(0)
    only = torch.zeros_like(log_weights[:1]).masked_fill(silent, -torch.inf)
    return TrainingSet(full.features, full.labels, pool.nan_to_num(neginf=-16.0), only)
