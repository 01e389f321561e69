"""Numbers: how far has a patient's diabetes progressed after a year?

The 442 patients of Efron et al. (2004), embedded in scikit-learn. A Gaussian process and a Bayesian
regression tell how sure they are; a forest does not, so its variance is estimated from labels.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task
from mtbkd.app.recipes.common import Rows, ask, divided, mixed, network, reader
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.teachers.sklearn_estimator import from_sklearn
from mtbkd.types import Floats, Report, quiet

TARGETS = ("progression",)
_COLUMNS, _SCALE = 10, 442**-0.5  # the columns are scaled to a sum of squares of 1
_TEACH, _TRANSFER, _LABELLED, _CALIBRATION = 180, 130, 40, 40


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Split the patients by seed."""
    from sklearn.datasets import load_diabetes

    columns, target = load_diabetes(return_X_y=True)
    columns, target = np.asarray(columns) / _SCALE, np.asarray(target, np.float64)
    order = np.random.default_rng([config.seed, 0]).permutation(len(target))
    ends = np.cumsum([_TEACH, _TRANSFER, _CALIBRATION])
    teach, transfer, calibration, test = np.split(order, ends)
    everyone = make_dataset(
        columns,
        labels=target,
        classes=TARGETS,
        ids=[f"patient-{i:03d}" for i in range(len(target))],
        family="regression",
    )
    judged = everyone.subset(test)
    return Task(
        name="diabetes",
        train=everyone.subset(transfer).without_labels(np.arange(_LABELLED, _TRANSFER)),
        calibration=everyone.subset(calibration),
        test=judged,
        teacher_data=Rows(columns[teach], target[teach]),
        drawn=lambda row: draw(columns[test[row]]),
        others=mixed(judged, config.seed),
    )


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Fit a Gaussian process, a Bayesian linear regression and a random forest."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.linear_model import BayesianRidge

    seed, (columns, target) = config.seed, task.teacher_data
    kernel = ConstantKernel(1.0) * RBF(5.0) + WhiteKernel(1.0)
    models: dict[str, Any] = {
        "Gaussian process": GaussianProcessRegressor(
            kernel, normalize_y=True, random_state=seed, n_restarts_optimizer=2
        ),
        "Bayesian regression": BayesianRidge(),
        "random forest": RandomForestRegressor(200, min_samples_leaf=5, random_state=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a kernel at its bounds
        for model in models.values():
            model.fit(columns, target)
    teachers = [from_sklearn(name, model, classes=TARGETS) for name, model in models.items()]
    return ask(teachers, task)


def draw(columns: Floats) -> str:
    """A patient's most unusual columns."""
    names = ("age", "sex", "bmi", "blood pressure", "s1", "s2", "s3", "s4", "s5", "s6")
    unusual = np.argsort(-np.abs(columns), kind="stable")[:3]
    return "<br>".join(f"<code>{names[i]} {columns[i]:+.1f} sd</code>" for i in unusual)


RECIPE = Recipe(
    name="diabetes",
    summary="How far has a disease progressed? Numbers; teachers with and without variances.",
    needs="nothing (embedded in scikit-learn)",
    defaults={
        "recipe": "diabetes",
        "prior": {"concentration": 1.0, "power": 10.0, "discount": 0.0},
        "student": {"hidden": [16], "weight_scale": 1.0},
        "map": {"epochs": 100, "batch_size": 32},
        "sampler": {"burn_in": 2000, "draws": 100, "thinning": 50, "batch_size": 130},
        "chains": 4,
    },
    load=load,
    teach=teach,
    network=network,
    read=reader(_COLUMNS, "patients", unit=_SCALE),
    before=divided(f"{_COLUMNS} numbers of a patient, as scikit-learn has them", _SCALE),
)
