"""The Bayesian student, and how it is written down and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Self

from numpy.typing import ArrayLike
from torch import Tensor, nn

from mtbkd.distillation.choose import read_weighting, save_weighting
from mtbkd.distillation.fallback import EngineChoice
from mtbkd.files import check_hash, load_tensors, save_tensors
from mtbkd.inference.engines import Plan
from mtbkd.inference.samples import (
    MAKE_AGAIN,
    PosteriorSamples,
    draws_folder,
    load_samples,
    read_manifest,
    save_manifest,
    segment_path,
)
from mtbkd.observation import OUTCOMES
from mtbkd.observation.units import Units
from mtbkd.predictive import Answer, predict, thin
from mtbkd.prior.mixture import Prior
from mtbkd.student.devices import find_device
from mtbkd.student.student import Student, make_student
from mtbkd.types import Family, InputError, tensor_of
from mtbkd.weights.rules import Weighting


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
        choice: What was compared with chains that had not agreed when their time was over; None
            if they had.
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
    choice: EngineChoice | None = None

    @property
    def instead(self) -> bool:
        """Whether the draws answer in place of chains."""
        return self.choice is not None and self.choice.laplace

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

    def at_temperature(self, temperature: float) -> Self:
        """The same with a student that answers at this temperature; 1 is that of its chains."""
        return replace(self, student=replace(self.student, temperature=temperature))

    def thin(self, n: int, inputs: ArrayLike | Tensor) -> Posterior:
        """The same with ``n`` draws that answer nearly as all do; see `mtbkd.predictive.thin`."""
        read = tensor_of(inputs, "inputs")
        few = thin(self.student, self.samples, read, n, family=self.family)
        return replace(self, samples=few)


def finish(posterior: Posterior, folder: Path) -> None:
    """Write the network's fixed part and the manifest beside what sampling has written."""
    save_tensors(folder / "student.safetensors", posterior.student.fixed())
    details = {
        "prior": asdict(posterior.prior),
        "plan": posterior.plan._asdict(),
        "statistics": posterior.statistics,
        "family": posterior.family,
        "temperature": posterior.student.temperature,
        "choice": None if posterior.choice is None else asdict(posterior.choice),
    }
    beside = [f"{name}.safetensors" for name in ("student", "modes")] + ["weights.json"]
    beside += [] if posterior.units is None else ["units.safetensors"]
    save_manifest(folder / "samples", posterior.samples, details, beside, instead=posterior.instead)


def save_posterior(posterior: Posterior, folder: Path, teachers: Sequence[str]) -> None:
    """Write what `load_posterior` reads, as `mtbkd.distill` does where it is given a folder.

    Args:
        posterior: The student.
        folder: A new folder.
        teachers: Names of the teachers that it weighs.
    """
    drawn = draws_folder(folder / "samples", instead=posterior.instead)
    for index, segment in enumerate(posterior.samples.segments):
        save_tensors(segment_path(drawn, index), {"draws": segment})
    save_tensors(folder / "modes.safetensors", {"modes": posterior.modes})
    save_weighting(folder / "weights.json", posterior.weighting, teachers)
    if posterior.units is not None:
        save_tensors(folder / "units.safetensors", asdict(posterior.units))
    finish(posterior, folder)


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
        student=replace(student.to(where), temperature=manifest.get("temperature", 1.0)),
        samples=samples,
        classes=classes,
        weighting=weighting,
        prior=prior,
        modes=start.to(where),
        plan=plan,
        statistics=statistics,
        family=family,
        units=units,
        choice=EngineChoice(**manifest["choice"]) if manifest.get("choice") else None,
    )
