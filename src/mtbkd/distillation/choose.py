"""What held-out labels decide: units, weights, and the prior's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.distillation.evidence import disagreement_evidence, power_of
from mtbkd.files import load_tensors, read_sealed, save_sealed, save_tensors
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings, mode_score, progress_of, starting_modes
from mtbkd.inference.run import sample
from mtbkd.observation.units import Units, find_units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.settings import Prior, PriorSettings, Rule
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import InputError, Report
from mtbkd.weights.directions import Directions, find_directions
from mtbkd.weights.rules import Stacked, Weighting
from mtbkd.weights.stacking import fit_stacked

_TRIAL_CHAINS, _FEWEST_LABELS, _SHORTER = 2, 20, 3
_COMPARED, _COMPARED_IN_TURN = 10_000, 2_000


@dataclass(frozen=True)
class Trials:
    """What modes are found on, and judged by, to choose the prior.

    Attributes:
        student: Whose modes are found.
        training: What it learns from.
        modes: How they are found.
        calibration: Labelled examples that judge them, if there are any.
        units: For regression only.
        sampler: How the posterior is explored from the modes, to judge draws in their place; None
            judges the modes. Modes like a stronger prior than draws do, and one that chains cannot
            explore.
        seed: The same seed gives the same choice.
        out: A folder to write to, and to go on from.
        report: Told of each stage's progress.
    """

    student: Student
    training: TrainingSet
    modes: MapSettings
    calibration: Dataset | None
    units: Units | None = None
    sampler: SamplerSettings | None = None
    seed: int = 0
    out: Path | None = None
    report: Report | None = None

    def find(self, prior: Prior, n_chains: int, name: str) -> Tensor:
        """Modes under a prior, (chain, parameter)."""
        return starting_modes(
            self.student,
            self.training,
            prior,
            self.modes,
            n_chains=n_chains,
            seed=self.seed,
            path=None if self.out is None else self.out / "choices" / f"{name}.safetensors",
            progress=progress_of(self.report, name),
        )

    def score(self, prior: Prior, name: str) -> float:
        """Mean log score on the calibration labels under a prior, in nats."""
        kept = self.out is not None and self.sampler is not None
        path = Path(self.out or "") / "choices" / f"{name}-score.safetensors"
        if kept and path.exists():
            return float(load_tensors(path)["score"])
        positions = self.find(prior, _TRIAL_CHAINS, name)
        if self.sampler is not None:
            drawn = sample(
                self.student,
                self.training,
                prior,
                self.sampler,
                positions,
                seed=self.seed,
                progress=progress_of(self.report, f"draws of {name}"),
            )
            every = torch.cat([s.flatten(0, 1) for s in drawn.samples.segments])
            positions = self.student.standardised(every.to(positions.device))
        held = cast(Dataset, self.calibration)
        known, units = held.known, self.units
        labels = held.labels[known] if units is None else units.labels(held.labels[known])
        inputs, observation = held.inputs[known], self.training.observation
        found = mode_score(self.student, positions, inputs, labels, observation)
        if kept:
            save_tensors(path, {"score": torch.tensor(found, dtype=torch.float64)})
        return found


def few_rows(n_examples: int, seed: int, *, in_turn: bool = False) -> Tensor:
    """Examples on which priors are compared where there is a budget: all, or some by chance.

    They are 10,000, or 2,000 where the network's chains go one after the other.
    """
    generator = torch.Generator().manual_seed(seed)
    most = _COMPARED_IN_TURN if in_turn else _COMPARED
    return torch.randperm(n_examples, generator=generator)[:most].sort().values


def shorter(modes: MapSettings) -> MapSettings:
    """How modes are found that only compare priors: in a third of the epochs."""
    return replace(modes, epochs=math.ceil(modes.epochs / _SHORTER))


def choose_prior(settings: PriorSettings, trials: Trials) -> Prior:
    """The prior asked for, with what is ``auto`` chosen on the calibration labels.

    The first candidates stay where these cannot judge a teacher: there are none, or none of them
    is of a class that it knows.
    """
    training, calibration = trials.training, trials.calibration
    chosen = {name: values[0] for name, values in settings.candidates().items()}
    speaking = not torch.isneginf(training.log_weights).all()
    if speaking and calibration is not None and _judged(training, calibration):
        chosen = _best(settings, trials)
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


def _best(settings: PriorSettings, trials: Trials) -> dict[str, float]:
    """What was left open, one number after the other, by the log score."""
    options = settings.candidates()
    chosen = {name: values[0] for name, values in options.items()}

    def score(name: str, value: float) -> float:
        prior = settings.prior(chosen | {name: value})
        numbers = (prior.concentration, prior.softening, prior.power, prior.discount)
        return trials.score(prior, "prior-" + "-".join(f"{number:g}" for number in numbers))

    for name, values in options.items():
        if len(values) == 1:
            continue
        scores = {value: score(name, value) for value in values}
        chosen[name] = max(values, key=scores.__getitem__)
    return chosen


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
    weighting = Weighting(rule)
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
        )
        weighting = Weighting(rule, fit)
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
    if weighting.stacked is not None:
        stored["fit"] = _as_lists(asdict(weighting.stacked))
    save_sealed(path, stored)


def read_weighting(path: Path) -> Weighting:
    """Read back what `choose_weighting` wrote.

    Raises:
        InputError: If it is missing or was changed.
    """
    stored = read_sealed(path)
    if stored["rule"] != "stacked":
        return Weighting(stored["rule"])
    fit = _as_tensors(stored["fit"])
    if fit["directions"] is not None:
        fit["directions"] = Directions(**fit["directions"])
    return Weighting("stacked", Stacked(**fit))


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
