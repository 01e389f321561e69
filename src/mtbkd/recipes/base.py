"""What a recipe is: the only place where data, teachers and a network come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtbkd.config import RunConfig
from mtbkd.data import Dataset
from mtbkd.outputs import TeacherOutputs


@dataclass(frozen=True)
class Task:
    """The data of a recipe, split.

    Attributes:
        name: Of the task.
        train: What the student learns from; labels may be missing.
        calibration: Labelled examples for weights and concentration.
        test: What everything is judged on.
        teacher_data: Whatever the recipe's teachers are trained on.
        drawn: Test example to markup that shows it, by position.
    """

    name: str
    train: Dataset
    calibration: Dataset
    test: Dataset
    teacher_data: Any
    drawn: Callable[[int], str]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all examples that teachers are asked about."""
        return self.train.ids + self.calibration.ids + self.test.ids


@dataclass(frozen=True)
class Recipe:
    """One built-in task.

    Attributes:
        name: As on the command line.
        summary: One line.
        needs: Data that must be there, in words.
        defaults: The configuration, before overrides.
        load: Reads and splits the data, keeping what is costly in the folder given.
        teach: Trains or reads the teachers; returns their outputs on all examples and, for each,
            its number of parameters and milliseconds per example where known.
        network: Builds the student's network from the configuration, an example input and the
            number of outputs.
        read: Reads new inputs without labels: ids and inputs.
        scenarios: What ``scenario`` may be; empty if the recipe has none.
    """

    name: str
    summary: str
    needs: str
    defaults: dict[str, Any]
    load: Callable[[RunConfig, Path], Task]
    teach: Callable[[RunConfig, Task], tuple[TeacherOutputs, dict[str, dict[str, float]]]]
    network: Callable[[RunConfig, Tensor, int], nn.Module]
    read: Callable[[Path], tuple[tuple[str, ...], Tensor]]
    scenarios: tuple[str, ...] = ()


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU in between."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
