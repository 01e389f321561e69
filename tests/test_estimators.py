"""The scikit-learn estimators: scikit-learn's own checks, teachers of every sort, faults."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import estimator_checks_generator

import mtbkd
from mtbkd.estimators import DistilledClassifier, DistilledRegressor

QUICK = {"hidden": (8,), "chains": 1, "mode_steps": 100, "burn_in": 50, "draws": 4, "thinning": 5}
QUICK |= {"random_state": 0}
CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}")
    for made in (DistilledClassifier(**QUICK), DistilledRegressor(**QUICK))
    for estimator, check in estimator_checks_generator(made)
    if check.func.__name__ != "check_array_api_input"  # skipped unless SCIPY_ARRAY_API is set
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    """Four overlapping classes of two inputs; 200 rows teach, 300 are the student's, 400 test."""
    x, y = make_blobs(900, centers=[(-2, -2), (-2, 2), (2, -2), (2, 2)], random_state=0)
    names = np.array(["north", "east", "south", "west"])[y]
    parts = [(x[a:b], names[a:b]) for a, b in ((0, 200), (200, 500), (500, 900))]
    return SimpleNamespace(teach=parts[0], train=parts[1], test=parts[2])


def few_labels(y, n):
    labels = y.astype(object)
    labels[n:] = None
    return labels


def test_unlabelled_rows_help_where_a_teacher_speaks(blobs):
    (tx, ty), (x, y), (vx, vy) = blobs.teach, blobs.train, blobs.test
    labels = few_labels(y, 20)
    alone = DistilledClassifier(**QUICK).fit(x, labels)
    teacher = LogisticRegression().fit(tx, ty)
    taught = DistilledClassifier(**QUICK).fit(x, labels, teachers=[teacher])
    labelled = DistilledClassifier(**QUICK).fit(x[:20], labels[:20], teachers=[teacher])
    losses = [log_loss(vy, s.predict_proba(vx)) for s in (taught, labelled, alone)]
    assert losses[0] < losses[1] - 0.05
    assert losses[0] < losses[2] - 0.1
    assert taught.score(vx, vy) > 0.92


def test_classifiers_that_know_some_classes_teach_these(blobs):
    (tx, ty), (x, y), (vx, vy) = blobs.teach, blobs.train, blobs.test
    known = np.isin(ty, ["north", "east"])
    partial = LogisticRegression().fit(tx[known], ty[known])
    labels = few_labels(y, 60)
    labels[np.isin(y, ["north", "east"])] = None
    labels[:8] = y[:8]
    alone = DistilledClassifier(**QUICK).fit(x, labels)
    taught = DistilledClassifier(**QUICK).fit(x, labels, teachers={"partial": partial})
    assert taught.classes_.tolist() == ["east", "north", "south", "west"]
    between = np.isin(vy, ["north", "east"])

    def right(student):
        probs = student.predict_proba(vx[between])[:, :2]
        return (student.classes_[:2][probs.argmax(1)] == vy[between]).mean()

    assert right(taught) >= right(alone)
    assert right(taught) >= partial.score(vx[between], vy[between]) > 0.94
    # the labels set aside show none of its classes, so they do not choose how much it counts
    assert taught.posterior_.prior.power == 5.0
    assert taught.posterior_.prior.discount == 0.0
    unseen = few_labels(y, 60)
    unseen[y == "north"] = None
    student = DistilledClassifier(**QUICK).fit(x, unseen, teachers=[partial])
    assert "north" in student.classes_


