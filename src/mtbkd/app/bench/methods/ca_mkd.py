"""CA-MKD: teachers count as they name the label (Zhang et al. 2022, arXiv:2201.00007)."""

from __future__ import annotations

import torch
from torch import Tensor

from mtbkd.app.bench.methods.lessons import one_teacher
from mtbkd.app.bench.world import World
from mtbkd.data import Dataset
from mtbkd.training import TrainingSet
from mtbkd.weights.rules import Weighting


def confidence_weights(log_probs: Tensor, labels: Tensor) -> Tensor:
    """``w_k = (1 - exp(L_k) / sum_j exp(L_j)) / (K - 1)``, L_k the cross entropy with the label.

    Equations 2 and 3 of the paper. Where no label is known, and with one teacher, all count alike;
    the paper has labels everywhere. Its loss on features of the teachers is left out, since what
    teachers say is all that there is.

    Args:
        log_probs: Log-probabilities in nats, shape (teacher, example, class).
        labels: Class indices, -1 where missing, shape (example,).

    Returns:
        Shape (teacher, example).
    """
    n_teachers, n_examples, _ = log_probs.shape
    even = torch.full((n_teachers, n_examples), 1 / n_teachers)
    if n_teachers == 1:
        return even
    losses = -log_probs[:, torch.arange(n_examples), labels.clamp_min(0)]
    own = (1 - torch.softmax(losses, 0)) / (n_teachers - 1)
    return torch.where(labels >= 0, own, even)


def lesson(world: World, data: Dataset) -> TrainingSet:
    """The mean of all teachers under these weights, as the one teacher of a student."""
    training = world.lesson(data, Weighting("uniform"))
    said = training.said(slice(None))
    every = training.observation.complete(said, None)
    weights = confidence_weights(every, training.labels)
    weights = weights * ~torch.isneginf(said.log_weights)
    mean = (weights.unsqueeze(-1) * every.exp()).sum(0)
    total = mean.sum(-1, keepdim=True)
    even = torch.full_like(mean, 1 / mean.shape[-1])
    return one_teacher(training, torch.where(total > 0, mean / total, even).clamp_min(1e-7).log())
