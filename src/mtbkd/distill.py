"""From a data set and its teachers to a posterior over the student: the parts, put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mtbkd.data import Dataset, check_splits
from mtbkd.inference.batches import Prior, TrainingSet
from mtbkd.inference.run import Chains, MapSettings, SamplerSettings, find_modes, sample
from mtbkd.outputs import TeacherOutputs
from mtbkd.posterior import Strength
from mtbkd.predictive import Predictive, predict
from mtbkd.samples import PosteriorSamples, load_samples, save_json, save_manifest, save_tensors
from mtbkd.student import Student, make_student
from mtbkd.types import InputError, check_positive
from mtbkd.weights import Stacked, Weighting, fit_stacked

Rule = Literal["auto", "uniform", "entropy", "stacked"]
Report = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""

_FEWEST_LABELS = 20
_CONCENTRATIONS = (1.0, 5.0, 20.0, 50.0)


@dataclass(frozen=True)
class PriorSettings:
    """What the teachers are worth.

    Attributes:
        weights: How teachers are weighed on each example. ``auto`` is ``stacked`` where there are
            labels that no teacher was trained on, else ``entropy``.
        concentration: Pseudo-observations that a teacher is worth on an example; ``auto`` picks
            the one whose modes have the best log score on calibration labels.
        softening: Divides the teachers' log-probabilities.
        power: Exponent of the mixture prior.
        soften_student: Whether the student is softened too inside the prior, as in the paper.
    """

    weights: Rule = "auto"
    concentration: float | Literal["auto"] = "auto"
    softening: float = 1.0
    power: float = 1.0
    soften_student: bool = False

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        concentration = 1.0 if self.concentration == "auto" else self.concentration
        check_positive(concentration=concentration, softening=self.softening, power=self.power)

    def prior(self, concentration: float) -> Prior:
        """As the chains need it."""
        student_softening = self.softening if self.soften_student else 1.0
        return Prior(concentration, self.softening, Strength(self.power, student_softening))


PAPER = PriorSettings(
    weights="entropy", concentration=5.0, softening=2.0, power=0.02, soften_student=True
)
"""The paper's settings; the power is 10 * 0.002 in its authors' public code."""


@dataclass(frozen=True)
class Posterior:
    """A Bayesian student.

    Attributes:
        student: The network.
        samples: Draws of its parameters.
        classes: Names, in the order of its outputs.
        weighting: How its teachers were weighed.
        prior: The mixture prior it was trained under.
        modes: Where its chains started, standardised, shape (chain, parameter).
        settings: Numbers on the chains: step sizes and what limited them.
    """

    student: Student
    samples: PosteriorSamples
    classes: tuple[str, ...]
    weighting: Weighting
    prior: Prior
    modes: Tensor
    settings: dict[str, list[float]]

    def predict(
        self, inputs: Tensor, *, level: float = 0.9, point: Literal["mean", "mode"] = "mean"
    ) -> Predictive:
        """Average over the posterior; see `mtbkd.predictive.predict`."""
        return predict(self.student, self.samples, inputs, level=level, point=point)


def distill(
    network: nn.Module,
    data: Dataset,
    teachers: TeacherOutputs,
    *,
    calibration: Dataset | None = None,
    prior: PriorSettings = PriorSettings(),
    modes: MapSettings = MapSettings(),
    sampler: SamplerSettings = SamplerSettings(),
    chains: int = 8,
    weight_scale: float = 3.0,
    sampled: str | Sequence[str] = "*",
    seed: int = 0,
    device: str = "auto",
    out: Path | None = None,
    report: Report | None = None,
) -> Posterior:
    """Distil several teachers into one Bayesian student.

    Args:
        network: Maps inputs to logits, one for each class of the data.
        data: What the student learns from; labels may be missing.
        teachers: Their outputs on the data and on the calibration set, matched by id.
        calibration: Labelled examples, for teacher weights and the concentration only.
        prior: What the teachers are worth.
        modes: How modes are found.
        sampler: How the posterior is explored from them.
        chains: How many, side by side.
        weight_scale: Multiplies the weight prior's standard deviation, ``1 / sqrt(fan_in)``.
        sampled: Name patterns of the parameters to sample; the rest stay as they are.
        seed: The same seed gives the same bytes.
        device: ``auto``, ``cpu`` or ``cuda``.
        out: A folder to write to, and to go on from if it holds an unfinished run.
        report: Called with each stage's progress.

    Raises:
        InputError: If teachers and data do not fit.
    """
    check_positive(chains=chains, weight_scale=weight_scale)
    splits = {"data": data} if calibration is None else {"data": data, "calibration": calibration}
    check_splits(**splits)
    where = pick_device(device)
    student = make_student(
        network, sampled=sampled, weight_scale=weight_scale, example=data.inputs[:2]
    ).to(where)
    weighting = _weighting(prior.weights, data, teachers, calibration, out)
    training = training_set(student, data, teachers, weighting)
    _check_classes(student, training, data.classes)
    concentration = _concentration(prior, student, training, modes, seed, calibration, out, report)
    chosen = prior.prior(concentration)
    start = starting_modes(student, training, chosen, modes, chains, seed, out, "modes", report)
    drawn = sample(
        student,
        training,
        chosen,
        sampler,
        start,
        seed=seed,
        folder=None if out is None else out / "samples",
        progress=_named(report, "sampling"),
    )
    settings = chain_settings(drawn)
    if out is not None:
        save_tensors(out / "student.safetensors", _state(student))
        save_manifest(out / "samples", drawn.samples, {"concentration": concentration, **settings})
    return Posterior(student, drawn.samples, data.classes, weighting, chosen, start, settings)


def load_posterior(
    network: nn.Module,
    folder: Path,
    example: Tensor,
    classes: tuple[str, ...],
    *,
    prior: PriorSettings,
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
        prior: As given to `distill`.
        weight_scale: As given to `distill`.
        sampled: As given to `distill`.
        device: Where to predict.

    Raises:
        InputError: If the folder is incomplete or does not fit the network.
    """
    samples = load_samples(folder / "samples")
    try:
        manifest = json.loads((folder / "samples" / "manifest.json").read_text(encoding="utf-8"))
        stored = load_file(str(folder / "student.safetensors"))
        start = load_file(str(folder / "modes.safetensors"))["modes"]
        weighting = _read_weighting(folder / "weights.json")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"Expected a finished distillation in {folder}, but it is incomplete "
            f"({error}). Run it to its end."
        ) from None
    student = make_student(network, sampled=sampled, weight_scale=weight_scale, example=example)
    expected = {name: value.shape for name, value in _state(student).items()}
    if samples.shapes != tuple(tuple(s) for s in student.shapes) or expected != {
        name: value.shape for name, value in stored.items()
    }:
        raise InputError(
            f"Expected the network that was trained in {folder}, but its shapes "
            "differ. Build it with the same sizes."
        )
    _restore_state(student, stored)
    where = pick_device(device)
    settings = {k: manifest[k] for k in manifest if isinstance(manifest[k], list)}
    for name in ("names", "shapes"):
        settings.pop(name)
    return Posterior(
        student.to(where),
        samples,
        classes,
        weighting,
        prior.prior(manifest["concentration"]),
        start.to(where),
        settings,
    )