def test_the_power_is_chosen_by_labels_and_the_better_teacher_weighs_more(blobs):
    (tx, ty), (x, y), _ = blobs.teach, blobs.train, blobs.test
    good = LogisticRegression().fit(tx, ty)
    wrong = {n: n2 for n, n2 in zip(good.classes_, np.roll(good.classes_, 1), strict=True)}
    bad = LogisticRegression().fit(tx, [wrong[label] for label in ty])
    fit = {"y": few_labels(y, 60), "teachers": {"good": good, "bad": bad}}
    trusted = DistilledClassifier(**QUICK).fit(x, **fit)
    assert trusted.teacher_weights_["good"] > 0.8
    assert trusted.teacher_weights_["bad"] < 0.1
    assert trusted.posterior_.weighting.rule == "stacked"
    seen = DistilledClassifier(**QUICK).fit(x, **fit, held_out=False)
    assert seen.posterior_.weighting.rule == "entropy"
    assert seen.posterior_.prior.power == 5.0
    one_teacher = {"good": good}
    chosen = {
        DistilledClassifier(**QUICK, calibration_fraction=share)
        .fit(x, fit["y"], teachers=one_teacher)
        .posterior_.prior.power
        for share in (0.0, 0.5)
    }
    assert 5.0 in chosen
    assert len(chosen) == 2


def test_every_sort_of_teacher_is_held_out_only_if_it_says_so(blobs):
    (tx, ty), (x, y), _ = blobs.teach, blobs.train, blobs.test
    model = LogisticRegression().fit(tx, ty)
    said = {"name": "t", "kind": "probs", "classes": model.classes_, "predict": model.predict_proba}
    for teacher in (model, model.predict_proba, model.predict_proba(x), SimpleNamespace(**said)):
        for held_out, rule in ((True, "stacked"), (False, "entropy")):
            student = DistilledClassifier(**QUICK).fit(x, y, teachers=[teacher], held_out=held_out)
            assert student.posterior_.weighting.rule == rule
    own = SimpleNamespace(**said, held_out=False)
    student = DistilledClassifier(**QUICK).fit(x, y, teachers=[own])
    assert student.posterior_.weighting.rule == "entropy"


def test_units_and_zeros_of_inputs_do_not_matter(blobs):
    (x, y), (vx, _) = blobs.train, blobs.test
    wide = [np.column_stack([1e6 + 1e3 * part, np.full(len(part), 7.0)]) for part in (x, vx)]
    plain = [np.column_stack([part, np.zeros(len(part))]) for part in (x, vx)]
    student = DistilledClassifier(**QUICK).fit(wide[0], y)
    np.testing.assert_allclose(student.input_mean_, [*(1e6 + 1e3 * x.mean(0)), 7.0])
    np.testing.assert_allclose(student.input_scale_, [*(1e3 * x.std(0)), 1.0])
    other = DistilledClassifier(**QUICK).fit(plain[0], y).predict_proba(plain[1])
    np.testing.assert_allclose(student.predict_proba(wide[1]), other, atol=1e-2)


def test_all_sorts_of_teachers_say_the_same(blobs):
    (tx, ty), (x, _), (vx, _) = blobs.teach, blobs.train, blobs.test
    model = LogisticRegression().fit(tx, ty)
    names = model.classes_.tolist()
    probs = model.predict_proba(x)
    ids = [f"row {i}" for i in range(len(x))]
    table = mtbkd.make_table("t", probs, kind="probs", ids=ids, classes=names)
    backwards = mtbkd.make_table("t", probs[::-1], kind="probs", ids=ids[::-1], classes=names)
    reversed_classes = SimpleNamespace(
        name="t",
        kind="probs",
        classes=names[::-1],
        predict=lambda z: model.predict_proba(z)[:, ::-1],
    )
    nothing = np.full(len(x), None)
    sorts = [
        ({"teachers": [model]}, {}),
        ({"teachers": {"t": model.predict_proba}}, {}),
        ({"teachers": [probs]}, {}),
        ({"teachers": [reversed_classes]}, {}),
        ({"teachers": [table]}, {}),
        ({"teachers": [backwards]}, {"ids": ids}),
        ({"teachers": mtbkd.align([table], tuple(ids), tuple(names))}, {"ids": ids}),
        ({"teachers": mtbkd.align([table], tuple(ids), tuple(names))}, {}),
    ]
    answers = [
        DistilledClassifier(**QUICK).fit(x, nothing, classes=names, **a, **b).predict_proba(vx)
        for a, b in sorts
    ]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)
    assert np.abs(answers[0] - model.predict_proba(vx)).mean() < 0.1


