"""Why an answer is uncertain: outside what was trained on, disputed, or known to nobody.

New inputs have no teachers, so they are compared with training examples, whose teachers are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.conformal import class_bound, class_sets, label_bounds, label_sets
from mtbkd.explain.influence import dissent
from mtbkd.explain.labels import label_thresholds, odds_of_all, together
from mtbkd.explain.outside import (
    Groups,
    Reference,
    Seen,
    make_groups,
    make_reference,
    outside_p,
    outside_scores,
    see,
)
from mtbkd.explain.shift import HeldOut, hold_out
from mtbkd.files import load_tensors, save_tensors
from mtbkd.observation.answers import rows_of
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer, LabelPredictive, NumberPredictive, Predictive
from mtbkd.types import Bools, Floats, InputError, Ints
from mtbkd.weights.rules import Weighting, pool_log_probs

OUTSIDE = "outside what was trained on"
DISPUTED = "teachers disagree"
KNOWN = "teachers know more"
AMBIGUOUS = "truly ambiguous"
FLAGS = (OUTSIDE, DISPUTED, KNOWN, AMBIGUOUS)
_MOST = 2000  # training examples, and held-out ones, that are kept to compare with
ALIKE = 20
RARE = 0.02
"""Share of examples like the held-out ones that is flagged as outside, at most."""
MUCH_DISSENT, EVEN = 0.25, 0.5
_BATCH = 1024


@dataclass(frozen=True)
class Background:
    """What new examples are compared with.

    Attributes:
        reference: Some training examples.
        answers: Roots of the student's probabilities there, shape (training example, column).
        dissent: Share of the teachers' weight that answers otherwise than their pool, NaN where
            fewer than two teachers answer, shape (training example,).
        reliable: Probability that the pool's whole answer is right, NaN where no teacher answers,
            shape (training example,).
        held_out: Some calibration examples.
        groups: Those of them that are calibrated together.
        thresholds: Probability from which on a label is answered with yes, shape (label,); empty
            for the other families.
        bounds: Those of the sets, as in `mtbkd.explain.conformal`: one of all classes, one of each
            label, none of numbers.
        odds: Intercept and slope of the log odds that all labels are right, in those that they
            would have if labels were independent; 0 and 1 for the other families.
        level: How often sets hold the truth, shape ().
        temperature: That of the student, shape ().
    """

    reference: Reference
    answers: Tensor
    dissent: Tensor
    reliable: Tensor
    held_out: HeldOut
    groups: Groups
    thresholds: Tensor
    bounds: Tensor
    odds: Tensor
    level: Tensor
    temperature: Tensor


@dataclass(frozen=True)
class Causes:
    """Why answers are uncertain.

    Attributes:
        outside: Conformal p-value that the example is like the calibration examples: among those
            that are, at most this share has one as small, shape (example,).
        dissent: Mean share of the teachers' weight that answers otherwise than their pool, on the
            training examples that the student answers most alike, shape (example,); NaN if not
            known.
        pool: Mean probability that their pool's whole answer is right, on the same training
            examples, shape (example,); NaN if not known.
        reliable: Probability that the whole answer is right, shape (example,); NaN for numbers.
        flags: A cause, or nothing where the answer is more likely right than wrong and the example
            is like the training examples.
        sets: Classes or labels that are still possible, shape (example, class); none for numbers.
        labels: The answer, if it is several labels, shape (example, label).
        note: What has to be told of all of them together, or nothing.
        scores: How far outside each example is, by each score, shape (example, score).
    """

    outside: Floats
    dissent: Floats
    pool: Floats
    reliable: Floats
    flags: tuple[str, ...]
    sets: Bools | None
    labels: Bools | None = None
    note: str = ""
    scores: Floats = field(kw_only=True)

    def at(self, rows: Ints) -> Causes:
        """Those of some of the examples."""
        parts = {n: v[rows] for n, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **parts, flags=tuple(self.flags[row] for row in rows.tolist()))


def joined_causes(parts: Sequence[Causes]) -> Causes:
    """Those of all examples together."""
    first, flags = parts[0], tuple(flag for part in parts for flag in part.flags)
    arrays = [name for name, value in vars(first).items() if isinstance(value, np.ndarray)]
    every = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return replace(first, **every, flags=flags)


def make_background(
    posterior: Posterior,
    train: Dataset,
    calibration: Dataset,
    teachers: TeacherOutputs,
    *,
    answers: Answer,
    level: float,
    seed: int,
    groups: Ints | None = None,
) -> Background:
    """Keep what later answers are compared with.

    Args:
        posterior: The student, at its temperature.
        train: What it learned from; at most 2,000 examples are kept, drawn by the seed.
        calibration: Labelled examples; at most 2,000 are kept for the flag of what is outside, and
            to be compared with whole files.
        teachers: What they say on the training examples.
        answers: On the calibration examples, of a student that did not learn from them.
        level: How often sets shall hold the truth.
        seed: Chooses examples.
        groups: Number of the source of each calibration example, where sources are known, shape
            (calibration example,): no source of 50 or more is flagged more often than another.
            Without them, predicted classes are taken for groups.
    """
    chance = np.random.default_rng(seed)
    some = train.subset(_drawn(len(train), chance))
    features = posterior.student.features(some.inputs)
    reference = make_reference(see(posterior, features))
    kept = _drawn(len(calibration), chance)
    others = calibration.subset(kept)
    seen = see(posterior, posterior.student.features(others.inputs))
    said = rows_of(answers, kept)
    known = np.flatnonzero(calibration.known.numpy())
    predictive = rows_of(answers, known)
    labels = calibration.labels[known].numpy()
    bounds, thresholds, odds = np.empty(0), np.empty(0), np.array([0.0, 1.0])
    if isinstance(predictive, Predictive):
        bounds = np.array([class_bound(predictive.probs, labels, level)])
    elif isinstance(predictive, LabelPredictive):
        bounds = label_bounds(predictive.probs, labels, level)
        thresholds = label_thresholds(predictive.probs, labels)
        odds = odds_of_all(predictive.probs, labels, thresholds)
    against, reliable = _told(teachers.at(some.ids), posterior.weighting, features)
    return Background(
        reference=reference,
        answers=_answers(posterior.predict(some.inputs)).float(),
        dissent=against,
        reliable=reliable,
        held_out=hold_out(seen, outside_scores(reference, seen, said), said, others.labels),
        groups=make_groups(None if groups is None else groups[kept], said),
        thresholds=torch.from_numpy(thresholds),
        bounds=torch.from_numpy(bounds),
        odds=torch.from_numpy(odds),
        level=torch.tensor(level, dtype=torch.float64),
        temperature=torch.tensor(posterior.student.temperature, dtype=torch.float64),
    )


def compared_rows(n_train: int, seed: int) -> Ints:
    """Which training examples `make_background` keeps, in the order of its reference."""
    return _drawn(n_train, np.random.default_rng(seed))


def _drawn(n: int, chance: np.random.Generator) -> Ints:
    return np.sort(chance.permutation(n)[:_MOST])


def find_causes(background: Background, seen: Seen, predictive: Answer) -> Causes:
    """Say why the answers on these examples are uncertain.

    An example is *outside* if hardly any calibration example is as far from the training examples,
    or makes the posterior doubt as much (`mtbkd.explain.outside`): of examples like these at most
    2 % are flagged, of each group with enough of them. An answer is uncertain if it is more likely
    wrong than right. The cause is then that *teachers disagree* if they do on the twenty training
    examples that the student answers most alike (Hellinger distance): if a quarter of their weight
    is against their pool's answer. If they agree there and their pool is more likely right than
    wrong, *teachers know more* than the student does, and asking one would help. Otherwise the
    answer is *truly ambiguous*, as far as anybody knows.

    Args:
        background: What the run keeps.
        seen: The examples, from `mtbkd.explain.outside.see`.
        predictive: The student's answers on them.
    """
    scores = outside_scores(background.reference, seen, predictive)
    held_out = background.held_out.scores.numpy()
    outside = outside_p(scores, predictive, held_out, background.groups)
    if isinstance(predictive, NumberPredictive):
        unknown = np.full(len(outside), np.nan)
        flags = tuple(OUTSIDE if p <= RARE else "" for p in outside)
        return Causes(outside, unknown, unknown, unknown, flags, None, scores=scores)
    answers = _answers(predictive)
    against = _expected(background.dissent, background.answers, answers)
    pool = _expected(background.reliable, background.answers, answers)
    labels = None
    if isinstance(predictive, LabelPredictive):
        labels = predictive.probs >= background.thresholds.numpy()
        intercept, slope = background.odds.tolist()
        reliable = np.exp(
            -np.logaddexp(0.0, -intercept - slope * together(predictive.probs, labels))
        )
        sets = label_sets(predictive.probs, background.bounds.numpy())
    else:
        reliable = predictive.probs.max(1)
        sets = class_sets(predictive.probs, float(background.bounds))
    cause = np.where(np.nan_to_num(pool) >= EVEN, KNOWN, AMBIGUOUS).astype(object)
    cause[np.nan_to_num(against) >= MUCH_DISSENT] = DISPUTED
    cause[reliable >= EVEN] = ""
    cause[outside <= RARE] = OUTSIDE
    flags = tuple(cause.tolist())
    return Causes(outside, against, pool, reliable, flags, sets, labels, scores=scores)


def save_background(path: Path, background: Background) -> None:
    """Write it for `load_background`."""
    parts = vars(background)
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    for name in _NESTED:
        tensors |= {f"{name}.{key}": value for key, value in vars(parts[name]).items()}
    save_tensors(path, tensors)


def load_background(path: Path, level: float) -> Background:
    """Read what `save_background` wrote for sets of this level.

    Raises:
        InputError: If it is missing, was changed, or was made for another level or by an earlier
            version.
    """
    then = "Delete it and run `mtbkd distill` on the run directory."
    tensors = load_tensors(path, then=then)
    try:
        nested = {
            name: kind(**{
                key.removeprefix(f"{name}."): tensors.pop(key)
                for key in list(tensors)
                if key.startswith(f"{name}.")
            })
            for name, kind in _NESTED.items()
        }  # fmt: skip
        background = Background(**tensors, **nested)
    except TypeError:
        raise InputError(
            f"Expected {path} of this version, but another one wrote it. {then}"
        ) from None
    if background.level != level:
        raise InputError(
            f"Expected {path} of predict.level {level:g}, but it was made for "
            f"{background.level:g}. {then}"
        )
    return background


_NESTED = {"reference": Reference, "held_out": HeldOut, "groups": Groups}
"""The parts of a background that have parts themselves."""


def _answers(predictive: Answer) -> Tensor:
    """Roots of probabilities, whose distance is Hellinger's up to a factor."""
    if isinstance(predictive, NumberPredictive):
        return torch.empty(len(predictive.mean), 0)
    probs = torch.from_numpy(predictive.probs)
    if isinstance(predictive, LabelPredictive):
        probs = torch.cat([probs, 1 - probs], 1)
    return probs.sqrt()


