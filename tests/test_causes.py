"""Why an answer is uncertain, on examples where it is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from mtbkd import MapSettings, PriorSettings, SamplerSettings, align, distill, make_dataset
from mtbkd.explain.causes import (
    AMBIGUOUS,
    DISPUTED,
    KNOWN,
    OUTSIDE,
    RARE,
    _told,
    find_causes,
    load_background,
    make_background,
    save_background,
)
from mtbkd.explain.influence import dissent
from mtbkd.explain.labels import label_thresholds, odds_of_all, together
from mtbkd.explain.outside import Groups, Seen, see
from mtbkd.explain.promise import answer_file, judge_file
from mtbkd.explain.shift import compared
from mtbkd.files import save_tensors
from mtbkd.outputs.aligned import make_table
from mtbkd.predictive import LabelPredictive, NumberPredictive, Predictive
from mtbkd.types import InputError
from mtbkd.weights.rules import Weighting

CLASSES = ("a", "b", "c")
# left: easy; upper right: the teachers disagree; lower right: both know, but labels are not
# told apart by the student's inputs; middle: nobody knows
PLACES = {"easy": (-4.0, 0.0), "disputed": (4.0, 4.0), "known": (4.0, -4.0), "nobody": (0.0, 8.0)}


def _world(n, seed):
    chance = np.random.default_rng(seed)
    names = list(PLACES)
    place = chance.integers(len(names), size=n)
    points = np.array([PLACES[m] for m in names])[place] + chance.normal(0, 0.5, (n, 2))
    labels = np.where(place == 0, 0, chance.integers(3, size=n))
    first, second = np.full((n, 3), 1 / 3), np.full((n, 3), 1 / 3)
    for rows, one, other in (
        (place == 0, [0.98, 0.01, 0.01], [0.98, 0.01, 0.01]),
        (place == 1, [0.0, 0.9, 0.1], [0.0, 0.1, 0.9]),
    ):
        first[rows], second[rows] = one, other
    sure = 0.9 * np.eye(3)[labels] + 0.1 / 3
    for table in (first, second):
        table[place == 2] = sure[place == 2]
    return points.astype(np.float32), labels, first, second, np.array(names)[place]


@pytest.fixture(scope="module")
def world():
    points, labels, first, second, place = _world(900, 0)
    ids = [f"e{i}" for i in range(900)]
    data = make_dataset(points, labels=labels, classes=CLASSES, ids=ids)
    tables = [
        make_table(name, values, kind="probs", ids=ids, classes=CLASSES)
        for name, values in (("one", first), ("two", second))
    ]
    teachers = align(tables, ids, CLASSES)
    train, calibration, test = (data.subset(np.arange(i, 900, 3)) for i in range(3))
    network = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    posterior = distill(
        network,
        train,
        teachers,
        calibration=calibration,
        prior=PriorSettings(weights="uniform", power=5.0, discount=0.0),
        modes=MapSettings(epochs=40),
        sampler=SamplerSettings(burn_in=200, draws=10, thinning=10, batch_size=300),
        chains=2,
        seed=1,
    )
    background = make_background(
        posterior,
        train,
        calibration,
        teachers,
        answers=posterior.predict(calibration.inputs),
        level=0.9,
        seed=0,
    )
    return posterior, background, test, place[np.arange(2, 900, 3)]


def test_each_cause_is_found_where_it_was_put(world):
    posterior, background, test, place = world
    predictive = posterior.predict(test.inputs)
    causes = find_causes(background, see(posterior, test.inputs), predictive)
    flags = np.array(causes.flags)
    inside = flags != OUTSIDE
    assert (flags[inside & (place == "easy")] == "").mean() > 0.95
    for name, cause in (("disputed", DISPUTED), ("known", KNOWN), ("nobody", AMBIGUOUS)):
        unsure = inside & (place == name) & (causes.reliable < 0.5)
        assert unsure.sum() > 20
        assert (flags[unsure] == cause).mean() > 0.8, name
    assert (flags == OUTSIDE).mean() < 0.06


def test_what_is_far_away_is_outside_however_sure_the_student_is(world):
    posterior, background, _, _ = world
    far = torch.tensor([[-40.0, 0.0], [40.0, 40.0], [0.0, -30.0]])
    predictive = posterior.predict(far)
    causes = find_causes(background, see(posterior, far), predictive)
    assert causes.flags == (OUTSIDE,) * 3
    assert causes.reliable.max() > 0.9
    assert (causes.outside <= RARE).all()


def test_a_gap_between_the_training_examples_is_outside_too(world):
    posterior, background, _, _ = world
    gap = torch.tensor([[0.0, 0.0]])
    assert find_causes(background, see(posterior, gap), posterior.predict(gap)).flags == (OUTSIDE,)


def test_sets_hold_the_label_on_new_examples(world):
    posterior, background, test, _ = world
    causes = find_causes(background, see(posterior, test.inputs), posterior.predict(test.inputs))
    held = causes.sets[np.arange(len(test)), test.labels.numpy()].mean()
    assert held == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 300) + 0.03)


def test_a_file_is_answered_block_by_block_as_it_is_as_a_whole(world, monkeypatch):
    posterior, background, test, _ = world
    shifted = 1.5 * test.inputs + 0.7
    seen, said = see(posterior, shifted), posterior.predict(shifted)
    whole = find_causes(background, seen, said)
    shown = seen.at(compared(len(shifted)))
    whole = judge_file(background, shown, said, whole, posterior.classes)
    monkeypatch.setattr("mtbkd.explain.promise._ROWS", 64)
    read = []

    def features(rows):
        read.append(rows.stop - rows.start)
        return shifted[rows]

    n, told = len(shifted), []
    answer, causes = answer_file(
        background, posterior, features, n,
        answer=posterior.predict, report=lambda _, done, total: told.append((done, total)),
    )  # fmt: skip
    assert max(read) == 64
    assert sum(read) == n
    assert told[-1] == (n, n)
    np.testing.assert_allclose(answer.probs, said.probs, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(causes.scores, whole.scores, rtol=1e-3, atol=1e-6)
    assert causes.flags == whole.flags
    assert causes.note == whole.note
    assert "do not look like" in causes.note
    np.testing.assert_array_equal(causes.sets, whole.sets)


def test_a_background_is_written_and_read(world, tmp_path):
    _, background, _, _ = world
    path = tmp_path / "background.safetensors"
    save_background(path, background)
    again = load_background(path, 0.9)
    assert again.level == background.level
    assert torch.equal(again.bounds, background.bounds)
    for part in ("reference", "held_out", "groups"):
        for name, value in vars(getattr(background, part)).items():
            assert torch.equal(getattr(getattr(again, part), name), value), name
    assert torch.equal(again.reliable, background.reliable)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="background.safetensors as it was written, but"):
        load_background(path, 0.9)
    save_tensors(path, {"features": background.reference.inputs, "distances": torch.zeros(3)})
    with pytest.raises(InputError, match="of this version, but another one wrote it"):
        load_background(path, 0.9)


def test_dissent_is_the_weight_against_the_pool():
    probs = torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]], [[0.3, 0.7]]])
    weights = torch.tensor([[0.6], [0.3], [0.1]])
    assert dissent(weights.log(), probs.log()).item() == pytest.approx(0.4)
    silent = torch.tensor([[0.7], [0.3], [0.0]]).log()
    assert dissent(silent, probs.log()).item() == pytest.approx(0.3)
    alone = torch.tensor([[1.0], [0.0], [0.0]]).log()
    assert dissent(alone, probs.log()).isnan().item()


def test_the_pool_of_labels_is_right_if_it_is_right_on_all():
    tables = [
        make_table(name, probs, kind="probs", ids=["e"], classes=CLASSES, family="multilabel")
        for name, probs in (("one", [[0.9, 0.2, 0.7]]), ("two", [[0.7, 0.4, 0.1]]))
    ]
    against, sure = _told(align(tables, ["e"], CLASSES), Weighting("uniform"), torch.zeros(1, 1))
    assert sure.item() == pytest.approx(0.8 * 0.7 * 0.6)
    assert against.item() == pytest.approx(0.5)


def test_for_labels_the_whole_answer_counts(world):
    _, background, _, _ = world
    probs = np.array([[0.9, 0.8, 0.95], [0.6, 0.6, 0.5]])
    nothing = np.zeros_like(probs)
    predictive = LabelPredictive(probs, nothing, nothing, probs, probs, 0.9)
    answers = torch.zeros(len(background.answers), 6)
    half = torch.full((3,), 0.5, dtype=torch.float64)
    like = replace(background, answers=answers, bounds=0.7 * half, thresholds=half)
    seen = Seen(background.reference.inputs[:2], background.reference.hidden[:2])
    causes = find_causes(like, seen, predictive)
    assert causes.reliable == pytest.approx([0.9 * 0.8 * 0.95, 0.6 * 0.6 * 0.5])
    assert causes.sets.tolist() == [[True] * 3, [False] * 3]
    assert causes.flags[0] == ""
    assert causes.flags[1] != ""
    assert causes.labels.all()
    strict = replace(like, thresholds=torch.tensor([0.5, 0.7, 0.5], dtype=torch.float64))
    causes = find_causes(strict, seen, predictive)
    assert causes.labels.tolist() == [[True] * 3, [True, False, True]]
    assert causes.reliable[1] == pytest.approx(0.6 * 0.4 * 0.5)


def test_labels_that_go_together_are_right_together():
    chance = np.random.default_rng(0)
    one = chance.beta(0.6, 0.6, (2000, 1))
    labels = np.repeat((chance.random(one.shape) < one).astype(float), 4, 1)
    said = np.repeat(one, 4, 1)
    half = np.full(4, 0.5)
    answer, right = said >= 0.5, ((said >= 0.5) == labels).all(1)
    intercept, slope = odds_of_all(said, labels, half)
    found = expit(intercept + slope * together(said, answer))
    assert found.mean() == pytest.approx(right.mean(), abs=0.01)
    assert np.maximum(said, 1 - said).prod(1).mean() < right.mean() - 0.15
    few = odds_of_all(said[:60], labels[:60], half)
    assert few.tolist() == [0.0, 1.0]


def test_a_label_has_a_threshold_of_its_own_if_there_are_enough_examples():
    chance = np.random.default_rng(0)
    truth = chance.random((400, 2)) ** 2
    labels = (chance.random(truth.shape) < truth).astype(float)
    said = truth / 3  # a student that says a third of it
    labels[40:, 1] = np.nan
    own, few = label_thresholds(said, labels)
    assert own < 0.25
    assert few == 0.5


def test_numbers_are_outside_or_not(world):
    posterior, background, _, _ = world
    one = np.ones((2, 1))
    predictive = NumberPredictive(one, one, 1e-3 * one, one, one, one, one, 0.9)
    features = torch.stack([background.reference.inputs[0].float(), torch.tensor([50.0, 50.0])])
    every = Groups(torch.full_like(background.groups.members, -1), torch.tensor(False))
    like = replace(background, groups=every)
    causes = find_causes(like, see(posterior, features), predictive)
    assert causes.flags == ("", OUTSIDE)
    assert causes.sets is None


def test_without_enough_teachers_nothing_is_said_of_them(world):
    posterior, background, test, _ = world
    unknown = torch.full_like(background.dissent, torch.nan)
    silent = replace(background, dissent=unknown, reliable=unknown)
    predictive = posterior.predict(test.inputs)
    assert isinstance(predictive, Predictive)
    causes = find_causes(silent, see(posterior, test.inputs), predictive)
    assert np.isnan(causes.dissent).all()
    assert set(causes.flags) <= {"", OUTSIDE, AMBIGUOUS}


def test_features_too_large_for_half_precision_stay_finite(world, tmp_path):
    posterior, _, test, _ = world
    tables = [
        make_table(
            name, np.full((len(test), 3), 1 / 3), kind="probs", ids=test.ids, classes=CLASSES
        )
        for name in ("one", "two")
    ]
    inputs = test.inputs.clone()
    inputs[0, 0] = 70_000.0
    far = replace(test, inputs=inputs)
    teachers = align(tables, test.ids, CLASSES)
    background = make_background(
        posterior, far, far, teachers, answers=posterior.predict(far.inputs), level=0.9, seed=0
    )
    assert background.reference.inputs.isfinite().all()
    assert background.reference.spread.isfinite().all()
    save_background(tmp_path / "background.safetensors", background)
    again = load_background(tmp_path / "background.safetensors", 0.9)
    causes = find_causes(again, see(posterior, far.inputs), posterior.predict(far.inputs))
    assert causes.outside[0] <= 2 / 51  # itself and it, of the same predicted class
