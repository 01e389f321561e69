"""What the student, its teachers and both together say on labelled examples, judged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import Background, find_causes
from mtbkd.explain.defer import scores_of
from mtbkd.explain.outside import see
from mtbkd.predictive import Answer, LabelPredictive, Predictive
from mtbkd.types import Bools, Floats, Ints


@dataclass(frozen=True)
class Judged:
    """What the student and its teachers say on labelled examples.

    Attributes:
        scores: How sure the student is, by name, each (example,).
        expected: Probability that it is right as a whole, shape (example,).
        said: The class that it says, shape (example,); 0 for several labels.
        right: Whether it is right, shape (example,).
        agrees: Whether it says what the pool says, shape (example,).
        heard: Whether any teacher speaks, shape (example,).
        probs: The student's, shape (example, column).
        pool: The pool's, shape (example, column).
        truth: What is true, shape (example, column); NaN where not known.
        cuts: From where on labels are said; empty for classes.
    """

    scores: dict[str, Floats]
    expected: Floats
    said: Ints
    right: Bools
    agrees: Bools
    heard: Bools
    probs: Floats
    pool: Floats
    truth: Floats
    cuts: Floats

    def at(self, rows: Bools) -> Judged:
        """Some of the examples."""
        parts = {n: v[rows] for n, v in vars(self).items() if n not in ("scores", "cuts")}
        return replace(self, scores={n: v[rows] for n, v in self.scores.items()}, **parts)

    def together(self, weight: float) -> Floats:
        """What student and teachers say together, shape (example, column)."""
        return both_voices(self.probs, self.pool, self.heard, weight)

    def all_right(self, probs: Floats) -> Bools:
        """Whether an answer is right on all columns that are known, shape (example,)."""
        return _all_alike(said_by(probs, self.cuts), self.truth)


def said_by(probs: Floats, cuts: Floats) -> Bools:
    """What is said: the most probable class, or the labels above their thresholds."""
    return probs >= cuts if len(cuts) else probs.argmax(1)[:, None] == np.arange(probs.shape[1])


def both_voices(probs: Floats, pool: Floats, heard: Bools, weight: float) -> Floats:
    """The student's probabilities beside the pool's, alone where no teacher speaks."""
    own = np.where(heard, weight, 1.0)[:, None]
    return own * probs + (1 - own) * pool


def judge(
    data: Dataset,
    answers: Answer,
    posterior: Posterior,
    background: Background,
    pool: Floats,
    heard: Bools,
) -> Judged:
    """Judge answers on examples, without those that have no label.

    Args:
        data: As the student reads it behind its frozen part.
        answers: The student's.
        posterior: The student.
        background: What the run keeps.
        pool: What its teachers' pool says, shape (example, column).
        heard: Where any teacher speaks, shape (example,) or (example, label).
    """
    if not isinstance(answers, Predictive | LabelPredictive):
        raise ValueError("numbers are neither right nor wrong")
    seen = see(posterior, posterior.student.features(data.inputs))
    causes = find_causes(background, seen, answers)
    probs, labels = answers.probs, data.labels.numpy()
    cuts = background.thresholds.numpy()
    if isinstance(answers, LabelPredictive):
        truth, said = labels.astype(float), np.zeros(len(probs), np.int64)
        pool, heard = np.where(heard, pool, probs), np.asarray(heard.any(1))
    else:
        truth = (labels[:, None] == np.arange(probs.shape[1])).astype(float)
        said = probs.argmax(1)
    own = said_by(probs, cuts)
    judged = Judged(
        scores=scores_of(answers, causes.reliable, causes.flags),
        expected=causes.reliable,
        said=said,
        right=_all_alike(own, truth),
        agrees=(own == said_by(pool, cuts)).all(1),
        heard=heard,
        probs=probs,
        pool=pool,
        truth=truth,
        cuts=cuts,
    )
    return judged.at(data.known.numpy())


def truly(held: Judged) -> tuple[Floats, Floats]:
    """Probability that student and pool give what is true, where teachers speak, each (cell,)."""
    rows, truth = held.heard, held.truth[held.heard]
    if not len(held.cuts):  # one of the columns is true
        return held.probs[rows][truth == 1], held.pool[rows][truth == 1]
    known = ~np.isnan(truth)
    student, pool = (
        np.where(truth == 1, probs[rows], 1 - probs[rows])[known]
        for probs in (held.probs, held.pool)
    )
    return student, pool


def _all_alike(said: Bools, truth: Floats) -> Bools:
    return ((said == (truth == 1)) | np.isnan(truth)).all(1)