def test_minus_one_is_a_class_and_labels_with_nan_match_whole_numbers(blobs):
    (tx, ty), (x, y), (vx, vy) = blobs.teach, blobs.train, blobs.test
    number = {"north": -1, "east": 1, "south": 2, "west": 3}
    to_numbers = np.vectorize(number.get)
    teacher = LogisticRegression().fit(tx, to_numbers(ty))
    labels = to_numbers(y).astype(float)
    labels[20:] = np.nan
    student = DistilledClassifier(**QUICK).fit(x, labels, teachers=[teacher])
    assert student.classes_.tolist() == [-1, 1, 2, 3]
    words = [*y[:20], *[float("nan")] * 280]
    assert DistilledClassifier(**QUICK).fit(x, words).classes_.tolist() == sorted(number)
    assert student.score(vx, to_numbers(vy)) > 0.9


def test_pipeline_clone_pickle_and_seeds(blobs):
    (tx, ty), (x, y), (vx, _) = blobs.teach, blobs.train, blobs.test
    scaler = StandardScaler().fit(x)
    teacher = LogisticRegression().fit(scaler.transform(tx), ty)
    fit = {"y": few_labels(y, 20), "distilledclassifier__teachers": [teacher]}
    pipe = make_pipeline(StandardScaler(), DistilledClassifier(**QUICK))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = pipe.fit(x, **fit).predict_proba(vx)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    np.testing.assert_array_equal(clone(pipe).fit(x, **fit).predict_proba(vx), first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipe)).predict_proba(vx), first)
    other = clone(pipe).set_params(distilledclassifier__random_state=1)
    assert np.abs(other.fit(x, **fit).predict_proba(vx) - first).max() > 1e-3


def test_cross_validation_asks_estimators_and_tables_with_ids_but_refuses_arrays(blobs):
    (tx, ty), (x, y), _ = blobs.teach, blobs.train, blobs.test
    teacher = LogisticRegression().fit(tx, ty)
    student = DistilledClassifier(**QUICK)
    ids = [f"row {i}" for i in range(len(x))]
    probs = teacher.predict_proba(x)
    table = mtbkd.make_table("t", probs, kind="probs", ids=ids, classes=teacher.classes_)
    for params in (
        {"teachers": [teacher, teacher.predict_proba]},
        {"teachers": [table], "ids": ids},
    ):
        assert cross_val_score(student, x, y, cv=2, params=params).min() > 0.9
    message = r"Expected 150 rows from teacher '0: ndarray', one for each row of X, but got 300\."
    with pytest.raises(mtbkd.InputError, match=message):
        cross_val_score(student, x, y, cv=2, params={"teachers": [probs]}, error_score="raise")


def test_uncertainty_of_classes_adds_up_and_grows_far_away(blobs):
    x, y = blobs.train
    student = DistilledClassifier(**QUICK | {"chains": 4}).fit(x, y)
    doubt = student.predict_uncertainty([[-2.0, -2.0], [0.0, 0.0]])
    np.testing.assert_allclose(doubt["total"], doubt["aleatoric"] + doubt["epistemic"])
    assert doubt["total"][1] > doubt["total"][0] + 0.3
    lower, upper = student.predict_interval(x, level=0.8)
    probs = student.predict_proba(x)
    assert ((lower <= probs + 1e-9) & (probs <= upper + 1e-9)).mean() > 0.9
    np.testing.assert_allclose(np.exp(student.predict_log_proba(x)), probs)
    modes = clone(student).set_params(point="mode").fit(x, y).predict_proba(x)
    np.testing.assert_allclose(modes.sum(1), 1)
    with pytest.raises(mtbkd.InputError, match=r"level between 0 and 1, but got 90\."):
        student.predict_interval(x, level=90)


def test_data_frames_keep_their_names_for_student_and_teachers(blobs):
    pandas = pytest.importorskip("pandas")
    (tx, ty), (x, y), _ = blobs.teach, blobs.train, blobs.test
    frame = pandas.DataFrame(x, columns=["width", "height"])
    teacher = LogisticRegression().fit(pandas.DataFrame(tx, columns=frame.columns), ty)
    labels = pandas.Series(y).where(pandas.Series(range(len(y))) < 20)
    student = DistilledClassifier(**QUICK).fit(frame, labels, teachers=[teacher])
    assert student.feature_names_in_.tolist() == ["width", "height"]
    assert student.score(frame, y) > 0.9


