"""What held-out labels decide: units, weights, and the prior's numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.distillation.evidence import disagreement_evidence, power_of
from mtbkd.files import save_json, save_tensors
from mtbkd.inference.modes import MapSettings, mode_score, progress_of, starting_modes
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.settings import Prior, PriorSettings, Rule
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet, cached_features, observation_of
from mtbkd.types import InputError, Report
from mtbkd.weights.rules import Stacked, Weighting
from mtbkd.weights.stacking import fit_stacked
from mtbkd.weights.units import Units, find_units

_TRIAL_CHAINS = 2


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
        found = starting_modes(
            student,
            training,
            prior,
            modes,
            n_chains=1,
            seed=seed,
            path=None if out is None else out / "choices" / "evidence.safetensors",
            progress=progress_of(report, "evidence"),
        )
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
        stage = "prior-" + "-".join(f"{number:g}" for number in numbers)
        found = starting_modes(
            student,
            training,
            prior,
            modes,
            n_chains=_TRIAL_CHAINS,
            seed=seed,
            path=None if out is None else out / "choices" / f"{stage}.safetensors",
            progress=progress_of(report, stage),
        )
        return mode_score(head, found, features, labels, training.observation)

    for name, values in options.items():
        if len(values) == 1:
            continue
        scores = {value: score(name, value) for value in values}
        chosen[name] = max(values, key=scores.__getitem__)
    return chosen


_FEWEST_LABELS = 20


def choose_units(
    data: Dataset, teachers: TeacherOutputs, calibration: Dataset | None, out: Path | None
) -> Units | None:
    """Units of real-valued targets, found or read back; None for the other families."""
    if data.family != "regression":
        return None
    path = None if out is None else out / "units.safetensors"
    if path is not None and path.exists():
        return Units(**load_file(str(path)))
    held, labels = _labelled(data, teachers, calibration)
    outputs = held if len(labels) else teachers
    labels = labels if len(labels) else torch.full_like(outputs.values[0, ..., 0], torch.nan)
    found = find_units(teachers.names, outputs.values, outputs.mask, labels, data.classes)
    if path is not None:
        save_tensors(path, asdict(found))
    return found


def choose_weighting(
    rule: Rule,
    data: Dataset,
    teachers: TeacherOutputs,
    calibration: Dataset | None,
    out: Path | None,
    units: Units | None = None,
) -> Weighting:
    """Choose and fit the rule, or read the fit back."""
    path = None if out is None else out / "weights.json"
    if path is not None and path.exists():
        return read_weighting(path)
    held, labels = _labelled(data, teachers, calibration)
    if rule == "stacked" and not teachers.held_out:
        raise InputError(
            "Expected labels that no teacher was trained on for prior.weights=stacked, but "
            "the teachers were trained on these examples. Use "
            "prior.weights=entropy, or give outputs on held-out examples."
        )
    if rule == "stacked" and len(labels) < _FEWEST_LABELS:
        raise InputError(
            f"Expected {_FEWEST_LABELS} held-out labels or more for "
            f"prior.weights=stacked, but got {len(labels)}. Use "
            "prior.weights=entropy, or label more examples."
        )
    if rule == "auto":
        enough = teachers.held_out and len(labels) >= _FEWEST_LABELS
        rule = "stacked" if enough else "entropy"
    weighting = Weighting(rule)
    if rule == "stacked":
        observation, spaces = observation_of(teachers)
        values = held.values if units is None else units.values(held.values)
        labels = labels if units is None else units.labels(labels)
        weighting = Weighting(
            rule,
            fit_stacked(
                values, held.mask, labels, kept=held.kept, observation=observation, spaces=spaces
            ),
        )
    if path is not None:
        stored: dict[str, Any] = {"rule": weighting.rule, "teachers": teachers.names}
        if weighting.stacked is not None:
            for name, value in asdict(weighting.stacked).items():
                if value is not None:
                    stored[name] = value.tolist() if isinstance(value, Tensor) else value
        save_json(path, stored)
    return weighting


def _labelled(
    data: Dataset, teachers: TeacherOutputs, calibration: Dataset | None
) -> tuple[TeacherOutputs, Tensor]:
    """What the teachers say on all labelled examples, and their labels."""
    parts = [d for d in (data, calibration) if d is not None]
    known = [d.known.nonzero()[:, 0] for d in parts]
    ids = [d.ids[i] for d, rows in zip(parts, known, strict=True) for i in rows.tolist()]
    labels = torch.cat([d.labels[rows] for d, rows in zip(parts, known, strict=True)])
    return teachers.at(ids), labels


def read_weighting(path: Path) -> Weighting:
    """Read back what `choose_weighting` wrote."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["rule"] != "stacked":
        return Weighting(stored["rule"])
    fit = Stacked(
        torch.tensor(stored["intercept"]),
        torch.tensor(stored["slope"]),
        torch.tensor(stored["temperature"]),
        stored["scale"],
        torch.tensor(stored["nobody"]) if "nobody" in stored else None,
        torch.tensor(stored["gate"]) if "gate" in stored else None,
    )
    return Weighting("stacked", fit)
