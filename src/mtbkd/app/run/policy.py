"""Which answers a run's student gives alone, as it is promised, written down and read back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtbkd.app.folder import POLICY
from mtbkd.explain.defer import CONFIDENCE
from mtbkd.files import read_sealed
from mtbkd.types import Bools, Floats, Ints, outside, refuse

FIGURE = "defer.svg"
_BOUNDS = {"all": -math.inf, "none": math.inf}


@dataclass(frozen=True)
class Goal:
    """What is promised of the answers that the student gives alone; one of the first three.

    Attributes:
        agree: Share of them that is what the teachers' pool says.
        accuracy: Share of them that is right.
        call: Price of asking the teachers about one example, beside that of a wrong answer.
        error: Price of a wrong answer.
        per_class: Whether the promise holds for the answers that say each class.
    """

    agree: float | None = None
    accuracy: float | None = None
    call: float | None = None
    error: float | None = None
    per_class: bool = False

    def check(self) -> None:
        """Refuse what cannot be promised.

        Raises:
            InputError: With one message for each fault.
        """
        faults = []
        given = [self.agree is not None, self.accuracy is not None, self.call is not None]
        if sum(given) != 1:
            faults.append(
                f"Expected one of --agree, --accuracy and --cost, but got {sum(given)} of them. "
                "Give one."
            )
        for name in ("agree", "accuracy"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                faults.append(
                    f"Expected --{name} between 0 and 1, but got {share:g}. Give the share of the "
                    "answers that shall hold, such as 0.95."
                )
        if self.call is not None:
            faults += [
                fault
                for name, price in (("call", self.call), ("error", self.error))
                for fault in outside(f"--cost, the price of a {name},", price, 1e12)
            ]
            if self.per_class:
                faults.append(
                    "Expected --per-class with --agree or --accuracy, but got it with --cost. "
                    "Leave it out."
                )
        refuse(*faults)


@dataclass(frozen=True)
class Policy:
    """Which answers the student gives alone.

    Attributes:
        goal: What is promised of them.
        score: Which score says so.
        above: The student answers where its score is above this; one number, or one for each class.
        weight: That of the student beside the teachers, where they are asked.
    """

    goal: Goal
    score: str
    above: Floats
    weight: float

    def alone(self, scores: dict[str, Floats], said: Ints) -> Bools:
        """Which answers are given alone, shape (example,)."""
        above = self.above if len(self.above) == 1 else self.above[said]
        return scores[self.score] > above


def read_policy(out: Path) -> Policy:
    """What `mtbkd.app.run.defer.defer_run` wrote.

    Raises:
        InputError: If there is none, or it was changed.
    """
    found = read_record(out)
    above = np.array([_BOUNDS.get(one, one) for one in found["above"]], dtype=float)
    return Policy(Goal(**found["goal"]), found["score"], above, found["weight"])


def read_record(out: Path) -> dict[str, Any]:
    """The content of ``defer.json``.

    Raises:
        InputError: If there is none, or it was changed.
    """
    then = f"Make it with `mtbkd defer {out} --accuracy 0.95`."
    return read_sealed(out / POLICY, then, "goal", "score", "above", "weight", "curves")


def record_of(policy: Policy) -> dict[str, Any]:
    """As JSON holds it, which has no infinity."""
    names = {bound: name for name, bound in _BOUNDS.items()}
    return {
        "goal": asdict(policy.goal),
        "confidence": CONFIDENCE,
        "score": policy.score,
        "above": [names.get(one, one) for one in policy.above.tolist()],
        "weight": policy.weight,
    }