@pytest.fixture(scope="module")
def curve():
    """A sine of one input and its negative, 300 rows, noise of deviation 0.3."""
    chance = np.random.default_rng(0)
    x = chance.uniform(-2, 2, (300, 1))
    clean = np.column_stack([np.sin(2 * x[:, 0]), -np.sin(2 * x[:, 0])])
    return SimpleNamespace(x=x, y=clean + 0.3 * chance.standard_normal(clean.shape), clean=clean)


@pytest.mark.slow
def test_a_teacher_of_numbers_helps_where_labels_are_missing(curve):
    x, y, truth = curve.x, curve.y[:, 0], curve.clean[:, 0]
    settings = QUICK | {"hidden": (16,), "mode_steps": 400, "chains": 2}
    process = GaussianProcessRegressor(RBF() + WhiteKernel(), random_state=0).fit(x[150:], y[150:])
    labels = np.where(np.arange(300) < 20, y, np.nan)[:150]
    alone = DistilledRegressor(**settings).fit(x[:150], labels)
    errors = {"alone": np.square(alone.predict(x) - truth).mean()}
    calls = {
        "estimator": process,
        "pipeline": make_pipeline(FunctionTransformer(), process),
        "function": lambda z: (process.predict(z), process.predict(z, return_std=True)[1] ** 2),
        "array": (process.predict(x[:150]), process.predict(x[:150], return_std=True)[1] ** 2),
    }
    answers = {}
    for name, teacher in calls.items():
        taught = DistilledRegressor(**settings).fit(x[:150], labels, teachers=[teacher])
        answers[name] = taught.predict(x)
        errors[name] = np.square(answers[name] - truth).mean()
        assert errors[name] < 0.6 * errors["alone"], errors
    np.testing.assert_allclose(answers["array"], answers["estimator"], atol=1e-4)
    np.testing.assert_allclose(answers["function"], answers["estimator"], atol=1e-4)
    plain = DistilledRegressor(**settings).fit(
        x[:150], labels, teachers={"means": lambda z: process.predict(z)}
    )
    assert plain.teacher_weights_ == pytest.approx({"means": 1.0}, abs=0.2)
    assert np.square(plain.predict(x) - truth).mean() < 0.6 * errors["alone"]


def test_numbers_have_deviations_and_intervals(curve):
    student = DistilledRegressor(**QUICK | {"mode_steps": 500, "weight_scale": 3.0})
    student.fit(curve.x, curve.y[:, 0])
    mean, deviation = student.predict(curve.x, return_std=True)
    assert mean.shape == deviation.shape == (300,)
    assert 0.2 < deviation.mean() < 0.45
    doubt = student.predict_uncertainty(curve.x, level=0.5)
    np.testing.assert_allclose(doubt["total"], deviation)
    np.testing.assert_allclose(
        doubt["total"] ** 2, doubt["aleatoric"] ** 2 + doubt["epistemic"] ** 2
    )
    lower, upper = student.predict_interval(curve.x, level=0.5)
    np.testing.assert_array_equal(lower, doubt["lower"])
    inside = (lower < curve.y[:, 0]) & (curve.y[:, 0] < upper)
    assert 0.4 < inside.mean() < 0.62


def test_several_targets(curve):
    student = DistilledRegressor(**QUICK | {"mode_steps": 500})
    student.fit(curve.x, curve.y, teachers=[LinearRegression().fit(curve.x, curve.y)])
    assert student.posterior_.classes == ("y0", "y1")
    mean, deviation = student.predict(curve.x, return_std=True)
    assert mean.shape == deviation.shape == (300, 2)
    assert np.corrcoef(mean[:, 0], mean[:, 1])[0, 1] < -0.9
    named = clone(student).fit(curve.x, curve.y, targets=["up", "down"])
    assert named.posterior_.classes == ("up", "down")


