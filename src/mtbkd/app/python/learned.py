"""What a posterior was made of, and what it explains."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from torch import Tensor

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Recipe, Task
from mtbkd.explain.causes import Causes
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer
from mtbkd.types import Floats

Reads = Callable[[Sequence[Any]], Tensor]
"""Raw examples, such as texts or paths of images, to what the student reads."""


@dataclass(frozen=True)
class Learned:
    """What a posterior was made of.

    Attributes:
        task: Training, calibration and test examples; the latter two may have no rows.
        teachers: What they say on these.
        config: The settings.
        recipe: What reads a run directory of it.
        reads: What makes inputs of raw examples, if anything does.
        folder: The run directory that it was read from, if it was.
    """

    task: Task
    teachers: TeacherOutputs
    config: RunConfig
    recipe: Recipe
    reads: Reads | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Explained:
    """Answers, their flags and sets, and the ids of the training examples most like each example.

    Attributes:
        answer: What the student says.
        causes: Flags, sets and how reliable each answer is.
        neighbours: Nearest first.
        distances: In what the student's last layer reads, shape (example, neighbour).
    """

    answer: Answer
    causes: Causes
    neighbours: tuple[tuple[str, ...], ...]
    distances: Floats


class Scratch:
    """A run directory that is gone when nobody holds it any more."""

    def __init__(self, place: str) -> None:
        self.place = place
        weakref.finalize(self, rmtree, place, ignore_errors=True)
