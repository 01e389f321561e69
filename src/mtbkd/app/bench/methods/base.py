"""What a method of the comparison is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mtbkd.app.bench.answers import Fitted, of_rival
from mtbkd.app.bench.students import Training, trained_rival
from mtbkd.app.bench.world import World
from mtbkd.types import Family, Report

Fit = Callable[[World, Path, Report], Fitted]
"""Trains in a folder of its own, which it goes on from."""

FAMILIES: tuple[Family, ...] = ("classification", "multilabel", "regression")
CLASSES_ONLY: tuple[Family, ...] = ("classification",)


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        summary: What it is, in a few words.
        fit: How it is trained.
        cost: CPU seconds of training in those of ours, about, for the estimate.
        folder: Where it is trained, if it shares that with others; else a folder of its own.
        families: What it can predict.
        pool: Whether it uses the pool, so that fitting that is part of what it costs.
        needs: A library that is not part of the house, as it is imported, and the extra of it.
    """

    summary: str
    fit: Fit
    cost: float = 0.1
    folder: str | None = None
    families: tuple[Family, ...] = FAMILIES
    pool: bool = True
    needs: tuple[str, str] | None = None


def student(how: Training) -> Fit:
    """A method that trains students as our baselines are trained."""
    return lambda world, folder, report: of_rival(trained_rival(world, how, folder, report), world)
