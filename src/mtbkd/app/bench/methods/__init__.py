"""Every method of the comparison, by name; ours is the one that others are compared with."""

from __future__ import annotations

from mtbkd.app.bench.methods import (
    ae_kd,
    ca_mkd,
    crowds,
    dropout,
    estimators,
    gaussians,
    lessons,
    posteriors,
)
from mtbkd.app.bench.methods.base import CLASSES_ONLY, Method, student
from mtbkd.app.bench.students import Training

OURS = "ours"

METHODS: dict[str, Method] = {
    "labels": Method(
        "labels only, training and calibration ones",
        student(Training(lessons.labels_only, 8, from_teachers=False)),
        pool=False,
    ),
    "best": Method(
        "KD from the best teacher alone", student(Training(lessons.best_teacher)), 0.02, pool=False
    ),
    "averaged": Method(
        "averaged KD, ensemble of 8", student(Training(lessons.averaged, 8)), pool=False
    ),
    "ebkd": Method(
        "entropy-weighted KD (EBKD), ensemble of 8",
        student(Training(lessons.by_entropy, 8)),
        pool=False,
    ),
    "pool": Method("stacked pool, then KD: one network", student(Training(lessons.stacked)), 0.02),
    "pool-8": Method("stacked pool, ensemble of 8", student(Training(lessons.stacked, 8))),
    "pool-8-t": Method(
        "stacked pool, ensemble of 8, with a temperature",
        student(Training(lessons.stacked, 8, temperature=True)),
    ),
    "pseudo": Method(
        "stacked pool's most probable class as a label, ensemble of 8",
        student(Training(lessons.pseudo_labels, 8, from_teachers=False)),
        families=CLASSES_ONLY,
    ),
    "ca-mkd": Method(
        "CA-MKD, ensemble of 8",
        student(Training(ca_mkd.lesson, 8)),
        families=CLASSES_ONLY,
        pool=False,
    ),
    "ae-kd": Method(
        "AE-KD (min-norm gradients), one network",
        student(Training(ae_kd.lesson, search=ae_kd.search)),
        families=CLASSES_ONLY,
        pool=False,
    ),
    "dawid-skene": Method(
        "Dawid-Skene on the teachers' votes, ensemble of 8",
        student(Training(crowds.dawid_skene, 8)),
        families=CLASSES_ONLY,
        pool=False,
        needs=("crowdkit", crowds.EXTRA),
    ),
    "crowdlab": Method(
        "CROWDLAB on the teachers' votes, ensemble of 8",
        student(Training(crowds.crowdlab, 8, from_teachers=False)),
        families=CLASSES_ONLY,
        pool=False,
        needs=("cleanlab", crowds.EXTRA),
    ),
    "dropout": Method(
        "stacked pool, MC dropout",
        student(Training(lessons.stacked, search=dropout.search, draws=dropout.draws)),
    ),
    "laplace": Method(
        "stacked pool, last-layer Laplace",
        student(Training(lessons.stacked, draws=gaussians.laplace)),
    ),
    "swag": Method("stacked pool, SWAG", student(Training(lessons.stacked, draws=gaussians.swag))),
    "logistic": Method(
        "logistic regression on labels",
        estimators.estimator(estimators.logistic),
        families=CLASSES_ONLY,
        pool=False,
    ),
    "boosting": Method(
        "gradient boosting on labels",
        estimators.estimator(estimators.boosting),
        families=CLASSES_ONLY,
        pool=False,
    ),
    "bkd": Method(
        "single-teacher BKD, the best teacher", posteriors.whole(posteriors.best_alone), 1.0
    ),
    "pool-bayes": Method(
        "posterior on the stacked pool, no mixture", posteriors.whole(posteriors.pool_alone), 1.0
    ),
    "paper": Method("MT-BKD, the paper's prior", posteriors.whole(posteriors.paper), 1.0),
    OURS: Method("ours", posteriors.whole(posteriors.everyone), 1.0, OURS),
    "ours-8": Method("ours, 8 draws", posteriors.few, 0.05, OURS),
    "ours-modes": Method("ours, its modes alone", posteriors.modes, 0.01, OURS),
}
