"""What a recipe is: the only place where data, teachers and a network come together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.data import Dataset
from mtbkd.inputs.kind import Unread
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.types import Floats, Ints, Report, quiet

Costs = dict[str, dict[str, float]]
"""Teacher to what it costs: ``parameters`` and ``ms_per_example``, as far as known."""


@dataclass(frozen=True)
class Sources:
    """Where examples come from, as the name of a hospital or a language.

    Attributes:
        calibration: The source of each calibration example.
        test: The source of each test example.
    """

    calibration: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """The data of a recipe, split.

    Attributes:
        name: What the task is called.
        train: What the student learns from; labels may be missing.
        calibration: Labelled examples for weights and concentration.
        test: What everything is judged on.
        teacher_data: Whatever the recipe's teachers are trained on.
        drawn: Test example to markup that shows it, by position.
        others: Further inputs by what they are, as "several locations", whose labels do not count:
            the student's uncertainty is compared with that on the test examples.
        noun: What a class or label is, in one word, as "location"; by the family if not given.
        together: Number of the group of each calibration example, shape (calibration example,),
            where some are akin: none is answered by a student that learned from one of its group.
        sources: Where examples come from, if that is known.
        spread: How uncertain the truth itself is for each test example, where that was measured,
            as people's votes do, in nats, shape (test example,).
    """

    name: str
    train: Dataset
    calibration: Dataset
    test: Dataset
    teacher_data: Any
    drawn: Callable[[int], str]
    others: Mapping[str, Dataset] = field(default_factory=dict)
    noun: str | None = None
    together: Ints | None = None
    sources: Sources | None = None
    spread: Floats | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all examples that teachers are asked about."""
        return self.train.ids + self.calibration.ids + self.test.ids


@dataclass(frozen=True)
class Labelling:
    """How the teachers of a recipe that labels are asked.

    Attributes:
        may_run_code: Whether the configuration was written by the user, who named its file, so
            that the code it names may be run. Never so for one that a run directory holds.
        shard_rows: Rows of a file; as the folder has it, or 4096, if not given.
        batch_size: Rows of one call of a teacher.
        dtype: Type of the values stored; as the folder has it, or float32, if not given.
        most_failures: Largest share of rows that may fail.
        ray: Whether Ray labels.
        report: Told teacher, rows labelled and rows in all.
        say: Told one line for each teacher.
    """

    may_run_code: bool = False
    shard_rows: int | None = None
    batch_size: int = 256
    dtype: Literal["float32", "float16"] | None = None
    most_failures: float = 0.01
    ray: bool = False
    report: Report = quiet
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Before:
    """What is done to an example before the student reads it, as far as arithmetic can do it.

    Attributes:
        what: What it is done to, in words.
        raw: Whether that is what people have; else something has to make numbers of it first.
        mean: Subtracted, shape (feature,) or ().
        scale: Multiplies what is left, shape (feature,) or ().
        clip: Deviations within which it is kept; None if it is not.
        columns: What its numbers are called, if they are columns of a table.
        grid: Height, width and largest value, if its numbers are the pixels of a grey picture.
    """

    what: str
    raw: bool = True
    mean: Tensor = torch.tensor(0.0)
    scale: Tensor = torch.tensor(1.0)
    clip: float | None = None
    columns: tuple[str, ...] = ()
    grid: tuple[int, int, float] | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """What the student reads, shape (example, ...); bytes stay what they are."""
        if not inputs.is_floating_point():
            return inputs
        found = (inputs - self.mean) * self.scale
        return found if self.clip is None else found.clamp(-self.clip, self.clip)

    def undone(self, read: Tensor) -> Tensor:
        """What it may have been done to, from what the student reads of it."""
        if not read.is_floating_point():
            return read
        return torch.where(self.scale > 0, read / self.scale, 0.0) + self.mean


def features_only(config: RunConfig, out: Path) -> Before:
    """What recipes have whose examples something else has to make numbers of."""
    del config, out
    return Before("features, as the student reads them", raw=False)


ReadAs = Callable[[RunConfig, Path, Path, Report], tuple[tuple[str, ...], Tensor | Unread]]
"""Reads new inputs as a run does: its configuration, its folder of features, the file, reports."""


@dataclass(frozen=True)
class Recipe:
    """One built-in task.

    Attributes:
        name: As on the command line.
        summary: One line.
        needs: Data that must be there, in words.
        defaults: The configuration, before overrides.
        load: Reads and splits the data, keeping what is costly in the folder given, and reports.
        teach: Trains or reads the teachers, and reports; returns their outputs on all examples and,
            for each, its number of parameters and milliseconds per example where known.
        network: Builds the student's network from the configuration, an example input and the
            number of outputs.
        read: Reads new inputs without labels: ids and inputs.
        scenarios: What ``scenario`` may be; empty if the recipe has none.
        read_as: Instead of `read`, for recipes whose inputs depend on the run: takes the
            configuration, the folder that `load` was given, and the file, and reports.
        label: Instead of `teach`, labels into a folder and writes a store of outputs there.
        template: A configuration with comments, for users to start from.
        students: Kinds of students that it has beside ``auto``.
        before: What is done to an example before the student reads it, from the configuration and
            the run directory.
    """

    name: str
    summary: str
    needs: str
    defaults: dict[str, Any]
    load: Callable[[RunConfig, Path, Report], Task]
    network: Callable[[RunConfig, Tensor, int], nn.Module]
    teach: Callable[[RunConfig, Task, Report], tuple[TeacherOutputs, Costs]] | None = None
    read: Callable[[Path], tuple[tuple[str, ...], Tensor]] | None = None
    scenarios: tuple[str, ...] = ()
    read_as: ReadAs | None = None
    label: Callable[[RunConfig, Task, Path, Labelling], Costs] | None = None
    template: str | None = None
    students: tuple[str, ...] = ("mlp",)
    before: Callable[[RunConfig, Path], Before] = features_only


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU in between."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
