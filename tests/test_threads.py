"""Many threads read one posterior and get what one thread gets, bit for bit."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import nn

from mtbkd.estimators import DistilledClassifier, DistilledRegressor
from mtbkd.inference import chains
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.predictive import predict
from mtbkd.prior.mixture import Prior
from mtbkd.student import make_student
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.weights.rules import uniform_weights

N_THREADS, N_CALLS = 8, 50
INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """A head that is no stack."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.outer(x + torch.tanh(self.inner(x)))


def layers():
    return nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)


def split_in_two():
    """Two students of one network, of which one samples what the other leaves as it is."""
    network = nn.Sequential(*layers(), nn.Tanh(), nn.Linear(3, 3))
    return [make_student(network, sampled=s, example=INPUTS) for s in ("4.*", ("2.*", "4.*"))]


CASES = {
    "dense": lambda: [make_student(nn.Sequential(*layers()))],
    "bare layer": lambda: [make_student(nn.Linear(6, 3))],
    "residual": lambda: [make_student(Residual())],
    "convolution": lambda: [
        make_student(
            nn.Sequential(
                nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(),
                nn.Linear(8, 3),
            )
        )
    ],
    "frozen part": lambda: [
        make_student(nn.Sequential(*layers()), sampled="2.*", example=INPUTS)
    ],
    "frozen part before a head that is no stack": lambda: [
        make_student(
            nn.Sequential(nn.Linear(6, 6), Residual()), sampled="1.*", example=INPUTS
        )
    ],
    "two students of one network": split_in_two,
    "a student and its copy": lambda: 2 * [make_student(Residual())],
}  # fmt: skip


def draws_of(student, seed):
    generator = torch.Generator().manual_seed(seed)
    segment = torch.randn(2, 3, student.n_parameters, generator=generator)
    return PosteriorSamples((segment,), student.names, tuple(map(tuple, student.shapes)))


def in_threads(ask):
    """What every call of every thread gave: ``ask(thread)``, all threads starting at once."""
    start = Barrier(N_THREADS)

    def calls(thread):
        start.wait()
        return [ask(thread) for _ in range(N_CALLS)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads interrupt each other within a call
    try:
        with ThreadPoolExecutor(N_THREADS) as pool:
            return list(pool.map(calls, range(N_THREADS)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("case", CASES)
def test_threads_predict_what_one_thread_predicts(case):
    students = CASES[case]()
    samples = [draws_of(students[k % len(students)], k) for k in range(N_THREADS)]

    def ask(thread):
        return predict(students[thread % len(students)], samples[thread], INPUTS).probs

    expected = [ask(thread) for thread in range(N_THREADS)]
    wrong = 0
    for thread, found in enumerate(in_threads(ask)):
        wrong += sum(not np.array_equal(one, expected[thread]) for one in found)
    assert wrong == 0


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    return generator.normal(size=(30, 3)), generator.integers(2, size=30)


@pytest.mark.parametrize("hidden", [(), (4,)])
@pytest.mark.parametrize("kind", [DistilledClassifier, DistilledRegressor])
def test_threads_ask_one_estimator(kind, hidden, rows):
    X, y = rows
    quick = {"mode_steps": 5, "burn_in": 5, "draws": 2, "thinning": 1, "chains": 2}
    student = kind(hidden, random_state=0, device="cpu", **quick).fit(X, y)
    ask = student.predict_proba if kind is DistilledClassifier else student.predict
    expected = [ask(X[thread : thread + 3]) for thread in range(N_THREADS)]
    for thread, found in enumerate(in_threads(lambda k: ask(X[k : k + 3]))):
        assert all(np.array_equal(one, expected[thread]) for one in found)
    again = pickle.loads(pickle.dumps(student))  # noqa: S301
    assert np.array_equal(again.predict(X), student.predict(X))
    assert np.array_equal(copy.deepcopy(student).predict(X), student.predict(X))


@pytest.mark.parametrize("n_chains", [2, 3])
def test_chains_divided_between_threads_have_the_same_gradients(monkeypatch, n_chains):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 3, generator=generator)
    teachers = torch.log_softmax(torch.randn(2, 50, 4, generator=generator), -1)
    labels = torch.randint(-1, 4, (50,), generator=generator)
    data = TrainingSet(features, labels, teachers, uniform_weights(torch.ones(2, 50).bool()))
    student = make_student(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)))
    positions = torch.randn(n_chains, student.n_parameters, generator=generator)
    gradient = chains.in_parts(posterior_gradient(student, 50, Prior(), data.observation))
    own = chains.chain_generators(0, 0, n_chains, positions.device)
    batches = Minibatches(data, Prior(), own)
    for size in (50, 20):
        batch = batches(size)
        whole = [part.clone() for part in gradient(positions, batch)]
        with monkeypatch.context() as patch:
            patch.setattr(chains, "_MUCH", 1)
            divided = gradient(positions, batch)
        for one, other in zip(whole, divided, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
