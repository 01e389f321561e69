"""The stages of a run, each of which reads and writes the run directory."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.config.student import GIVEN
from mtbkd.app.recipes.base import Costs, Labelling, Recipe, Task
from mtbkd.app.run.costs import metered
from mtbkd.data import Dataset, check_splits, joined
from mtbkd.distillation.distill import distill
from mtbkd.distillation.posterior import Posterior, load_posterior
from mtbkd.distillation.shares import within_share
from mtbkd.explain.causes import load_background
from mtbkd.files import read_json, save_json
from mtbkd.inference.engines import METHODS
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.samples import read_manifest
from mtbkd.inference.settings import SamplerSettings
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.outputs.store import load_outputs, save_outputs
from mtbkd.student.augment import read_augment
from mtbkd.student.factory import network_from
from mtbkd.training import behind
from mtbkd.types import Family, InputError, Report, quiet

BACKGROUND = "background.safetensors"
_TIMED = 128
_MOST_GIGABYTES = 64
_SAMPLING = 0.45  # of the budget: the rest is for choices, modes, cross-fitting and baselines
_LEAST = 0.25  # of the budget, that sampling's is taken of in any case


def check_scenario(recipe: Recipe, config: RunConfig) -> None:
    """Refuse a scenario, or a kind of student, that the recipe does not have.

    Raises:
        InputError: If there is none of this name.
    """
    if config.student.kind not in ("auto", *recipe.students):
        raise InputError(
            f"Expected `student.kind` of the recipe {recipe.name} to be auto or "
            f"{' or '.join(recipe.students)}, but got {config.student.kind!r}. Correct it."
        )
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
    if config.student.network is None or config.code is not None:
        check_size(recipe, config, task.train)
    return task


def check_size(recipe: Recipe, config: RunConfig, train: Dataset) -> None:
    """Refuse draws that no memory holds.

    Raises:
        InputError: If they take more than 64 GB.
    """
    n_outputs = OUTCOMES[train.family].n_outputs * len(train.classes)
    if config.student.network is None and train.inputs.dim() == 2:
        widths = [train.inputs.shape[-1], *config.student.hidden, n_outputs]
        n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
    else:
        student = network(recipe, config, train.inputs[:2], train.classes, train.family)
        chosen = config.student.sampled or ["*"]
        n_parameters = sum(
            parameter.numel()
            for name, parameter in student.named_parameters()
            if any(fnmatchcase(name, pattern) for pattern in chosen)
        )
    gigabytes = 4e-9 * n_parameters * config.chains * config.sampler.draws
    if gigabytes > _MOST_GIGABYTES:
        raise InputError(
            f"Expected draws of at most {_MOST_GIGABYTES} GB, but got {gigabytes:,.0f} GB: "
            f"{config.sampler.draws} draws of {config.chains} chains of {n_parameters:,} "
            "parameters. Make the network smaller, or lower `chains` or `sampler.draws`."
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
    extra: float = 0.0,
    before: float = 0.0,
) -> Posterior:
    """Distil, going on from what the folder holds.

    With a budget, chains have ``extra`` seconds more, and less for each second spent ``before``.
    """
    return distill(
        network(recipe, config, task.train.inputs, task.train.classes, task.train.family),
        task.train,
        teachers,
        calibration=task.calibration,
        learn_calibration=learns_calibration(config),
        prior=config.prior,
        modes=config.modes(len(task.train)),
        sampler=config.sampler,
        chains=config.chains,
        budget=None if config.budget is None else sampling_seconds(config, before) + extra,
        weight_scale=config.student.weight_scale,
        sampled=config.student.sampled or "*",
        augment=config.student.augment,
        seed=config.seed,
        device=config.device,
        out=out,
        report=metered(out, report),
    )


def sampling_seconds(config: RunConfig, before: float = 0.0) -> float:
    """What a budget leaves for sampling, after some seconds of it."""
    return _SAMPLING * max(config.seconds - before, _LEAST * config.seconds)


def modes_of(config: RunConfig, n_examples: int, out: Path) -> MapSettings:
    """How modes are found among so many examples, once the student is trained."""
    return within_share(config.modes(n_examples), out)


def as_it_ran(config: RunConfig, posterior: Posterior) -> SamplerSettings:
    """The sampler's settings; of a run with a budget, those of its last round."""
    if config.budget is None:
        return config.sampler
    plan = posterior.plan
    if METHODS[plan.engine].independent:
        return replace(config.sampler, engine=plan.engine)  # type: ignore[arg-type]
    return replace(
        config.sampler,
        engine=plan.engine,  # type: ignore[arg-type]
        burn_in=plan.burn_in,
        draws=plan.draws,
        thinning=plan.thinning,
        batch_size=plan.batch_size,
    )


def learns_calibration(config: RunConfig) -> bool:
    """Whether the student learns from the calibration examples too, once they have chosen."""
    asked = config.own is not None and config.own.split is not None
    return config.calibration == "learn" or (config.calibration == "auto" and not asked)


def learned(config: RunConfig, task: Task) -> Dataset:
    """All that the student learned from."""
    both = learns_calibration(config)
    return joined(task.train, task.calibration) if both else task.train


def network(
    recipe: Recipe, config: RunConfig, example: Tensor, classes: tuple[str, ...], family: Family
) -> nn.Module:
    """The recipe's student, or the user's own, with as many outputs as the family needs.

    Raises:
        InputError: If code would have to be run that only a run directory names.
    """
    n_outputs = OUTCOMES[family].n_outputs * len(classes)
    named = config.student.network
    if named in (None, GIVEN):
        return recipe.network(config, example, n_outputs)
    if config.code is None:
        raise InputError(
            f"Expected leave to run {named!r}, the network that this run was made with, as code "
            f"named by a run directory is never run. Check that file and add --network {named}, in "
            "the folder where it is."
        )
    return network_from(named, config.code, example, n_outputs)


def recall(
    recipe: Recipe, config: RunConfig, example: Tensor, classes: tuple[str, ...], out: Path
) -> Posterior:
    """The posterior of a finished run, at its temperature if that is found already."""
    family = read_manifest(out / "samples")["family"]
    found = load_posterior(
        network(recipe, config, example, classes, family),
        out,
        example,
        classes,
        weight_scale=config.student.weight_scale,
        sampled=config.student.sampled or "*",
        device=config.device,
    )
    augment = read_augment(config.student.augment)
    found = replace(found, student=replace(found.student, augment=augment))
    if not (out / BACKGROUND).exists():
        return found
    known = load_background(out / BACKGROUND, config.predict.level)
    return found.at_temperature(float(known.temperature))


def milliseconds(posterior: Posterior, inputs: Tensor, most: int = _TIMED) -> float:
    """What a prediction costs for one of so many examples, its frozen part included."""
    some = inputs[:most]
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
