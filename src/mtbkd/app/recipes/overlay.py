"""Several labels: which digits are in a picture of two, one partly over the other?

Pictures of 8 x 14 pixels are made of scikit-learn's digits; teachers, student and test never share
a digit's image. Two teachers know half of the labels each, and say so; a third knows all of them
but has seen few pictures.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task
from mtbkd.app.recipes.common import Rows, ask, divided, mixed, network, picture, reader
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.teachers.sklearn_estimator import from_sklearn
from mtbkd.types import Report, quiet

CLASSES = tuple(str(digit) for digit in range(10))
_WIDTH, _SHIFT = 14, 6
_PIXELS = 8 * _WIDTH
# pictures, and the share of the images that they are made of
_SPLITS = {
    "teach": (2500, 0.4),
    "train": (1000, 0.25),
    "calibration": (150, 0.1),
    "test": (600, 0.25),
}
_LABELLED, _FEW = 150, 150


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Make the pictures of each split from images of its own, by seed."""
    from sklearn.datasets import load_digits

    chance = np.random.default_rng([config.seed, 0])
    images, digits = load_digits(return_X_y=True)
    order = chance.permutation(len(digits))
    ends = np.cumsum([round(share * len(order)) for _, share in _SPLITS.values()])[:-1]
    made = {
        name: make_pictures(np.asarray(images)[rows] / 16, np.asarray(digits)[rows], size, chance)
        for (name, (size, _)), rows in zip(_SPLITS.items(), np.split(order, ends), strict=True)
    }
    splits = {
        name: make_dataset(
            pictures.inputs,
            labels=pictures.labels,
            classes=CLASSES,
            ids=[f"{name}-{i:04d}" for i in range(len(pictures.inputs))],
            family="multilabel",
        )
        for name, pictures in made.items()
        if name != "teach"
    }
    unlabelled = chance.permutation(len(splits["train"]))[_LABELLED:]
    return Task(
        name="overlay",
        train=splits["train"].without_labels(unlabelled),
        calibration=splits["calibration"],
        test=splits["test"],
        teacher_data=made["teach"],
        drawn=lambda row: picture(made["test"].inputs[row], _WIDTH, "picture of two digits"),
        others=mixed(splits["test"], config.seed),
        together=np.zeros(_SPLITS["calibration"][0], np.int64),  # they share images
    )


def make_pictures(
    images: NDArray[np.floating], digits: NDArray[np.int64], size: int, chance: np.random.Generator
) -> Rows:
    """Random pairs of images, the second six pixels to the right, the darker pixel on top."""
    pairs = chance.integers(len(images), size=(size, 2))
    left, right = (images[rows].reshape(-1, 8, 8) for rows in pairs.T)
    canvas = np.zeros((size, 8, _WIDTH))
    canvas[:, :, :8] = left
    canvas[:, :, _SHIFT:] = np.maximum(canvas[:, :, _SHIFT:], right)
    labels = np.zeros((size, len(CLASSES)), np.float32)
    np.put_along_axis(labels, digits[pairs], 1.0, 1)
    return Rows(canvas.reshape(size, -1).astype(np.float32), labels)


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Train extra trees on the labels 0-4, a network on 5-9, and another on 150 pictures."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.exceptions import ConvergenceWarning

    seed, pixels, labels = config.seed, task.teacher_data.inputs, task.teacher_data.labels
    trees: Any = ExtraTreesClassifier(200, random_state=seed, min_samples_leaf=2)
    trees.fit(pixels, labels[:, :5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a teacher need not be the best
        half = _network(seed, early_stopping=True).fit(pixels, labels[:, 5:])
        small = _network(seed + 1, early_stopping=False).fit(pixels[:_FEW], labels[:_FEW])
    n_nodes = sum(t.tree_.node_count for t in trees.estimators_)
    teachers = [
        from_sklearn(
            name,
            model,
            classes=classes,
            family="multilabel",
            partial=len(classes) < len(CLASSES),
            parameters=size,
        )
        for name, model, classes, size in (
            ("extra trees 0-4", trees, CLASSES[:5], n_nodes),
            ("network 5-9", half, CLASSES[5:], _size(half)),
            ("network on 150 pictures", small, CLASSES, _size(small)),
        )
    ]
    return ask(teachers, task)


def _network(seed: int, *, early_stopping: bool) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        (64,), alpha=0.1, max_iter=1000, early_stopping=early_stopping, random_state=seed
    )


def _size(model: Any) -> int:
    return sum(part.size for part in (*model.coefs_, *model.intercepts_))


RECIPE = Recipe(
    name="overlay",
    summary="Which digits are in a picture of two? Several labels, and teachers of half of them.",
    needs="nothing (made of scikit-learn's digits)",
    defaults={
        "recipe": "overlay",
        "prior": {"concentration": 1.0, "power": 5.0, "discount": 0.0},
        "student": {"hidden": [48], "weight_scale": 2.0},
        "map": {"epochs": 60},
        "sampler": {"burn_in": 1000, "draws": 50, "thinning": 60, "batch_size": 500},
        "chains": 4,
    },
    load=load,
    teach=teach,
    network=network,
    read=reader(_PIXELS, "pictures"),
    before=divided(f"{_PIXELS} pixels, row by row, from 0 to 1", size=(8, _WIDTH)),
)
