"""What the teachers are worth: the prior's settings, some of them to be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mtbkd.prior.mixture import Strength
from mtbkd.types import InputError, outside, refuse

Rule = Literal["auto", "uniform", "entropy", "stacked"]
Number = float | Literal["auto"]

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
            that intervals are as wide as they should be (`mtbkd.distillation.evidence`);
            ``disagreement`` estimates it. None leaves the power as given.
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
        discount = numbers.pop("discount", 0.0)
        faults = [fault for name, value in numbers.items() for fault in outside(name, value, 1e6)]
        if self.evidence not in (None, "disagreement"):
            faults += outside("evidence", self.evidence)
        if (
            isinstance(discount, bool)
            or not isinstance(discount, int | float)
            or not 0 <= discount <= 1e3
        ):
            faults.append(f"Expected prior.discount from 0 to 1000, but got {discount}. 0 is none.")
        refuse(*faults)
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


@dataclass(frozen=True)
class Prior:
    """The mixture prior's settings.

    Attributes:
        concentration: Pseudo-observations that a teacher is worth.
        softening: Divides the teachers' log-probabilities.
        strength: How the mixture enters the posterior.
        discount: How much less teachers count where they are unsure; see `mixture_terms`.
    """

    concentration: float = 1.0
    softening: float = 1.0
    strength: Strength = Strength()
    discount: float = 0.0
