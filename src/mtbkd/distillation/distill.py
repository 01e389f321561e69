"""From a data set and its teachers to a posterior over the student: the parts, put together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from mtbkd.data import Dataset, check_splits, joined
from mtbkd.distillation.checks import check_families, check_outputs
from mtbkd.distillation.choose import (
    choose_prior,
    choose_units,
    choose_weighting,
)
from mtbkd.distillation.claim import claim
from mtbkd.distillation.fallback import choose_engine
from mtbkd.distillation.posterior import Posterior, finish
from mtbkd.distillation.rounds import sample_in_rounds
from mtbkd.distillation.shares import left_for_sampling
from mtbkd.distillation.stand_in import fewer_draws, stand_in
from mtbkd.distillation.temperature import find_temperature, outputs_of
from mtbkd.distillation.trials import Trials, within_budget
from mtbkd.inference.diagnostics import heat_warnings
from mtbkd.inference.engines import SamplerSettings, check_noisy
from mtbkd.inference.modes import MapSettings, progress_of, starting_modes
from mtbkd.inference.run import Target
from mtbkd.observation.base import cell_shape, value_shape
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.settings import PriorSettings
from mtbkd.student.augment import read_augment
from mtbkd.student.devices import find_device
from mtbkd.student.student import make_student
from mtbkd.training import behind, training_set
from mtbkd.types import Report, outside, refuse

_ROUNDS = 0.85  # of sampling's seconds: the rest compares engines on labels not learned from
_TOO_HOT = 1.0  # how far a chain's temperature may be from the posterior's until its user is told


def distill(
    network: nn.Module,
    data: Dataset,
    teachers: TeacherOutputs | None,
    *,
    calibration: Dataset | None = None,
    learn_calibration: bool = False,
    prior: PriorSettings = PriorSettings(),
    modes: MapSettings = MapSettings(),
    sampler: SamplerSettings = SamplerSettings(),
    chains: int = 8,
    budget: float | None = None,
    weight_scale: float = 3.0,
    sampled: str | Sequence[str] = "*",
    augment: str | None = None,
    seed: int = 0,
    device: str = "auto",
    out: Path | None = None,
    report: Report | None = None,
) -> Posterior:
    """Distil several teachers into one Bayesian student.

    Args:
        network: Maps inputs to logits, one for each class or label of the data; for regression to
            the mean of each target and then the log variance of each.
        data: What the student learns from; labels may be missing.
        teachers: Their outputs on the data and on the calibration set, matched by id; None for a
            plain Bayesian student that learns from labels alone.
        calibration: Labelled examples, for teacher weights and the prior's numbers.
        learn_calibration: Whether the student learns from them as well, once these are chosen.
            What they shall judge then needs answers from `mtbkd.distillation.cross_fit`.
        prior: What the teachers are worth.
        modes: How modes are found.
        sampler: How the posterior is explored from them.
        chains: How many, side by side.
        budget: Seconds. With it, the sampler's burn-in and thinning are those of a first round, and
            longer rounds follow until chains agree or these are over; see
            `mtbkd.distillation.rounds`.
        weight_scale: Multiplies the weight prior's standard deviation, ``1 / sqrt(fan_in)``.
        sampled: Name patterns of the parameters to sample; the rest stay as they are.
        augment: What is done to images at each step, by chance: ``flip``, ``crop`` or
            ``flip+crop``. Teachers have seen the image as it is, and so does the student when it
            answers. It then learns from the expectation of the log posterior's terms over what
            is shown, and each image still counts once.
        seed: The same seed gives the same bytes.
        device: ``auto``, ``cpu`` or ``cuda``.
        out: A folder to write to, and to go on from if it holds an unfinished run.
        report: Called with each stage's progress.

    Raises:
        InputError: If teachers and data do not fit, or the folder holds something else.
    """
    begun = perf_counter()
    refuse(
        *outside("chains", chains, 1e4, whole=True),
        *outside("weight_scale", weight_scale, 1e6),
        *outside("budget", 1.0 if budget is None else budget, 1e7),
    )
    splits = {"data": data} if calibration is None else {"data": data, "calibration": calibration}
    check_splits(**splits)
    alone = teachers is None
    if teachers is None:
        teachers = nobody(data if calibration is None else joined(data, calibration))
    check_families(data, teachers, calibration)
    where = find_device(device, double=True)
    student = make_student(
        network,
        sampled=sampled,
        weight_scale=weight_scale,
        example=data.inputs[:2],
        augment=read_augment(augment),
    ).to(where)
    if student.augment is not None:
        check_noisy(sampler)
    if out is not None:
        settings = (
            prior,
            modes,
            sampler,
            budget is None,
            chains,
            weight_scale,
            seed,
            where.type,
            alone,
            learn_calibration,
            augment,
        )
        claim(out, settings, student, teachers, splits)
    read = behind(student, data, out)
    held = None if calibration is None else behind(student, calibration, out)
    head = replace(student, frozen=None)
    known = None if alone else held
    units = choose_units(read, teachers, known, out)
    rule = "uniform" if alone else prior.weights
    weighting = choose_weighting(rule, read, teachers, known, out, units)
    training = training_set(head, read, teachers, weighting, out, units)
    check_outputs(head, training, data.classes)
    trials = Trials(
        student=head,
        training=training,
        modes=modes,
        calibration=held,
        units=units,
        seed=seed,
        out=out,
        report=report,
    )
    own = trials
    if budget is not None:
        trials, shares = within_budget(trials, stand_in(trials), prior, chains, budget)
        sampler, modes = fewer_draws(sampler, head, shares), replace(modes, epochs=shares.epochs)
        own = replace(own, modes=modes)
    chosen = choose_prior(prior, trials)
    if learn_calibration and held is not None:
        training = training_set(head, joined(read, held), teachers, weighting, out, units)
    start = starting_modes(
        head,
        training,
        chosen,
        modes,
        n_chains=chains,
        seed=seed,
        path=None if out is None else out / "modes.safetensors",
        progress=progress_of(report, "modes"),
    )
    target = Target(head, training, chosen)
    if budget is not None and out is not None:
        budget = left_for_sampling(budget, perf_counter() - begun, out)
    within = budget
    if budget is not None and training is not own.training and sampler.engine == "auto":
        within = _ROUNDS * budget
    drawn, rounds = sample_in_rounds(
        target, sampler, start, budget=within, seed=seed, out=out, report=report
    )
    drawn, choice = choose_engine(
        target, own, sampler, start, drawn, rounds, math.inf if budget is None else budget
    )
    statistics = {name: value.tolist() for name, value in drawn.statistics.items()}
    hot = heat_warnings(statistics, _TOO_HOT)
    if hot:
        warnings.warn("\n".join(hot), stacklevel=2)
    posterior = Posterior(
        student=student,
        samples=drawn.samples,
        classes=data.classes,
        weighting=weighting,
        prior=chosen,
        modes=start,
        plan=drawn.plan,
        statistics=statistics,
        family=data.family,
        units=units,
        choice=choice,
    )
    if held is not None and not learn_calibration:
        said = outputs_of(replace(posterior, student=head), held.inputs)
        temperature = find_temperature(said, held.labels, data.family)
        posterior = posterior.at_temperature(temperature)
    if out is not None:
        finish(posterior, out)
    return posterior


def nobody(data: Dataset) -> TeacherOutputs:
    """No teacher at all: one that says nothing about any example."""
    n_columns = len(data.classes)
    cells = (1, len(data), *cell_shape(data.outcome, n_columns))
    shape = (1, len(data), *value_shape(data.outcome, n_columns))
    return TeacherOutputs(
        names=("nobody",),
        values=torch.zeros(1).expand(shape),
        mask=torch.zeros(1, dtype=torch.bool).expand(cells),
        ids=data.ids,
        classes=data.classes,
        family=data.family,
    )
