"""What held-out labels decide: units, weights, and the prior's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.distillation.evidence import disagreement_evidence, power_of
from mtbkd.distillation.trials import Judged, Trials
from mtbkd.files import load_tensors, read_sealed, save_sealed, save_tensors
from mtbkd.observation.units import Units, find_units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.settings import Prior, PriorSettings, Rule
from mtbkd.training import TrainingSet
from mtbkd.types import InputError
from mtbkd.weights.directions import Directions, find_directions
from mtbkd.weights.rules import Stacked, Weighting
from mtbkd.weights.stacking import fit_stacked

_FEWEST_LABELS = 20


def choose_prior(settings: PriorSettings, trials: Trials, kept: Tensor | None = None) -> Prior:
    """The prior asked for, with what is ``auto`` chosen on the calibration labels.

    The first candidates stay where these cannot judge a teacher: there are none, or none of them
    is of a class that it knows.

    Args:
        settings: What is asked for.
        trials: Where candidates are judged; what a folder holds of it is read back.
        kept: Mask of the calibration examples whose labels judge, shape (calibration example,);
            all of them if not given.
    """
    training, calibration = trials.training, trials.calibration
    chosen = {name: values[0] for name, values in settings.candidates().items()}
    speaking = not torch.isneginf(training.log_weights).all()
    if speaking and calibration is not None:
        kept = torch.ones(len(calibration), dtype=torch.bool) if kept is None else kept
        if _judged(training, calibration.subset(kept.nonzero()[:, 0])):
            chosen = _best(settings, trials, kept[calibration.known.cpu()])
    prior = settings.prior(chosen)
    if settings.evidence is None:
        return prior
    evidence = settings.evidence
    if evidence == "disagreement":
        mode = trials.find(prior, 1, "evidence")[0]
        evidence = disagreement_evidence(trials.student, mode, training)
    power = power_of(evidence, prior.concentration, len(training.labels))
    return replace(prior, power=power)


def _judged(training: TrainingSet, calibration: Dataset) -> bool:
    """Whether there are labels, and some in the classes of each teacher that knows a part."""
    labels, spaces = calibration.labels[calibration.known], training.observation.spaces
    if spaces is None:
        return len(labels) > 0
    shown = (spaces.blocks >= 0).cpu()[:, labels.cpu().unique()]
    return bool(shown.any(1).all())


def _best(settings: PriorSettings, trials: Trials, kept: Tensor) -> dict[str, float]:
    """What was left open, one number after the other, by the log score of these labels."""
    options = settings.candidates()
    chosen = {name: values[0] for name, values in options.items()}

    def judge(name: str, value: float) -> Judged:
        prior = settings.prior(chosen | {name: value})
        numbers = (prior.concentration, prior.softening, prior.power, prior.discount)
        judged = trials.judge(prior, "prior-" + "-".join(f"{number:g}" for number in numbers))
        return replace(judged, scores=judged.scores[kept.to(judged.scores.device)])

    for name, values in options.items():
        if len(values) > 1:
            judged = {value: judge(name, value) for value in values}
            chosen[name] = preferred(judged, trials.affordable)
    return chosen


def preferred(judged: Mapping[float, Judged], affordable: float) -> float:
    """The best of those that chains can explore in time, unless that costs more than chance.

    A value whose short chains run hot is out if others do not: its draws have not arrived, so their
    score is none of that prior. Of the others one counts as good if its mean log score is within
    one standard error of the best one's, of the difference label by label (Breiman et al. 1984,
    section 3.4.3). Of good values the best wins that takes no more steps than there is time for; if
    none does, the one that takes the fewest.

    Example:
        >>> scores = torch.tensor([-1.0, -1.2])
        >>> found = {1.0: Judged(scores, 500), 9.0: Judged(scores + torch.tensor([-0.1, 0.2]), 900)}
        >>> preferred(found, affordable=1000), preferred(found, affordable=600)
        (9.0, 1.0)
    """
    arrived = {value: each for value, each in judged.items() if math.isfinite(each.steps)}
    judged = arrived or judged
    best = max(judged.values(), key=lambda each: float(each.scores.mean()))

    def behind(each: Judged) -> bool:
        lost = best.scores - each.scores
        return float(lost.mean()) > float(lost.std(correction=0)) / math.sqrt(len(lost))

    good = {value: each for value, each in judged.items() if not behind(each)}
    in_time = [value for value, each in good.items() if each.steps <= affordable]
    if in_time:
        return max(in_time, key=lambda value: float(good[value].scores.mean()))
    return min(good, key=lambda value: good[value].steps)


def choose_units(
    data: Dataset, teachers: TeacherOutputs, calibration: Dataset | None, out: Path | None
) -> Units | None:
    """Units of real-valued targets, found or read back; None for the other families."""
    if not data.outcome.numeric:
        return None
    path = None if out is None else out / "units.safetensors"
    if path is not None and path.exists():
        return Units(**load_tensors(path))
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
    """Choose and fit the rule, or read the fit back.

    Args:
        rule: The one that is asked for.
        data: The training examples as the student's head reads them; the directions of trust by
            input are found on all of them.
        teachers: What they say on all examples.
        calibration: Further labelled examples, as the head reads them, if there are any.
        out: A folder to write to, and to go on from.
        units: Units of real-valued targets.

    Raises:
        InputError: If stacked weights are asked for without labels that no teacher was trained on.
    """
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
    weighting = Weighting(rule, groups=teachers.groups)
    if rule == "stacked":
        values = held.values if units is None else units.values(held.values)
        labels = labels if units is None else units.labels(labels)
        splits = [split for split in (data, calibration) if split is not None]
        fit = fit_stacked(
            values,
            held.mask,
            labels,
            kept=held.kept,
            observation=held.observation,
            features=torch.cat([split.inputs[split.known] for split in splits]),
            directions=find_directions(data.inputs),
            groups=teachers.groups,
        )
        weighting = replace(weighting, stacked=fit)
    if path is not None:
        save_weighting(path, weighting, teachers.names)
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


def save_weighting(path: Path, weighting: Weighting, teachers: Sequence[str]) -> None:
    """Write it for `read_weighting`, with the names of the teachers that it weighs."""
    stored: dict[str, Any] = {"rule": weighting.rule, "teachers": tuple(teachers)}
    if weighting.groups is not None:
        stored["groups"] = weighting.groups.tolist()
    if weighting.stacked is not None:
        stored["fit"] = _as_lists(asdict(weighting.stacked))
    save_sealed(path, stored)


def read_weighting(path: Path) -> Weighting:
    """Read back what `choose_weighting` wrote.

    Raises:
        InputError: If it is missing or was changed.
    """
    stored = read_sealed(path)
    groups = torch.tensor(stored["groups"]) if "groups" in stored else None
    if stored["rule"] != "stacked":
        return Weighting(stored["rule"], groups=groups)
    fit = _as_tensors(stored["fit"])
    if fit["directions"] is not None:
        fit["directions"] = Directions(**fit["directions"])
    return Weighting("stacked", Stacked(**fit), groups)


def _as_lists(values: Any) -> Any:
    """The same with lists in place of tensors, as JSON has it."""
    if isinstance(values, dict):
        return {name: _as_lists(value) for name, value in values.items()}
    return values.tolist() if isinstance(values, Tensor) else values


def _as_tensors(values: Any) -> Any:
    """What `_as_lists` was given."""
    if isinstance(values, dict):
        return {name: _as_tensors(value) for name, value in values.items()}
    return torch.tensor(values) if isinstance(values, list) else values