@pytest.mark.parametrize("engine", ["hmc", "sghmc", "laplace", "ensemble"])
def test_linear_students_and_other_engines(blobs, engine):
    (x, y), (vx, vy) = blobs.train, blobs.test
    student = DistilledClassifier(**QUICK | {"hidden": (), "engine": engine, "chains": 2})
    assert student.fit(x, y).score(vx, vy) > 0.9


def test_settings_are_refused_all_at_once(blobs):
    bad = DistilledClassifier(
        hidden=(0,), chains=0, power="much", calibration_fraction=1, weights="mine", point="median"
    )
    with pytest.raises(mtbkd.InputError) as caught:
        bad.fit(*blobs.train)
    assert caught.value.faults == (
        "Expected hidden to be a tuple of layer sizes above 0, but got (0,). Give (64,), or () for "
        "none.",
        "Expected chains to be a whole number above 0, but got 0. Raise it.",
        "Expected power to be 'auto' or a number above 0, but got 'much'. Give one of these.",
        "Expected calibration_fraction to be from 0 up to, but not including, 1, but got 1. Give "
        "0.2, say.",
        "Expected weights to be one of auto, uniform, entropy, stacked, but got 'mine'. Choose one "
        "of them.",
        "Expected point to be one of mean, mode, but got 'median'. Choose one of them.",
    )


NINE = np.where(np.arange(300) < 9, np.arange(300.0), np.nan)


def broken(inputs):
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": LogisticRegression()}, "teachers as a list, a dict by name or TeacherOutp"),
        ({"teachers": []}, "but got none in it. Put them into a list, or pass None"),
        (
            {"teachers": [LogisticRegression()]},
            "fitted classifier of one label for teacher '0: Log",
        ),
        ({"teachers": {"v": SVC()}}, "Expected predict_proba of teacher 'v', but got SVC without"),
        ({"teachers": [broken]}, "from teacher '0: broken', but got RuntimeError: out of order"),
        ({"teachers": [lambda x: np.ones((len(x), 4))]}, "to be distributions, but got sum 4"),
        ({"teachers": [lambda x: np.ones((len(x), 1))]}, "300 rows and 4 columns from teacher"),
        ({"ids": ["a"]}, "Expected 300 ids, one for each row of X, but got 1"),
        ({"classes": ["north"]}, "two classes or more, but got 1 class, 'north'"),
        ({"classes": ["north", "east"]}, r"among the 2 classes, but got '(south|west)'"),
        ({"y": np.full(300, "north")}, "two classes or more, but got 1 class, 'north'"),
        ({"y": ["north", 1] * 150}, "class labels of one kind, but got 'north' and 1"),
        ({"y": np.array(["a", 1] * 150, dtype=object)}, "one kind, but got 'a' and 1"),
        ({"y": np.full(300, None), "classes": ["a", "b"]}, "a label in y, or teachers, but got n"),
        ({"y": np.where(np.arange(300) < 9, np.inf, 1)}, "of classes, but got infinity"),
    ],
)
def test_faults_of_classifiers(blobs, change, message):
    x, y = blobs.train
    with pytest.raises(ValueError, match=message):
        DistilledClassifier(**QUICK).fit(x, **{"y": y} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": [LinearRegression()]}, "Expected a fitted teacher '0: LinearRegression'"),
        ({"teachers": [(0, 0, 0)]}, "a tuple .mean, variance., from teacher '0: tuple', but got 3"),
        ({"teachers": [(np.ones(300), np.zeros(300))]}, "Expected variances of teacher '0: tuple'"),
        ({"y": np.full(300, np.nan)}, "a label in y, or teachers, but got neither"),
        ({"y": np.full(300, 2.0)}, "labels of the target 'y' that differ"),
        ({"teachers": [lambda x: x], "y": NINE}, "10 labels or more to estimate the variance of"),
        ({"targets": ["a", "b"]}, "Expected 1 names of targets, but got 2"),
    ],
)
def test_faults_of_regressors(curve, change, message):
    with pytest.raises(mtbkd.InputError, match=message):
        DistilledRegressor(**QUICK).fit(curve.x, **{"y": curve.y[:, 0]} | change)
