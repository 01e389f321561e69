"""Handwritten digits from two sources, each with a teacher that is an expert there.

Every second image of scikit-learn's digits is as it is; the others went through another scanner:
light and dark exchanged, blurred, with noise. Two teachers have seen one source each and are sure
of themselves on the other as well; a third has seen few images of both. The student's 600 images
are of both sources, 100 of them labelled; 97 more calibrate and 500 test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes import digits
from mtbkd.app.recipes.base import Costs, Recipe, Sources, Task
from mtbkd.app.recipes.common import Rows, ask, divided, network, picture, reader
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.teachers.sklearn_estimator import from_sklearn
from mtbkd.types import Bools, Report, quiet

SOURCES = ("scanner", "negative")
Images = NDArray[np.floating]
_SIDE, _BLUR, _NOISE, _FEW = 8, 0.5, 0.05, 120


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """The splits of the recipe digits, every second image seen as a negative."""
    task = digits.load(config, folder, report)
    chance = np.random.default_rng([config.seed, 3])
    rows = task.teacher_data
    taught = np.arange(len(rows.labels)) % 2 == 1
    parts = {}
    for name in ("train", "calibration", "test"):
        data = getattr(task, name)
        images = data.inputs.numpy()
        seen = through(images, np.arange(len(images)) % 2 == 1, chance)
        parts[name] = replace(data, inputs=data.inputs.new_tensor(seen))
    shown = parts["test"].inputs.numpy()
    names = {n: tuple(SOURCES[i % 2] for i in range(len(parts[n]))) for n in parts}
    return replace(
        task,
        **parts,
        name="two-sources",
        teacher_data=(Rows(through(rows.inputs, taught, chance), rows.labels), taught),
        drawn=lambda row: picture(shown[row], _SIDE, "image of a digit"),
        sources=Sources(names["calibration"], names["test"]),
    )


def through(images: Images, other: Bools, chance: np.random.Generator) -> Images:
    """Images, (example, pixel) in 0-1, of which these are seen by the second scanner."""
    from scipy.ndimage import gaussian_filter

    square = images.reshape(-1, _SIDE, _SIDE)
    blurred = gaussian_filter(square, (0, _BLUR, _BLUR))
    negative = 1 - blurred + _NOISE * chance.standard_normal(square.shape)
    seen = np.where(other[:, None, None], negative.clip(0, 1), square)
    return np.asarray(seen.reshape(images.shape), np.float32)


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Train extra trees on one source, a support vector classifier on the other, a few on both."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    rows, second = task.teacher_data
    models: dict[str, tuple[Any, Any]] = {
        f"extra trees, {SOURCES[0]}": (
            ExtraTreesClassifier(200, random_state=config.seed),
            ~second,
        ),
        f"support vectors, {SOURCES[1]}": (SVC(C=10.0), second),
        "regression on few": (LogisticRegression(max_iter=2000), np.arange(len(second)) < _FEW),
    }
    teachers = [
        from_sklearn(name, model.fit(rows.inputs[own], rows.labels[own]), classes=digits.CLASSES)
        for name, (model, own) in models.items()
    ]
    return ask(teachers, task)


RECIPE = Recipe(
    name="two-sources",
    summary="Handwritten digits from two scanners; a teacher is an expert on each.",
    needs="nothing (embedded in scikit-learn)",
    defaults=digits.RECIPE.defaults | {"recipe": "two-sources"},
    load=load,
    teach=teach,
    network=network,
    read=reader(_SIDE**2, "images", unit=16),
    before=divided("64 pixels, row by row, from 0 to 16", 16.0),
)
