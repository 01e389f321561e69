"""From a data set and its teachers to a posterior over the student: the parts, put together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

from numpy.typing import ArrayLike
from torch import Tensor, nn

from mtbkd.data import Dataset, check_splits, joined
from mtbkd.distillation.checks import check_families, check_outputs
from mtbkd.distillation.choose import (
    choose_prior,
    choose_units,
    choose_weighting,
    read_weighting,
)
from mtbkd.distillation.claim import claim
from mtbkd.distillation.rounds import sample_in_rounds
from mtbkd.distillation.shares import left_for_sampling
from mtbkd.distillation.trials import Trials, within_budget
from mtbkd.files import check_hash, load_tensors, save_tensors
from mtbkd.inference.diagnostics import heat_warnings
from mtbkd.inference.engines import Plan, SamplerSettings
from mtbkd.inference.modes import MapSettings, progress_of, starting_modes
from mtbkd.inference.run import Target
from mtbkd.inference.samples import (
    MAKE_AGAIN,
    PosteriorSamples,
    load_samples,
    read_manifest,
    save_manifest,
)
from mtbkd.observation import OUTCOMES
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer, predict, thin
from mtbkd.prior.mixture import Prior
from mtbkd.prior.settings import PriorSettings
from mtbkd.student.devices import find_device
from mtbkd.student.student import Student, make_student
from mtbkd.training import behind, nobody, training_set
from mtbkd.types import Family, InputError, Report, outside, refuse, tensor_of
from mtbkd.weights.rules import Weighting

_TOO_HOT = 1.0  # how far a chain's temperature may be from the posterior's until its user is told


@dataclass(frozen=True)
class Posterior:
    """A Bayesian student.

    Attributes:
        student: The network.
        samples: Draws of its parameters.
        classes: Names of classes, labels or targets, in the order of its outputs.
        weighting: How its teachers were weighed.
        prior: The mixture prior it was trained under.
        modes: Where its chains started, standardised, shape (chain, parameter).
        plan: Which engine drew them, why, and its steps.
        statistics: Numbers on the chains, a list with one value for each.
        family: What it predicts.
        units: Units of the targets, for regression.
    """

    student: Student
    samples: PosteriorSamples
    classes: tuple[str, ...]
    weighting: Weighting
    prior: Prior
    modes: Tensor
    plan: Plan
    statistics: dict[str, list[float]]
    family: Family = "classification"
    units: Units | None = None

    def predict(
        self,
        inputs: ArrayLike | Tensor,
        *,
        level: float = 0.9,
        point: Literal["mean", "mode"] = "mean",
    ) -> Answer:
        """Average over the posterior; see `mtbkd.predictive.predict`.

        Inputs may be a frame, whose columns are in the order of those that were learned from.
        """
        return predict(
            self.student,
            self.samples,
            tensor_of(inputs, "inputs"),
            family=self.family,
            units=self.units,
            level=level,
            point=point,
        )

    def thin(self, n: int, inputs: ArrayLike | Tensor) -> Posterior:
        """The same with ``n`` draws that answer nearly as all do; see `mtbkd.predictive.thin`."""
        read = tensor_of(inputs, "inputs")
        few = thin(self.student, self.samples, read, n, family=self.family)
        return replace(self, samples=few)


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
        seed: The same seed gives the same bytes.
        device: ``auto``, ``cpu`` or ``cuda``.
        out: A folder to write to, and to go on from if it holds an unfinished run.
        report: Called with each stage's progress.

    Raises:
        InputError: If teachers and data do not fit, or the folder holds something else.
    """
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
        network, sampled=sampled, weight_scale=weight_scale, example=data.inputs[:2]
    ).to(where)
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
    begun = perf_counter()
    if budget is not None:
        trials, modes = within_budget(trials, prior, chains, budget)
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
    drawn, _ = sample_in_rounds(
        target, sampler, start, budget=budget, seed=seed, out=out, report=report
    )
    statistics = {name: value.tolist() for name, value in drawn.statistics.items()}
    hot = heat_warnings(statistics, _TOO_HOT)
    if hot:
        warnings.warn("\n".join(hot), stacklevel=2)
    if out is not None:
        save_tensors(out / "student.safetensors", student.fixed())
        details = {
            "prior": asdict(chosen),
            "plan": drawn.plan._asdict(),
            "statistics": statistics,
            "family": data.family,
        }
        beside = [f"{name}.safetensors" for name in ("student", "modes")] + ["weights.json"]
        beside += [] if units is None else ["units.safetensors"]
        save_manifest(out / "samples", drawn.samples, details, beside)
    return Posterior(
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
    )


def load_posterior(
    network: nn.Module,
    folder: Path,
    example: Tensor,
    classes: tuple[str, ...],
    *,
    weight_scale: float = 3.0,
    sampled: str | Sequence[str] = "*",
    device: str = "auto",
) -> Posterior:
    """Read back what `distill` wrote; the network is given by the caller, never by the folder.

    Args:
        network: As it was given to `distill`; its weights do not matter.
        folder: The ``out`` of `distill`.
        example: A batch of inputs.
        classes: Names.
        weight_scale: As given to `distill`.
        sampled: As given to `distill`.
        device: Where to predict.

    Raises:
        InputError: If the folder is incomplete, a file in it was changed, or it does not fit the
            network.
    """
    manifest = read_manifest(folder / "samples")
    samples = load_samples(folder / "samples")

    def read(name: str) -> dict[str, Tensor]:
        return load_tensors(folder / name, manifest["sha256"][name], then=MAKE_AGAIN)

    stored, start = read("student.safetensors"), read("modes.safetensors")["modes"]
    check_hash(folder / "weights.json", manifest["sha256"]["weights.json"], MAKE_AGAIN)
    weighting = read_weighting(folder / "weights.json")
    used = dict(manifest["prior"])
    prior = Prior(**used)
    plan, statistics, family = Plan(**manifest["plan"]), manifest["statistics"], manifest["family"]
    units = Units(**read("units.safetensors")) if OUTCOMES[family].numeric else None
    student = make_student(network, sampled=sampled, weight_scale=weight_scale, example=example)
    expected = {name: value.shape for name, value in student.fixed().items()}
    if samples.shapes != tuple(tuple(s) for s in student.shapes) or expected != {
        name: value.shape for name, value in stored.items()
    }:
        raise InputError(
            f"Expected the network that was trained in {folder}, but its shapes "
            "differ. Build it with the same sizes."
        )
    for name, value in student.fixed().items():
        value.copy_(stored[name])
    where = find_device(device, double=True)
    return Posterior(
        student=student.to(where),
        samples=samples,
        classes=classes,
        weighting=weighting,
        prior=prior,
        modes=start.to(where),
        plan=plan,
        statistics=statistics,
        family=family,
        units=units,
    )