def _told(outputs: TeacherOutputs, weighting: Weighting, features: Tensor) -> tuple[Tensor, Tensor]:
    """The teachers' dissent, and how reliable their pool's answer is, each (example,)."""
    if outputs.outcome.numeric:
        unknown = torch.full((len(outputs.ids),), torch.nan)
        return unknown, unknown.clone()
    observation = outputs.observation
    values = outputs.values.float()
    said = weighting.apply(values, outputs.mask, outputs.kept, observation, features)
    complete = observation.complete(said, weighting.temperature)
    against = dissent(said.log_weights, complete)
    sure = pool_log_probs(said.log_weights, complete, said.nobody).amax(-1).exp()
    sure = sure.masked_fill(torch.isneginf(said.log_weights).all(0), torch.nan)
    if against.dim() == 2:
        against = torch.where(against.isnan().all(1), torch.nan, against.nan_to_num().amax(1))
        sure = torch.where(sure.isnan().all(1), torch.nan, sure.nan_to_num(0.5).prod(1))
    return against.float(), sure.float()


def _expected(values: Tensor, like: Tensor, answers: Tensor) -> Floats:
    """Mean of what is known on the training examples that are answered most alike."""
    known = ~values.isnan()
    values, like = values[known], like[known]
    if len(values) < ALIKE:
        return np.full(len(answers), np.nan)
    parts = [
        values[torch.cdist(part.float(), like).topk(ALIKE, largest=False).indices].mean(1)
        for part in answers.split(_BATCH)
    ]
    return torch.cat(parts).double().numpy()
