"""One class of several: how labels and teachers' numbers are read, and answers given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtbkd.observation.answers import Answer, Predictive, arrays, marginal_mode, quantiles
from mtbkd.observation.base import Kind, Labels, Names, Observation
from mtbkd.observation.categorical import Categorical
from mtbkd.observation.log_probs import LOG_FLOOR, floored, pool_log_probs
from mtbkd.observation.top import Top
from mtbkd.observation.units import Units
from mtbkd.prior.spaces import find_spaces
from mtbkd.types import MISSING_WORDS, Family, Floats, Ints, is_missing, positions, tell_missing

SUM_TOLERANCE = 1e-3
_LEAST = -1e4  # log-probabilities below it are worked on as if they were it


@dataclass(frozen=True)
class Classes:
    """Exactly one of several classes; values are log-probabilities in nats."""

    family: ClassVar[Family] = "classification"
    column: ClassVar[str] = "class"
    columns: ClassVar[str] = "classes"
    exclusive: ClassVar[bool] = True
    twice: ClassVar[str] = "Pass merge=True to add their probabilities, or correct it."
    kinds: ClassVar[tuple[Kind, ...]] = ("logits", "probs", "log_probs", "counts")
    missing: ClassVar[float] = -1
    mapping: ClassVar[str] = "classes, one logit each"
    n_outputs: ClassVar[int] = 1
    numeric: ClassVar[bool] = False

    def observe(
        self, n_columns: int, blocks: Tensor | None = None, kept: Tensor | None = None
    ) -> Observation:
        if kept is not None:
            return Top(n_columns)
        return Categorical(None if blocks is None else find_spaces(blocks.long()))

    def read_labels(self, labels: Labels, n_rows: int, names: Names) -> tuple[Tensor, list[str]]:
        """Class indices from indices or names, shape (example,), -1 where missing."""
        if isinstance(labels, Tensor):
            labels = labels.detach()
            labels = labels.tolist() if labels.is_floating_point() else labels.numpy(force=True)
        values = labels if isinstance(labels, np.ndarray) else list(labels)  # type: ignore[arg-type]
        if len(values) != n_rows:
            return torch.empty(0), [
                f"Expected {n_rows} labels in the {names.owner}, but got {len(values)}. "
                "Give one for each example, -1 where it is missing."
            ]
        n_classes = len(names.columns)
        if isinstance(values, np.ndarray):
            if values.ndim == 1 and values.dtype.kind in "iu" and len(values):
                if -1 <= values.min() and values.max() < n_classes:
                    return torch.from_numpy(values.astype(np.int64)), []
            values = values.tolist()
        position = positions(names.columns)
        found: list[int] = []
        outside: list[tuple[int, object]] = []
        spelt: list[str] = []
        for row, value in enumerate(values):
            if is_missing(value) or value == -1:
                index: int | None = -1
            elif isinstance(value, str):
                index = position.get(value, -1 if value in MISSING_WORDS else None)
                spelt += [value] * (index == -1)
            else:
                index = int(value) if float(value) in range(n_classes) else None  # type: ignore[arg-type]
            if index is None:
                outside.append((row, value))
            found.append(-1 if index is None else index)
        if outside:
            row, value = outside[0]
            word = isinstance(value, str)
            more = "" if word else ", or give classes as numbers if labels are such names"
            return torch.empty(0), [
                f"Expected labels among the {n_classes} classes of the {names.owner}, but got "
                f"{value!r} for id {names.row(row)} ({len(outside)} such). Correct them or add the "
                f"class{more}."
            ]
        tell_missing(spelt, f"the {names.owner}")
        return torch.tensor(found), []

    def faults(self, numbers: Floats, kind: Kind, names: Names) -> list[str]:
        """Probabilities declared logits, impossible counts, and rows that are no distributions."""
        if kind == "counts":
            return _count_faults(numbers, names)
        with np.errstate(over="ignore"):
            probs = np.exp(numbers) if kind == "log_probs" else numbers
            sums = probs.sum(1)
        if kind == "logits":
            if (numbers >= 0).all() and (np.abs(sums - 1) < 1e-4).all():
                return [
                    f"Expected logits from teacher {names.owner!r}, but got rows that are all "
                    "probabilities (>= 0, sum 1). Declare kind='probs'."
                ]
            return []
        wrong = (np.abs(sums - 1) > SUM_TOLERANCE) | (probs < 0).any(1)
        if not wrong.any():
            return []
        row = int(wrong.argmax())
        hint = "kind='logits'" if kind == "probs" else "kind='logits' or kind='probs'"
        low = f" and smallest value {probs[row].min():.4g}" if (probs[row] < 0).any() else ""
        return [
            f"Expected {kind} of teacher {names.owner!r} to be distributions, but got sum "
            f"{sums[row]:.4g}{low} for id {names.row(row)} ({wrong.sum()} such rows). Normalise "
            f"them, or declare {hint} if that is what they are."
        ]

    def settle(
        self, numbers: Floats, kind: Kind, target: Ints, log_variance: Floats | None
    ) -> Tensor:
        """Floored log-probabilities; those of columns that mean the same are added."""
        if kind == "probs":
            with np.errstate(divide="ignore"):
                numbers = np.log(numbers)
        raw = torch.from_numpy(numbers)
        if not np.array_equal(target, np.arange(len(target))):
            raw = _merged(raw, torch.from_numpy(target))
        return floored(raw.clamp_min(_LEAST))

    def unsaid(self, n_columns: int) -> Tensor:
        return torch.full((n_columns,), -math.log(n_columns))

    def neutral(self, kind: Kind, n_columns: int) -> float:
        """All classes alike, and logits that are no probabilities."""
        even = 1 / max(n_columns, 1)
        return {"probs": even, "log_probs": math.log(even), "counts": 1.0}.get(kind, 0.0)

    def pooled(self, log_weights: Tensor, complete: Tensor) -> Tensor:
        return pool_log_probs(log_weights, complete).nan_to_num(neginf=LOG_FLOOR)

    def point(self, outputs: Tensor, units: Units | None) -> Tensor:
        return torch.softmax(outputs, -1)

    def traced(self, outputs: Tensor) -> Tensor:
        return torch.softmax(outputs, -1).clamp_min(1e-12).log()

    def cuts(self, draws: Tensor) -> Tensor:
        return draws.new_empty(draws.shape[1], 0)

    def events(self, outputs: Tensor, cuts: Tensor) -> Tensor:
        return torch.softmax(outputs, -1).unsqueeze(-2)

    def summarise(self, draws: Tensor, *, units: Units | None, level: float, point: str) -> Answer:
        """From (draw, example, class) to the fields of `Predictive`."""
        probs = torch.softmax(draws, -1)
        mean = probs.double().mean(0)
        lower, upper = quantiles(probs, level)
        fields = arrays(
            probs=mean if point == "mean" else marginal_mode(probs),
            total=-torch.special.xlogy(mean, mean).sum(-1),
            aleatoric=-torch.special.xlogy(probs, probs).sum(-1).double().mean(0),
            lower=lower,
            upper=upper,
            second=probs.topk(2, -1).values[..., 1].double().mean(0),
        )
        return Predictive(**fields, level=level)


def _count_faults(counts: Floats, names: Names) -> list[str]:
    """Rows that nobody can have counted, in one message."""
    wrong = (counts < 0) | (counts != np.floor(counts))
    rows = wrong.any(1) | (counts.sum(1) == 0)
    if not rows.any():
        return []
    row = int(rows.argmax())
    got = f"{counts[row][wrong[row]][0]:g}" if wrong[row].any() else "nothing but 0"
    return [
        f"Expected counts of teacher {names.owner!r} as whole numbers of 0 or more, one of them "
        f"above 0, but got {got} for id {names.row(row)} ({rows.sum()} such rows). Leave the "
        "example out, or declare kind='probs' if that is what they are."
    ]


def _merged(log_values: Tensor, target: Tensor) -> Tensor:
    """Log of the summed values of own columns, shape (example, own class) to (example, class)."""
    stays = target >= 0
    kept = log_values[:, stays]
    peak = kept.amax(1, keepdim=True)
    peak = torch.where(peak.isfinite(), peak, 0.0)
    n_classes = int(target.max()) + 1
    if int(stays.sum()) == n_classes:
        return kept - peak
    summed = kept.new_zeros(len(kept), n_classes)
    return summed.index_add_(1, target[stays], (kept - peak).exp()).log()


CLASSES = Classes()
"""One class of several."""
