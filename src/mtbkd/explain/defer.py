"""Which answers a student may give alone, such that a promise on them holds; all else is asked.

Selective classification (Geifman and El-Yaniv 2017, arXiv:1705.08500), its threshold found by
testing thresholds in a fixed order (Angelopoulos et al. 2021, *Learn then Test*, arXiv:2110.01052).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from mtbkd.predictive import Answer, LabelPredictive, NumberPredictive
from mtbkd.types import Bools, Floats, InputError, Ints

CONFIDENCE = 0.95
MAX_PROBABILITY = "max probability"
_ENOUGH, _EVERY = 400, 4  # rows from which on every fourth chooses the score
_LEAST = 1e-12


def scores_of(answer: Answer, reliable: Floats, flags: tuple[str, ...]) -> dict[str, Floats]:
    """How sure the student is of each answer, in several ways; larger is surer, shape (example,).

    Args:
        answer: The student's, on classes or labels; uncertainties in nats are summed over labels.
        reliable: Probability that the whole answer is right, shape (example,).
        flags: Why each answer is uncertain, or nothing.

    Raises:
        InputError: If it is numbers, which are neither right nor wrong.
    """
    if isinstance(answer, NumberPredictive):
        raise InputError(
            "Expected answers that are right or wrong, classes or labels, but got numbers. Compare "
            "the width of their intervals with what you can bear instead."
        )
    parts = {name: getattr(answer, name) for name in ("total", "aleatoric", "epistemic")}
    several = isinstance(answer, LabelPredictive)
    return {
        MAX_PROBABILITY: reliable,
        **{name: -(part.sum(1) if several else part) for name, part in parts.items()},
        "flags": np.array([not flag for flag in flags], dtype=float),
    }


def threshold(
    scores: Floats,
    right: Bools,
    target: float,
    *,
    expected: Floats,
    confidence: float = CONFIDENCE,
) -> float:
    """Above which score answers are right as often as promised, with confidence.

    Held-out answers are ranked by their score. That those above the ``k + 1``-th are right with a
    probability of the target or more is tested by Clopper and Pearson's bound on the first ``k``,
    which, given that score, are independent draws of all answers above it. One ``k`` after the
    other is tested, each at the full level, until the first fails: the order is fixed before labels
    are seen, so that the chance to break the promise is at most ``1 - confidence``, as long as
    answers of lower scores are not right more often. The first ``k`` is that which
    most probably passes if answers are right as expected: where few answers are, one that is wrong
    would end it.

    Args:
        scores: How sure held-out answers are, shape (example,).
        right: Which of these are right, shape (example,).
        target: Share of answers that shall be right, in (0, 1).
        expected: Probability that each is right, known without its label, shape (example,).
        confidence: In (0, 1).

    Returns:
        Minus infinity if all may be given, infinity if none.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, k = scores[order], np.arange(1, len(scores) + 1)
    wrong = np.cumsum(~right[order])
    cuts = np.append(ranked[:-1] > ranked[1:], True)[: len(k)]  # ties stay together
    spare = binom.ppf(1 - confidence, k, 1 - target)
    spare = np.where(binom.cdf(spare, k, 1 - target) <= 1 - confidence, spare, spare - 1)
    likely = binom.cdf(spare, k, 1 - np.cumsum(expected[order]) / k)
    possible = np.flatnonzero(cuts & (spare >= 0))
    if not len(possible):
        return np.inf
    first = int(np.argmax(likely[possible]))
    passed = wrong[possible[first:]] <= spare[possible[first:]]
    n = len(passed) if passed.all() else int(np.argmin(passed))
    if not n:
        return np.inf
    last = int(possible[first + n - 1])
    return -np.inf if last + 1 == len(ranked) else float(ranked[last + 1])


