"""What comes before the chains: features, weights, the prior's numbers, modes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.evidence import disagreement_evidence, power_of
from mtbkd.inference.batches import Prior, TrainingSet
from mtbkd.inference.run import MapSettings, find_modes
from mtbkd.observation import BINARY, GAUSSIAN, Observation, categorical, top
from mtbkd.outputs import TeacherOutputs
from mtbkd.prior import Spaces, Strength, find_spaces
from mtbkd.samples import save_json, save_tensors
from mtbkd.store import hash_tensor, save_rows
from mtbkd.student import Student
from mtbkd.types import InputError, check_positive
from mtbkd.units import Units, find_units
from mtbkd.weights import Stacked, Weighting, fit_stacked

Rule = Literal["auto", "uniform", "entropy", "stacked"]
Number = float | Literal["auto"]
Report = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""

_FEWEST_LABELS = 20
_TRIAL_CHAINS = 2
_BATCH = 1024
_FEATURES = 2**13  # examples whose features are held while they are written
_MOVED = 2**26  # numbers that are moved to the device as a whole
_CANDIDATES = {
    "concentration": (1.0, 5.0, 20.0, 50.0),
    "softening": (1.0, 2.0),
    "power": (5.0, 0.2, 1.0, 20.0, 50.0),
    "discount": (0.0, 6.0),
}


@dataclass(frozen=True)
class PriorSettings:
    """What the teachers are worth.

    A number given as ``auto`` is the one, among a few, whose modes have the best log score on the
    calibration labels; several are chosen one after the other.

    Attributes:
        weights: How teachers are weighed on each example. ``auto`` is ``stacked`` where there are
            labels that no teacher was trained on, else ``entropy``.
        concentration: Pseudo-observations that a teacher is worth on an example.
        softening: Divides the teachers' log-probabilities.
        power: Exponent of the mixture prior: how often each pseudo-observation counts. What the
            teachers weigh is ``concentration * power``; many weak pseudo-observations are easier
            to sample than few strong ones, so it is the power that is chosen by default.
        discount: How much less a teacher counts on an example where it is unsure: it is worth
            ``concentration * (1 - H / log C)**discount`` pseudo-observations there, H being the
            entropy of what it says, in nats. What a teacher does not know is not what cannot be
            known. It is without effect on numbers.
        soften_student: Whether the student is softened too inside the prior, as in the paper.
        evidence: Labelled examples that the teachers are worth together, which sets the power so
            that intervals are as wide as they should be (`mtbkd.evidence`); ``disagreement``
            estimates it. None leaves the power as given.
    """

    weights: Rule = "auto"
    concentration: Number = 1.0
    softening: Number = 1.0
    power: Number = "auto"
    discount: Number = "auto"
    soften_student: bool = False
    evidence: float | Literal["disagreement"] | None = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        numbers = {name: value for name, value in self._numbers() if value != "auto"}
        if isinstance(self.evidence, int | float):
            numbers["evidence"] = self.evidence
        discount = numbers.pop("discount", 0.0)
        check_positive(**numbers)
        if not discount >= 0:
            raise InputError(
                f"Expected prior.discount of 0 or more, but got {discount}. Raise it; 0 is none."
            )
        if self.evidence is not None and self.power not in (1.0, "auto"):
            raise InputError(
                f"Expected either prior.power or prior.evidence, which sets it, but got power "
                f"{self.power} and evidence {self.evidence}. Leave one out."
            )

    def candidates(self) -> dict[str, tuple[float, ...]]:
        """What each number that is ``auto`` is chosen from, the first where nothing can tell."""
        found = {name: _CANDIDATES[name] for name, value in self._numbers() if value == "auto"}
        if self.evidence is not None:
            found["power"] = (1.0,)
            found |= {"discount": (0.0,)} if self.discount == "auto" else {}
        return found

    def prior(self, chosen: Mapping[str, float]) -> Prior:
        """As the chains need it, with the numbers that were chosen."""
        values = {name: chosen.get(name, value) for name, value in self._numbers()}
        softening = values["softening"]
        strength = Strength(values["power"], softening if self.soften_student else 1.0)
        return Prior(values["concentration"], softening, strength, values["discount"])

    def _numbers(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in _CANDIDATES]


PAPER = PriorSettings(
    weights="entropy",
    concentration=5.0,
    softening=2.0,
    power=0.02,
    discount=0.0,
    soften_student=True,
)
"""The paper's settings; the power is 10 * 0.002 in its authors' public code."""


def cached_features(student: Student, inputs: Tensor, out: Path | None) -> Tensor:
    """The student's frozen features, computed once for each run directory.

    Args:
        student: Its frozen part is what costs.
        inputs: Shape (example, ...).
        out: A run directory, or None to keep nothing.
    """
    if student.frozen is None or out is None:
        return student.features(inputs)
    digest = hashlib.sha256()
    hash_tensor(digest, inputs)
    for name, value in student.fixed().items():
        digest.update(name.encode())
        hash_tensor(digest, value)
    path = out / "features" / f"frozen-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        parts = (student.features(part) for part in inputs.split(_FEATURES))
        save_rows(path, "features", len(inputs), parts)
    return load_file(str(path))["features"].to(student.prior_mean.device)


def observation_of(teachers: TeacherOutputs) -> tuple[Observation, Spaces | None]:
    """How outputs of these teachers' family are looked at, and what the teachers tell apart."""
    if teachers.family == "multilabel":
        return BINARY, None
    if teachers.family == "regression":
        return GAUSSIAN, None
    if teachers.kept is not None:
        return top(len(teachers.classes)), None
    spaces = None if teachers.blocks is None else find_spaces(teachers.blocks.long())
    return categorical(spaces), spaces


def nobody(data: Dataset) -> TeacherOutputs:
    """No teacher at all: one that says nothing about any example."""
    n, c = len(data), len(data.classes)
    shape = (1, n, c) if data.family == "classification" else (1, n, c, 2)
    mask = torch.zeros(1, 1, dtype=torch.bool).expand(1, n)
    if data.family != "classification":
        mask = mask[..., None].expand(1, n, c)
    values = torch.zeros(1, 1).view([1] * len(shape)).expand(shape)
    return TeacherOutputs(("nobody",), values, mask, data.ids, data.classes, True, data.family)


def training_set(
    student: Student,
    data: Dataset,
    teachers: TeacherOutputs,
    weighting: Weighting,
    out: Path | None = None,
    units: Units | None = None,
) -> TrainingSet:
    """Features once, teachers by id, weights: what the chains need, on the student's device."""
    where = student.prior_mean.device
    outputs = teachers.at(data.ids)
    observation, _ = observation_of(teachers)
    values = outputs.values
    if units is not None:
        values = units.values(values)
    said = weighting.apply(values, outputs.mask, outputs.kept, observation)
    labels = data.labels if units is None else units.labels(data.labels)
    temperature = weighting.temperature
    return TrainingSet(
        cached_features(student, data.inputs, out),
        labels.to(where),
        _near(said.values, where),
        said.log_weights.to(where),
        None if said.kept is None else _near(said.kept, where),
        None if said.inside is None else said.inside.to(where),
        None if said.nobody is None else said.nobody.to(where),
        None if temperature is None else temperature.to(where),
        observation,
    )


def _near(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device if it is small; large ones stay where they are, and batches are moved."""
    return tensor.to(device) if tensor.numel() <= _MOVED else tensor


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


def progress_of(report: Report | None, stage: str) -> Callable[[int, int], None] | None:
    """The progress of one stage."""
    return None if report is None else lambda done, total: report(stage, done, total)
