"""What makes work hard: bad teachers, bad labels, few of either; and inputs of another kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.app.recipes.base import Task
from mtbkd.data import Dataset
from mtbkd.outputs.aligned import TeacherOutputs

NONE = "none"
SEVERITIES = range(1, 6)
_WRONG, _FEW, _SHARE = 0.2, 20, 0.1
_GOOD, _TEACHERS = 2, 10
_PALE = 0.6  # contrast of images from another source

Images = NDArray[np.floating]
Stressed = tuple[Task, TeacherOutputs]
Stress = Callable[[Task, TeacherOutputs, torch.Generator], Stressed]


def noise(task: Task, teachers: TeacherOutputs, chance: torch.Generator) -> Stressed:
    """The last teacher answers about other examples, as surely as before."""
    order = torch.randperm(len(teachers.ids), generator=chance)
    values, mask = teachers.values.clone(), teachers.mask.clone()
    values[-1], mask[-1] = values[-1][order], mask[-1][order]
    return task, replace(teachers, values=values, mask=mask)


def lies(task: Task, teachers: TeacherOutputs, chance: torch.Generator) -> Stressed:
    """The last teacher names the next class, the opposite label, or a number beyond its mean."""
    del chance
    values = teachers.values.clone()
    values[-1] = _lie(teachers, values[-1])
    return task, replace(teachers, values=values)


def wrong_labels(task: Task, teachers: TeacherOutputs, chance: torch.Generator) -> Stressed:
    """A fifth of all labels is wrong, of calibration too: another class, or another example's."""

    def spoilt(data: Dataset) -> Dataset:
        wrong = data.known & (torch.rand(len(data), generator=chance) < _WRONG)
        rows = wrong.nonzero()[:, 0]
        labels = data.labels.clone()
        if data.outcome.exclusive:
            steps = torch.randint(1, len(data.classes), (len(rows),), generator=chance)
            labels[rows] = (labels[rows] + steps) % len(data.classes)
        else:
            labels[rows] = labels[rows[torch.randperm(len(rows), generator=chance)]]
        return replace(data, labels=labels)

    return replace(task, train=spoilt(task.train), calibration=spoilt(task.calibration)), teachers


def few_labels(task: Task, teachers: TeacherOutputs, chance: torch.Generator) -> Stressed:
    """Twenty of the training examples keep their label; calibration examples keep theirs."""
    known = task.train.known.nonzero()[:, 0]
    order = torch.randperm(len(known), generator=chance)
    return replace(task, train=task.train.without_labels(known[order[_FEW:]])), teachers


def few_rows(task: Task, teachers: TeacherOutputs, chance: torch.Generator) -> Stressed:
    """A tenth of the training examples is left."""
    order = torch.randperm(len(task.train), generator=chance)
    kept = order[: max(1, round(_SHARE * len(order)))].sort().values
    return replace(task, train=task.train.subset(kept)), teachers


def ten_teachers(task: Task, teachers: TeacherOutputs, chance: torch.Generator) -> Stressed:
    """The first two of the teachers and eight bad ones, noise and liars in turn."""
    good = range(min(_GOOD, len(teachers.names)))
    names = [teachers.names[k] for k in good]
    values = [teachers.values[k] for k in good]
    mask = [teachers.mask[k] for k in good]
    for number in range(_TEACHERS - len(good)):
        source = number % len(good)
        order = torch.randperm(len(teachers.ids), generator=chance)
        lying = number % 2 == 1
        own = values[source]
        names.append(f"{'liar' if lying else 'noise'} {number // 2 + 1}")
        values.append(_lie(teachers, own) if lying else own[order])
        mask.append(mask[source] if lying else mask[source][order])
    return task, TeacherOutputs(
        names=tuple(names),
        values=torch.stack(values),
        mask=torch.stack(mask),
        ids=teachers.ids,
        classes=teachers.classes,
        held_out=teachers.held_out,
        family=teachers.family,
    )


def half_missing(task: Task, teachers: TeacherOutputs, chance: torch.Generator) -> Stressed:
    """Half of all answers are missing, at random."""
    heard = torch.rand(teachers.mask.shape, generator=chance) < 0.5
    return task, replace(teachers, mask=teachers.mask & heard)


STRESSES: dict[str, Stress] = {
    NONE: lambda task, teachers, chance: (task, teachers),
    "noise": noise,
    "lies": lies,
    "wrong-labels": wrong_labels,
    "20-labels": few_labels,
    "10%-rows": few_rows,
    "ten-teachers": ten_teachers,
    "half-missing": half_missing,
}
"""What is done before anybody learns, by name."""

PLAIN_OUTPUTS = ("lies", "ten-teachers")
"""Those that need teachers who answer about every class."""


def _lie(teachers: TeacherOutputs, values: Tensor) -> Tensor:
    """The opposite of what a teacher says, shape (example, ...), as surely."""
    outcome = teachers.outcome
    if outcome.exclusive:
        return values.roll(1, -1)
    if not outcome.numeric:
        return values.flip(-1)
    mean, log_variance = values.unbind(-1)
    return torch.stack([2 * mean.mean(0) - mean, log_variance], -1)


def shifted(test: Dataset, shape: tuple[int, int] | None, seed: int) -> dict[str, Dataset]:
    """Labelled test examples that something happened to, by what and how badly.

    Args:
        test: Inputs as the student reads them; only real numbers are changed.
        shape: Rows and columns of an image, for what is done to images.
        seed: Seed of the noise.
    """
    inputs = test.inputs
    if not inputs.is_floating_point() or inputs.dim() != 2:
        return {}
    spread = inputs.std(0)
    found = {}
    for severity in SEVERITIES:
        chance = torch.Generator().manual_seed(seed)
        added = 0.2 * severity * spread * torch.randn(inputs.shape, generator=chance)
        found[f"noise {severity}"] = inputs + added
    if shape is not None:
        images = inputs.reshape(-1, *shape).numpy()
        for name, change in (("blur", _blurred), ("rotation", _rotated)):
            for severity in SEVERITIES:
                changed = change(images, severity).reshape(len(images), -1)
                found[f"{name} {severity}"] = torch.from_numpy(np.ascontiguousarray(changed))
        found["another source"] = torch.from_numpy(_sheared(images).reshape(len(images), -1))
    return {name: replace(test, inputs=own.float()) for name, own in found.items()}


def _blurred(images: Images, severity: int) -> Images:
    """By a Gaussian of 0.3 pixels for each step."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(images, (0, 0.3 * severity, 0.3 * severity)))


def _rotated(images: Images, severity: int) -> Images:
    """By 10 degrees for each step, against the clock."""
    from scipy.ndimage import rotate

    return np.asarray(rotate(images, 10 * severity, axes=(2, 1), reshape=False, order=1))


def _sheared(images: Images) -> Images:
    """Slanted writing of less contrast, as of another hand and scanner."""
    from scipy.ndimage import affine_transform

    middle = (images.shape[1] - 1) / 2
    slant = np.array([[1, 0, 0], [0, 1, 0], [0, 0.4, 1]])
    start: Any = (0, 0, -0.4 * middle)
    return _PALE * np.asarray(affine_transform(images, slant, offset=start, order=1))
