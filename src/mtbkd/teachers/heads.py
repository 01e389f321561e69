"""Teachers from frozen features: small heads that answer only for rows they were not trained on.

A head that has seen the label of a row says what it remembers, not what it would say of a new one:
its certainty misleads the student, and weights that are fitted to such answers favour the teacher
with the best memory. So heads are trained crosswise, each without one fold, and a row is answered
by the head that has not seen it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mtbkd.observation import OUTCOMES, Outcome
from mtbkd.observation.base import cell_shape
from mtbkd.teachers.folds import group_folds as group_folds
from mtbkd.teachers.folds import random_folds as random_folds
from mtbkd.teachers.head_training import Part, Training, fit
from mtbkd.types import Family, InputError, check_positive, refuse

_ROWS = 2**14


def cross_fitted(
    features: Tensor,
    labels: Tensor,
    *,
    folds: Tensor,
    family: Family,
    n_outputs: int,
    seed: int,
    groups: Tensor | None = None,
    training: Training = Training(),
) -> Tensor:
    """Out-of-fold logits of heads linear-ReLU-linear, calibrated by a temperature.

    There is one head for each fold, trained on all others; all heads take their steps together. A
    part of its rows, at random or in whole groups, says when a head is best and how sure it may be.

    Args:
        features: Frozen, shape (row, feature).
        labels: Class, -1 where missing, int64 of shape (row,); or 0 and 1, NaN where missing,
            shape (row, label).
        folds: The fold of each row, int64, shape (row,); -1 where no head is trained on it; such
            rows get the mean of all heads' probabilities.
        family: Classification or multilabel.
        n_outputs: Classes or labels.
        seed: What weights, validation rows and batches come from. Head k is the same alone or
            beside others.
        groups: The group of each row, shape (row,): heads are then validated on whole groups. Take
            the folds themselves where they are homology partitions, so that validation is as hard
            as answering is; each head is then trained on two folds fewer than there are.
        training: How heads are trained.

    Returns:
        Logits of classes or log-odds of labels, float32, shape (row, output).

    Raises:
        InputError: If shapes, labels or folds do not fit each other.
    """
    outcome = OUTCOMES[family]
    _check(features, labels, folds, outcome, n_outputs, training)
    numbers = sorted(set(folds.tolist()) - {-1})
    parts = [_split(labels, folds, number, groups, seed, training.validation) for number in numbers]
    heads = fit(features, labels, parts, outcome, n_outputs, training)
    answers = torch.empty(len(features), n_outputs)
    for start in range(0, len(features), _ROWS):
        rows = torch.arange(start, min(start + _ROWS, len(features)))
        said = heads(features[rows])
        pooled = _pool(said, outcome)
        for i, number in enumerate(numbers):
            mine = folds[rows] == number
            pooled[mine] = said[i, mine]
        answers[rows] = pooled
    return answers


def _split(
    labels: Tensor,
    folds: Tensor,
    number: int,
    groups: Tensor | None,
    seed: int,
    share: float,
) -> Part:
    """Rows that the head without this fold learns from."""
    generator = torch.Generator().manual_seed(seed * 1009 + number)
    rows = ((folds != -1) & (folds != number) & _known(labels)).nonzero().flatten()
    if groups is None:
        order = rows[torch.randperm(len(rows), generator=generator)]
        size = max(1, round(share * len(rows)))
        validation, train = order[:size], order[size:]
    else:
        names, own = groups[rows].unique(return_inverse=True)
        sizes = own.bincount()
        order = torch.randperm(len(names), generator=generator)
        enough = int((sizes[order].cumsum(0) < share * len(rows)).sum()) + 1
        held = torch.isin(own, order[:enough])
        validation, train = rows[held], rows[~held]
    if not len(train) or not len(validation):
        raise InputError(
            f"Expected labelled rows to train and to validate the head of fold {number} on, but "
            f"got {len(train)} and {len(validation)}. Make fewer folds, or label more rows."
        )
    return Part(train, validation, generator)


def _pool(said: Tensor, outcome: Outcome) -> Tensor:
    """Logits whose probabilities are the mean of those of all heads."""
    if outcome.exclusive:
        return said.log_softmax(-1).logsumexp(0) - math.log(len(said))
    yes, no = (logsigmoid(sign * said).logsumexp(0) for sign in (1, -1))
    return yes - no


def _known(labels: Tensor) -> Tensor:
    """Rows with a label, shape (row,)."""
    return labels >= 0 if labels.dim() == 1 else ~labels.isnan().all(1)


def _check(
    features: Tensor,
    labels: Tensor,
    folds: Tensor,
    outcome: Outcome,
    n_outputs: int,
    training: Training,
) -> None:
    check_positive(
        hidden=training.hidden,
        epochs=training.epochs,
        patience=training.patience,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        validation=training.validation,
    )
    faults = []
    if outcome.numeric:
        faults.append(
            f"Expected classification or multilabel, but got {outcome.family}. Fit another "
            "model to numbers, and wrap it as a teacher."
        )
    shape = (len(features), *cell_shape(outcome, n_outputs))
    lowest, highest = (
        (float(labels.nan_to_num(0.5).min()), float(labels.nan_to_num(0.5).max()))
        if labels.numel()
        else (0.0, 0.0)
    )
    if tuple(labels.shape) != shape:
        faults.append(
            f"Expected labels of shape {shape} for {outcome.family}, but got "
            f"{tuple(labels.shape)}. Give one row for each row of features."
        )
    elif outcome.exclusive and not -1 <= lowest <= highest < n_outputs:
        faults.append(
            f"Expected classes between 0 and {n_outputs - 1}, or -1 where missing, but got "
            f"{lowest:g} to {highest:g}. Correct the labels."
        )
    elif not outcome.exclusive and not 0 <= lowest <= highest <= 1:
        faults.append(
            f"Expected labels between 0 and 1, or NaN where missing, but got {lowest:g} to "
            f"{highest:g}. Correct the labels."
        )
    n_folds = len(set(folds.flatten().tolist()) - {-1})
    if tuple(folds.shape) != (len(features),) or n_folds < 2:
        faults.append(
            f"Expected one fold for each of {len(features)} rows and two folds or more, but got "
            f"shape {tuple(folds.shape)} with {n_folds}. Make them with random_folds or "
            "group_folds."
        )
    if not features.isfinite().all():
        row = int(features.isfinite().all(1).int().argmin())
        faults.append(
            f"Expected finite features, but got NaN or infinity in row {row}. Compute them again."
        )
    refuse(*faults)