def training_set(
    student: Student, data: Dataset, teachers: TeacherOutputs, weighting: Weighting
) -> TrainingSet:
    """Features once, teachers by id, weights: what the chains need, on the student's device."""
    where = student.prior_mean.device
    outputs = teachers.at(data.ids)
    log_probs, log_weights = weighting.apply(outputs.log_probs, outputs.mask)
    return TrainingSet(
        student.features(data.inputs).to(where),
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
        progress=_named(report, name),
    )
    if path is not None:
        save_tensors(path, {"modes": found})
    return found


def mode_probs(student: Student, modes: Tensor, inputs: Tensor) -> Tensor:
    """Mean probabilities of the students at some modes: (example, ...) to (example, class)."""
    with torch.no_grad():
        features = student.features(inputs).to(modes.device)
        logits = torch.vmap(student.logits, in_dims=(0, None))(modes, features)
    return torch.softmax(logits, -1).double().mean(0).cpu()


def chain_settings(chains: Chains) -> dict[str, list[float]]:
    """What is reported of the chains, each a list with one value for each chain."""
    values = {
        "step_size": chains.step_size,
        "curvature": chains.curvature,
        "gradient_noise": chains.noise,
    }
    if chains.kinetic_temperature is not None:
        values["kinetic_temperature"] = chains.kinetic_temperature
    return {name: value.tolist() for name, value in values.items()}


def pick_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is a device for it.

    Raises:
        InputError: If the device cannot be used here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"Expected a device that torch can use, but got {device!r}: {reason} Use device=auto."
        ) from None


def _check_classes(student: Student, training: TrainingSet, classes: tuple[str, ...]) -> None:
    position = torch.zeros_like(student.prior_mean)
    shape = tuple(student.logits(position, training.features[:2]).shape)
    if shape != (min(2, len(training.labels)), len(classes)):
        raise InputError(
            f"Expected a network that maps {len(classes)} classes, one logit each, "
            f"but got outputs of shape {shape}. Change its last layer."
        )


def _weighting(
    rule: Rule,
    data: Dataset,
    teachers: TeacherOutputs,
    calibration: Dataset | None,
    out: Path | None,
) -> Weighting:
    """Choose and fit the rule, or read the fit back."""
    path = None if out is None else out / "weights.json"
    if path is not None and path.exists():
        return _read_weighting(path)
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
        weighting = Weighting(rule, fit_stacked(held.log_probs, held.mask, labels))
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


def _read_weighting(path: Path) -> Weighting:
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


def _concentration(
    prior: PriorSettings,
    student: Student,
    training: TrainingSet,
    settings: MapSettings,
    seed: int,
    calibration: Dataset | None,
    out: Path | None,
    report: Report | None,
) -> float:
    """The concentration asked for, or the best of a few on the calibration labels."""
    if prior.concentration != "auto":
        return prior.concentration
    if calibration is None or not calibration.n_labelled:
        return _CONCENTRATIONS[1]
    known = calibration.labels >= 0
    scores = []
    for candidate in _CONCENTRATIONS:
        found = starting_modes(
            student,
            training,
            prior.prior(candidate),
            settings,
            2,
            seed,
            out,
            f"modes-{candidate:g}",
            report,
        )
        probs = mode_probs(student, found, calibration.inputs[known])
        picked = probs.gather(1, calibration.labels[known][:, None])
        scores.append(float(picked.log().mean()))
    return _CONCENTRATIONS[max(range(len(scores)), key=scores.__getitem__)]


def _state(student: Student) -> dict[str, Tensor]:
    """Everything the student needs besides its draws: frozen parameters and buffers."""
    sampled = set(student.names)
    head = {f"head.{k}": v for k, v in student.head.state_dict().items() if k not in sampled}
    frozen = {} if student.frozen is None else student.frozen.state_dict()
    return head | {f"frozen.{k}": v for k, v in frozen.items() if k not in sampled}


def _restore_state(student: Student, stored: dict[str, Tensor]) -> None:
    for name, value in _state(student).items():
        value.copy_(stored[name])


def _named(report: Report | None, stage: str) -> Callable[[int, int], None] | None:
    return None if report is None else lambda done, total: report(stage, done, total)
