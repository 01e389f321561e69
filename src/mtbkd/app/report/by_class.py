"""What is counted for each class or label: confusions, uncertainty, examples of several labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from mtbkd.metrics import wrong_auroc
from mtbkd.types import Bools, Floats, Ints


class Confused(NamedTuple):
    """Examples of one class that are taken for another."""

    true: int
    said: int
    n: int


def confusion(true: Ints, said: Ints, n_classes: int) -> Ints:
    """How often each class is taken for each.

    Args:
        true: Class indices, -1 where unknown and left out, shape (example,).
        said: Class indices, shape (example,).
        n_classes: How many classes there are.

    Returns:
        Counts, shape (true class, said class).

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
        array([[1, 1],
               [0, 1]])
    """
    known = true >= 0
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (true[known], said[known]), 1)
    return counts


def row_shares(counts: Ints) -> Floats:
    """Each row over its sum, NaN in a row without examples; shape (true, said) as given."""
    sums = counts.sum(1, keepdims=True)
    return np.divide(counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0)


def single(labels: Floats) -> Ints:
    """The label of examples that are known to have exactly one, else -1.

    Args:
        labels: 0, 1 or NaN, shape (example, label).

    Example:
        >>> single(np.array([[0, 1, 0], [1, 1, 0], [1, 0, np.nan]]))
        array([ 1, -1, -1])
    """
    one = (np.nansum(labels, 1) == 1) & ~np.isnan(labels).any(1)
    return np.where(one, np.nanargmax(np.nan_to_num(labels), 1), -1)


def spill(labels: Floats, probs: Floats) -> Floats:
    """Mean probability of each label where another one is true and it is not.

    Args:
        labels: 0, 1 or NaN, shape (example, label).
        probs: P(yes), shape (example, label).

    Returns:
        Shape (true label, label): in row i and column j the mean P(j) over examples that have i and
        do not have j; on the diagonal the mean P(i) over those that have i. NaN where there are
        none.

    Example:
        >>> spill(np.array([[1, 0], [1, 1]]), np.array([[0.8, 0.3], [0.6, 0.9]]))
        array([[0.7, 0.3],
               [nan, 0.9]])
    """
    has, lacks = (labels == 1).astype(float), (labels == 0).astype(float)
    sums, counts = has.T @ (lacks * probs), has.T @ lacks
    np.fill_diagonal(sums, (has * probs).sum(0))
    np.fill_diagonal(counts, has.sum(0))
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def neighbours(shares: Floats) -> Ints:
    """An order of the classes in which those that are confused stand side by side.

    Average linkage, where classes are the nearer the more of either is taken for the other, with
    the leaves in optimal order (Bar-Joseph et al. 2001).

    Args:
        shares: What is taken for what, in shares of rows, NaN where unknown, shape (class, class).
    """
    shares = np.nan_to_num(shares)
    if len(shares) < 3:
        return np.arange(len(shares))
    near = (shares + shares.T) / 2
    np.fill_diagonal(near, 0.0)
    distance = 1 - near / max(float(near.max()), 1e-12)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return leaves_list(tree).astype(np.int64)


def largest(counts: Ints, most: int) -> tuple[Confused, ...]:
    """The most frequent confusions, largest first.

    Args:
        counts: As `confusion` gives them.
        most: How many; fewer if fewer examples are confused.
    """
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most].tolist()
    places = [divmod(place, len(counts)) for place in order]
    return tuple(Confused(i, j, int(wrong[i, j])) for i, j in places if wrong[i, j])


def lost(counts: Ints, fewest: int) -> tuple[Confused, ...]:
    """Classes that are taken for one other class more often than for themselves.

    Args:
        counts: As `confusion` gives them.
        fewest: Examples that a class must have to be judged.
    """
    wrong = counts.copy()
    np.fill_diagonal(wrong, -1)
    taken = wrong.argmax(1)
    return tuple(
        Confused(i, j, int(counts[i, j]))
        for i, j in enumerate(taken.tolist())
        if counts[i].sum() >= fewest and counts[i, j] > counts[i, i]
    )


def right_and_wrong(values: Floats, of: Bools, hits: Bools) -> list[tuple[Floats, Floats]]:
    """An uncertainty of the right and of the wrong answers about each true class.

    Args:
        values: In nats, shape (example,), or (example, label) where each label has an answer.
        of: Which examples belong to each class, shape (example, class).
        hits: Whether the answer is right, shaped like ``values``.
    """
    if values.ndim == 1:
        values, hits = (np.broadcast_to(one[:, None], of.shape) for one in (values, hits))
    return [
        (its[own & right], its[own & ~right])
        for its, own, right in zip(values.T, of.T, hits.T, strict=True)
    ]


@dataclass(frozen=True)
class Group:
    """Test examples with the same number of true labels.

    Attributes:
        least: That number; of the last group, at least so many.
        rows: Which examples, shape (example,).
        expected: Mean number of labels that the student expects, the sum of its probabilities.
    """

    least: int
    rows: Bools
    expected: float


def by_number(labels: Floats, probs: Floats, most: int = 3, fewest: int = 5) -> tuple[Group, ...]:
    """Examples grouped by how many labels are true, where all are known.

    Args:
        labels: 0, 1 or NaN, shape (example, label).
        probs: P(yes), shape (example, label).
        most: From this number on, all are one group.
        fewest: Groups of fewer examples are left out.
    """
    complete = ~np.isnan(labels).any(1)
    true = np.where(complete, np.minimum(np.nansum(labels, 1), most), -1)
    groups = []
    for least in range(most + 1):
        rows = true == least
        if rows.sum() >= fewest:
            groups.append(Group(least, rows, float(probs[rows].sum(1).mean())))
    return tuple(groups)


def several_auroc(groups: tuple[Group, ...], values: Floats) -> float | None:
    """The chance that an example of several labels is more uncertain than one of a single label.

    Args:
        groups: As `by_number` gives them.
        values: An uncertainty, shape (example,).
    """
    number = np.zeros(len(values), dtype=np.int64)
    for group in groups:
        number[group.rows] = group.least
    return wrong_auroc(values[number > 0], number[number > 0] > 1)
