"""The liking that language models have for some labels, whatever they are asked about."""

from __future__ import annotations

import torch
from torch import Tensor

from mtbkd.outputs.kinds import floored

_FOLDS = 5
_TEMPERATURES = torch.logspace(-1, 1, 41, dtype=torch.float64)


def label_bias(log_probs: Tensor) -> Tensor:
    """Mean log-probability of each label over rows whose labels are not looked at, in nats.

    What a model says of a label on the average, its length and how usual its words are among that,
    is no evidence for it where classes are about equally frequent (Zhao et al. 2021, "Calibrate
    before use", arXiv:2102.09690, who ask about an empty text; the mean over texts of the task is
    that of Fei et al. 2023, arXiv:2305.19148).

    Args:
        log_probs: Shape (row, ..., class); of several labels no and yes.

    Returns:
        Shape (..., class).
    """
    return log_probs.double().mean(0)


def without_bias(log_probs: Tensor, bias: Tensor) -> Tensor:
    """Log-probabilities, shape (row, ..., class), whose labels are liked alike."""
    return floored((log_probs.double() - bias).log_softmax(-1)).to(log_probs.dtype)


def held_out_scores(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Log score of each label at a temperature that the other folds' labels chose, in nats.

    Args:
        log_probs: Shape (row, class).
        labels: Positions of the classes, shape (row,).

    Returns:
        Shape (row,).
    """
    tempered = (log_probs.double()[None] / _TEMPERATURES[:, None, None]).log_softmax(-1)
    scores = tempered.gather(2, labels.expand(len(_TEMPERATURES), -1)[..., None])[..., 0]
    fold = torch.arange(len(labels)) % _FOLDS
    found = torch.empty(len(labels), dtype=torch.float64)
    for k in range(min(_FOLDS, len(labels))):
        others = scores[:, fold != k] if len(labels) > 1 else scores
        found[fold == k] = scores[int(others.sum(1).argmax()), fold == k]
    return found


def gain(log_probs: Tensor, labels: Tensor, bias: Tensor) -> float:
    """What removing a bias adds to the mean held-out log score of labels, in nats.

    Args:
        log_probs: Shape (row, class).
        labels: Positions of the classes, shape (row,).
        bias: Shape (class,).
    """
    before, after = (
        held_out_scores(said, labels) for said in (log_probs, without_bias(log_probs, bias))
    )
    return float((after - before).mean())
