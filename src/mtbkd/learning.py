"""What comes before the chains: the prior's numbers and modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.evidence import disagreement_evidence, power_of
from mtbkd.inference.batches import Prior, TrainingSet
from mtbkd.inference.run import MapSettings, find_modes
from mtbkd.observation import Observation
from mtbkd.samples import save_tensors
from mtbkd.settings import PriorSettings
from mtbkd.student import Student
from mtbkd.types import Report
from mtbkd.units import Units
from mtbkd.weighing import cached_features

_TRIAL_CHAINS = 2
_BATCH = 1024


def starting_modes(
    student: Student,
    training: TrainingSet,
    prior: Prior,
    settings: MapSettings,
    chains: int,
    seed: int,
    out: Path | None,
    name: str,
    report: Report | None = None,
) -> Tensor:
    """`find_modes`, kept in ``out`` under this name and read from there the next time."""
    path = None if out is None else out / f"{name}.safetensors"
    if path is not None and path.exists():
        return load_file(str(path))["modes"].to(training.labels.device)
    found = find_modes(
        student,
        training,
        prior,
        settings,
        n_chains=chains,
        seed=seed,
        progress=progress_of(report, name),
    )
    if path is not None:
        save_tensors(path, {"modes": found})
    return found


def mode_score(
    student: Student, modes: Tensor, inputs: Tensor, labels: Tensor, observation: Observation
) -> float:
    """Mean log score of labels under the mixture of the students at some modes, in nats.

    Args:
        student: Its frozen part is run.
        modes: Shape (chain, parameter).
        inputs: Shape (example, ...).
        labels: As the observation reads them.
        observation: Of the family.
    """
    forward = torch.vmap(student.logits, in_dims=(0, None))
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(labels), _BATCH):
            rows = slice(start, start + _BATCH)
            outputs = forward(modes, student.features(inputs[rows])).double()
            own = labels[rows].to(outputs.device)
            each = observation.log_likelihood(outputs, own.expand(len(modes), *own.shape))
            total += float((torch.logsumexp(each, 0) - math.log(len(modes))).sum())
    return total / len(labels)


def choose_prior(
    settings: PriorSettings,
    student: Student,
    training: TrainingSet,
    modes: MapSettings,
    calibration: Dataset | None,
    *,
    seed: int,
    out: Path | None,
    report: Report | None,
    units: Units | None = None,
) -> Prior:
    """The prior asked for, with what is ``auto`` chosen on the calibration labels."""
    options = settings.candidates()
    chosen = {name: values[0] for name, values in options.items()}
    speaking = not torch.isneginf(training.log_weights).all()
    if speaking and calibration is not None and calibration.n_labelled:
        chosen = _best(settings, student, training, modes, calibration, seed, out, report, units)
    prior = settings.prior(chosen)
    if settings.evidence is None:
        return prior
    evidence = settings.evidence
    if evidence == "disagreement":
        folder = None if out is None else out / "choices"
        found = starting_modes(student, training, prior, modes, 1, seed, folder, "evidence", report)
        evidence = disagreement_evidence(student, found[0], training)
    power = power_of(evidence, prior.concentration, len(training.labels))
    return replace(prior, strength=replace(prior.strength, power=power))


def _best(
    settings: PriorSettings,
    student: Student,
    training: TrainingSet,
    modes: MapSettings,
    calibration: Dataset,
    seed: int,
    out: Path | None,
    report: Report | None,
    units: Units | None,
) -> dict[str, float]:
    """What was left open, one number after the other, by the log score of modes."""
    options = settings.candidates()
    chosen = {name: values[0] for name, values in options.items()}
    known = calibration.known
    labels = calibration.labels[known]
    labels = labels if units is None else units.labels(labels)
    features = cached_features(student, calibration.inputs[known], out)
    head = replace(student, frozen=None)

    def score(name: str, value: float) -> float:
        prior = settings.prior(chosen | {name: value})
        numbers = (prior.concentration, prior.softening, prior.strength.power, prior.discount)
        found = starting_modes(
            student,
            training,
            prior,
            modes,
            _TRIAL_CHAINS,
            seed,
            None if out is None else out / "choices",
            "prior-" + "-".join(f"{number:g}" for number in numbers),
            report,
        )
        return mode_score(head, found, features, labels, training.observation)

    for name, values in options.items():
        if len(values) == 1:
            continue
        scores = {value: score(name, value) for value in values}
        chosen[name] = max(values, key=scores.__getitem__)
    return chosen


def progress_of(report: Report | None, stage: str) -> Callable[[int, int], None] | None:
    """The progress of one stage."""
    return None if report is None else lambda done, total: report(stage, done, total)