def thresholds_by_class(
    scores: Floats,
    right: Bools,
    target: float,
    *,
    expected: Floats,
    said: Ints,
    n_classes: int,
) -> Floats:
    """The same for the answers that say each class, each with the confidence: shape (class,).

    Args:
        scores: As for `threshold`, shape (example,).
        right: Likewise.
        target: Likewise.
        expected: Likewise.
        said: The class that each answer says, shape (example,).
        n_classes: How many there are.
    """
    found = np.empty(n_classes)
    for c in range(n_classes):
        own = said == c
        found[c] = threshold(scores[own], right[own], target, expected=expected[own])
    return found


def cheapest(scores: Floats, wrong: Bools, wrong_asked: Bools, call: float, error: float) -> float:
    """Above which score it costs least, in the mean of held-out answers, not to ask.

    Args:
        scores: Shape (example,).
        wrong: Whether the student is wrong, shape (example,).
        wrong_asked: Whether the answer would be wrong if teachers were asked, shape (example,).
        call: Price of asking all teachers about one example.
        error: Price of a wrong answer, in the same money.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    alone = np.concatenate([[0.0], np.cumsum(error * wrong[order])])
    asked = np.concatenate([[0.0], np.cumsum(call + error * wrong_asked[order])])
    cost = alone + asked[-1] - asked
    cost[1:-1][ranked[:-1] == ranked[1:]] = np.inf  # ties stay together
    # of equal costs the one that asks least
    k = len(ranked) - int(np.argmin(cost[::-1]))
    return -np.inf if k == len(ranked) else float(ranked[k])


def choose_score(scores: Mapping[str, Floats], right: Bools) -> tuple[str, Bools]:
    """The score that puts right answers before wrong ones best, and the rows that have not chosen.

    Every fourth row chooses, by the area under the curve of risk over coverage, and then finds no
    threshold, which so keeps its promise. Below 400 rows, each of which the threshold needs, it is
    the largest probability.

    Args:
        scores: By name, each (example,).
        right: Shape (example,).
    """
    if len(right) < _ENOUGH:
        return MAX_PROBABILITY, np.ones(len(right), dtype=bool)
    choosing = np.arange(len(right)) % _EVERY == 0
    areas = {n: risk_area(values[choosing], right[choosing]) for n, values in scores.items()}
    return min(areas, key=lambda name: (areas[name], name != MAX_PROBABILITY)), ~choosing


def coverage_curve(scores: Floats, right: Bools) -> tuple[Floats, Floats]:
    """Share answered alone, and share of these that is right, at each distinct threshold."""
    order = np.argsort(-scores, kind="stable")
    ranked, k = scores[order], np.arange(1, len(scores) + 1)
    cuts = np.append(ranked[:-1] > ranked[1:], True)[: len(k)]
    return (k / max(len(k), 1))[cuts], (np.cumsum(right[order]) / k)[cuts]


def risk_area(scores: Floats, right: Bools) -> float:
    """Area under the share of wrong answers over the share answered; answers alike in random order.

    Example:
        >>> risk_area(np.array([0.9, 0.8, 0.7]), np.array([True, True, False]))
        0.1111111111111111
    """
    _, inverse, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, ~right) / counts
    wrong = np.cumsum(np.repeat(mean, counts))
    return float(np.mean(wrong / np.arange(1, len(scores) + 1)))


def voice(student: Floats, pool: Floats) -> float:
    """Weight of the student beside the teachers' pool, which makes the best log score.

    The linear pool of Stone (1961) of two voices, ``w q + (1 - w) p``, under a prior ``Beta(2, 2)``
    on ``w``, so that few labels silence neither.

    Args:
        student: Probability that it gives what is true, of held-out examples, shape (cell,).
        pool: The same of the pool.
    """

    def loss(weight: float) -> float:
        said = np.log(np.maximum(weight * student + (1 - weight) * pool, _LEAST))
        return -float(said.sum() + np.log(weight * (1 - weight)))

    found = minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded")
    return float(found.x)  # type: ignore[attr-defined]
