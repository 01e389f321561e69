"""What comes before the chains: features, weights, the prior's numbers, modes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.evidence import disagreement_evidence, power_of
from mtbkd.inference.batches import Prior, TrainingSet
from mtbkd.inference.run import MapSettings, find_modes
from mtbkd.outputs import TeacherOutputs
from mtbkd.posterior import Strength
from mtbkd.samples import save_json, save_tensors
from mtbkd.student import Student
from mtbkd.types import InputError, check_positive
from mtbkd.weights import Stacked, Weighting, fit_stacked

Rule = Literal["auto", "uniform", "entropy", "stacked"]
Number = float | Literal["auto"]
Report = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""

_FEWEST_LABELS = 20
_TRIAL_CHAINS = 2
_BATCH = 1024
_CANDIDATES = {
    "concentration": (1.0, 5.0, 20.0, 50.0),
    "softening": (1.0, 2.0),
    "power": (5.0, 0.2, 1.0, 20.0, 50.0),
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
        soften_student: Whether the student is softened too inside the prior, as in the paper.
        evidence: Labelled examples that the teachers are worth together, which sets the power so
            that intervals are as wide as they should be (`mtbkd.evidence`); ``disagreement``
            estimates it. None leaves the power as given.
    """

    weights: Rule = "auto"
    concentration: Number = 1.0
    softening: Number = 1.0
    power: Number = "auto"
    soften_student: bool = False
    evidence: float | Literal["disagreement"] | None = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        numbers = {name: value for name, value in self._numbers() if value != "auto"}
        if isinstance(self.evidence, int | float):
            numbers["evidence"] = self.evidence
        check_positive(**numbers)
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
        return found

    def prior(self, chosen: Mapping[str, float]) -> Prior:
        """As the chains need it, with the numbers that were chosen."""
        values = {name: chosen.get(name, value) for name, value in self._numbers()}
        softening = values["softening"]
        strength = Strength(values["power"], softening if self.soften_student else 1.0)
        return Prior(values["concentration"], softening, strength)

    def _numbers(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in _CANDIDATES]


PAPER = PriorSettings(
    weights="entropy", concentration=5.0, softening=2.0, power=0.02, soften_student=True
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
    digest = hashlib.sha256(inputs.contiguous().numpy().tobytes())
    for name, value in student.fixed().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    path = out / "features" / f"frozen-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        save_tensors(path, {"features": student.features(inputs)})
    return load_file(str(path))["features"].to(student.prior_mean.device)


def training_set(
    student: Student,
    data: Dataset,
    teachers: TeacherOutputs,
    weighting: Weighting,
    out: Path | None = None,
) -> TrainingSet:
    """Features once, teachers by id, weights: what the chains need, on the student's device."""
    where = student.prior_mean.device
    outputs = teachers.at(data.ids)
    log_probs, log_weights = weighting.apply(outputs.values, outputs.mask)
    return TrainingSet(
        cached_features(student, data.inputs, out),
        data.labels.to(where),
        log_probs.to(where),
        log_weights.to(where),
    )


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


def mode_probs(student: Student, modes: Tensor, inputs: Tensor) -> Tensor:
    """Mean probabilities of the students at some modes: (example, ...) to (example, class)."""
    forward = torch.vmap(student.logits, in_dims=(0, None))
    with torch.no_grad():
        logits = (forward(modes, student.features(part)) for part in inputs.split(_BATCH))
        return torch.cat([torch.softmax(part, -1).double().mean(0).cpu() for part in logits])


def choose_weighting(
    rule: Rule,
    data: Dataset,
    teachers: TeacherOutputs,
    calibration: Dataset | None,
    out: Path | None,
) -> Weighting:
    """Choose and fit the rule, or read the fit back."""
    path = None if out is None else out / "weights.json"
    if path is not None and path.exists():
        return read_weighting(path)
    parts = [d for d in (data, calibration) if d is not None]
    ids = [i for d in parts for i, y in zip(d.ids, d.labels.tolist(), strict=True) if y >= 0]
    labels = torch.cat([d.labels[d.labels >= 0] for d in parts])
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
        held = teachers.at(ids)
        weighting = Weighting(rule, fit_stacked(held.values, held.mask, labels))
    if path is not None:
        fit = weighting.stacked
        values = (
            {}
            if fit is None
            else {
                "intercept": fit.intercept.tolist(),
                "slope": fit.slope.tolist(),
                "temperature": fit.temperature.tolist(),
                "scale": fit.scale,
            }
        )
        save_json(path, {"rule": weighting.rule, "teachers": teachers.names, **values})
    return weighting


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
) -> Prior:
    """The prior asked for, with what is ``auto`` chosen on the calibration labels."""
    options = settings.candidates()
    chosen = {name: values[0] for name, values in options.items()}
    if calibration is not None and calibration.n_labelled:
        chosen = _best(settings, student, training, modes, calibration, seed, out, report)
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
) -> dict[str, float]:
    """What was left open, one number after the other, by the log score of modes."""
    options = settings.candidates()
    chosen = {name: values[0] for name, values in options.items()}
    known = calibration.labels >= 0
    labels = calibration.labels[known][:, None]
    features = cached_features(student, calibration.inputs[known], out)
    head = replace(student, frozen=None)

    def score(name: str, value: float) -> float:
        prior = settings.prior(chosen | {name: value})
        numbers = (prior.concentration, prior.softening, prior.strength.power)
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
        return float(mode_probs(head, found, features).gather(1, labels).log().mean())

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
    )
    return Weighting("stacked", fit)


def progress_of(report: Report | None, stage: str) -> Callable[[int, int], None] | None:
    """The progress of one stage."""
    return None if report is None else lambda done, total: report(stage, done, total)
