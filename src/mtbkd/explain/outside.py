"""Is an example outside what was trained on: how dense it is there, and how much draws disagree.

Three scores, larger further outside: the distance to the nearest training examples, relative to
how far these are from each other (as in the local outlier factor of Breunig et al. 2000), once in
what the student's sampled part reads and once in what its last layer reads; and what the posterior
does not know, the mutual information of answer and parameters. They are joined by the harmonic mean
of their ranks, and that is ranked again among held-out examples that the student did not
learn from, so that what is flagged of further examples of the same kind is what it says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtbkd.distillation.posterior import Posterior
from mtbkd.predictive import Answer, LabelPredictive, NumberPredictive
from mtbkd.student.curvature import last_layer, logits_and_inputs
from mtbkd.types import Bools, Floats, Ints
from mtbkd.weights.directions import few_columns

ENOUGH = 50  # held-out examples of a group that is calibrated by itself
DRAWS, NEAREST, _BATCH, _ROWS = 4, 10, 1024, 256
_CLOSE = 0.01  # of the median spread: copies of one example are no closer than that


@dataclass(frozen=True)
class Seen:
    """What is compared of some examples.

    Attributes:
        inputs: What the sampled part of the network reads, in few columns, shape (example,
            feature).
        hidden: What its last layer reads under a few draws, side by side, shape
            (example, feature); its outputs if it does not end in a linear layer.
    """

    inputs: Tensor
    hidden: Tensor

    def at(self, rows: Ints | Bools) -> Seen:
        """Some of the examples."""
        where = torch.from_numpy(rows)
        return Seen(self.inputs[where], self.hidden[where])

    def stored(self) -> Seen:
        """In half precision, where that is enough."""
        return Seen(_halved(self.inputs), _halved(self.hidden))


@dataclass(frozen=True)
class Reference:
    """Training examples that others are compared with.

    Attributes:
        inputs: As in `Seen`, shape (training example, feature).
        hidden: As in `Seen`, shape (training example, feature).
        spread: Mean distance of each to the nearest others, in both, shape (2, training example).
    """

    inputs: Tensor
    hidden: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Groups:
    """Which held-out examples are calibrated together.

    Attributes:
        members: Number of the group of each held-out example, -1 where it has too few, shape
            (held-out example,).
        given: Whether groups were given, which new examples do not have, shape (); else they are
            those of the predicted class.
    """

    members: Tensor
    given: Tensor


def see(posterior: Posterior, features: Tensor) -> Seen:
    """What is compared of these examples.

    Args:
        posterior: The student.
        features: Behind its frozen part, shape (example, ...).
    """
    student = posterior.student
    found = last_layer(student)
    draws = posterior.samples.segments[-1][:DRAWS, -1].to(student.prior_mean.device)
    positions = [student.standardised(draw) for draw in draws]
    parts = []
    with torch.no_grad():
        for rows in features.split(_BATCH):
            part = rows.to(student.prior_mean.device)
            each = [
                student.logits(position, part)
                if found is None
                else logits_and_inputs(student, found[0], position, part)[1]
                for position in positions
            ]
            parts.append(torch.cat([one.flatten(1) for one in each], 1))
    return Seen(few_columns(features).float().cpu(), torch.cat(parts).float().cpu())


def make_reference(seen: Seen) -> Reference:
    """Keep training examples to compare others with."""
    kept = seen.stored()
    spreads = []
    for values in (kept.inputs.float(), kept.hidden.float()):
        # each is its own nearest
        mean, _ = _nearest(values, values, min(NEAREST + 1, len(values)))
        mean = mean * (min(NEAREST + 1, len(values)) / max(1, min(NEAREST, len(values) - 1)))
        spreads.append(mean.clamp_min(max(_CLOSE * float(mean.median()), 1e-12)))
    return Reference(kept.inputs, kept.hidden, torch.stack(spreads))


def outside_scores(reference: Reference, seen: Seen, predictive: Answer) -> Floats:
    """How far outside each example is, by each score, shape (example, score)."""
    scores = []
    pairs = ((seen.inputs, reference.inputs), (seen.hidden, reference.hidden))
    for (values, known), spread in zip(pairs, reference.spread, strict=True):
        mean, which = _nearest(values.float(), known.float(), min(NEAREST, len(known)))
        scores.append((mean / spread[which].mean(1)).double().numpy())
    return np.stack([*scores, doubt(predictive)], 1)


def doubt(predictive: Answer) -> Floats:
    """Mutual information of answer and parameters, in nats, shape (example,).

    Summed over labels or targets; of a number, as if both of its variances were Gaussian.
    """
    if isinstance(predictive, NumberPredictive):
        return 0.5 * np.log1p(predictive.epistemic / predictive.aleatoric).sum(1)
    if isinstance(predictive, LabelPredictive):
        return predictive.epistemic.sum(1)
    return predictive.epistemic


def make_groups(groups: Ints | None, predictive: Answer) -> Groups:
    """Those with enough members, of groups that are given or else of predicted classes.

    Args:
        groups: Number of the group of each held-out example, shape (held-out example,), or None.
        predictive: The student's answers there.
    """
    members = predicted(predictive) if groups is None else np.unique(groups, return_inverse=True)[1]
    few = np.bincount(members)[members] < ENOUGH
    found = torch.from_numpy(np.where(few, -1, members).astype(np.int64))
    return Groups(found, torch.tensor(groups is not None))


def predicted(predictive: Answer) -> Ints:
    """Column of the class or label that is most probable, 0 for numbers, shape (example,)."""
    if isinstance(predictive, NumberPredictive):
        return np.zeros(len(predictive.mean), np.int64)
    return predictive.probs.argmax(1)


def outside_p(scores: Floats, predictive: Answer, held_out: Floats, groups: Groups) -> Floats:
    """Conformal p-value that an example is of the same kind as held-out ones, shape (example,).

    Of given groups it takes the largest: an example is outside only if it is for each of them.
    Otherwise the example is compared with held-out ones of the same predicted class; with all of
    them where that are fewer than 50.

    Args:
        scores: Shape (example, score).
        predictive: The student's answers.
        held_out: Scores of held-out examples, shape (held-out example, score).
        groups: Which of these are calibrated together.
    """
    members = groups.members.numpy()
    large = np.unique(members[members >= 0])
    if bool(groups.given):
        parts = [held_out[members == group] for group in large]
        parts += [held_out] if len(parts) == 0 or (members < 0).any() else []
        return np.max([joint_tail(scores, part) for part in parts], axis=0)
    own, found = predicted(predictive), np.empty(len(scores))
    for group in (*large, -1):
        rows = own == group if group >= 0 else ~np.isin(own, large)
        found[rows] = joint_tail(
            scores[rows], held_out[members == group] if group >= 0 else held_out
        )
    return found


def joint_tail(scores: Floats, held_out: Floats) -> Floats:
    """Conformal p-value of several scores at once, by the harmonic mean of their ranks.

    Each example is ranked in each score among the held-out ones and itself, and so are these, with
    the example among them; then the harmonic means of ranks (Wilson 2019) are ranked likewise: it
    is small if one rank is, and smaller if all are. All n + 1 examples are treated alike, so the
    p-value is exact if they are exchangeable (Vovk et al. 2005, section 2.2), unlike that of means
    whose ranks are taken once for all.

    Args:
        scores: Shape (example, score).
        held_out: Shape (held-out example, score).

    Returns:
        At least ``1 / (n + 1)``, shape (example,).

    Example:
        >>> joint_tail(np.array([[9.0, 9.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]))
        array([0.33333333, 1.        ])
    """
    n = len(held_out)
    columns = [np.sort(column) for column in held_out.T]
    pairs = list(zip(columns, held_out.T, strict=True))
    at_least = np.stack([n - np.searchsorted(own, s, side="left") for own, s in pairs], 1)
    inverse = 1 / at_least
    steps = 1 / (at_least + 1) - inverse
    found = []
    for start in range(0, len(scores), _ROWS):
        part = scores[start : start + _ROWS]
        ranks = np.stack([n - np.searchsorted(o, s) for o, s in zip(columns, part.T, strict=True)])
        own = (1 / (1 + ranks)).sum(0)
        others = np.tile(inverse.sum(1), (len(part), 1))
        for column in range(held_out.shape[1]):
            before = part[:, column, None] >= held_out[:, column]
            others += before * steps[:, column]
        found.append((1 + (others >= own[:, None] - 1e-9).sum(1)) / (1 + n))
    return np.concatenate(found) if found else np.empty(0)


def _nearest(values: Tensor, others: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Mean distance to the nearest of the others, and which they are: (example,), (example, n)."""
    parts = [torch.cdist(v, others).topk(n, largest=False) for v in values.split(_BATCH)]
    return torch.cat([p.values.mean(1) for p in parts]), torch.cat([p.indices for p in parts])


def _halved(values: Tensor) -> Tensor:
    half = values.half()
    return half if half.isfinite().all() else values
