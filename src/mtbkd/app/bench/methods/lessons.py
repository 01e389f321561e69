"""What students learn from who are trained in the usual way: labels, teachers, and their pool."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mtbkd.app.bench.world import World
from mtbkd.app.run.baselines import pooled
from mtbkd.data import Dataset
from mtbkd.training import TrainingSet
from mtbkd.weights.rules import Weighting


def labels_only(world: World, data: Dataset) -> TrainingSet:
    """Examples with a label; their teachers do not count, as the power is 0."""
    return world.lesson(data).subset(data.known)


def averaged(world: World, data: Dataset) -> TrainingSet:
    """The plain mean of all teachers (Hinton et al. 2015, arXiv:1503.02531; You et al. 2017)."""
    return pooled(world.lesson(data, Weighting("uniform")))


def by_entropy(world: World, data: Dataset) -> TrainingSet:
    """EBKD, the more the less entropy (Kwon et al. 2020, ICASSP): ``w_k ~ 1 - H_k / sum_j H_j``."""
    return pooled(world.lesson(data, Weighting("entropy")))


def best_teacher(world: World, data: Dataset) -> TrainingSet:
    """The one teacher with the best log score on the calibration labels."""
    return pooled(world.lesson_of(world.best_teacher(), data))


def stacked(world: World, data: Dataset) -> TrainingSet:
    """The pool under the weights of ours, one teacher from then on."""
    return pooled(world.lesson(data))


def pseudo_labels(world: World, data: Dataset) -> TrainingSet:
    """The pool's most probable class wherever no label is known (Lee 2013, ICML workshop)."""
    values = pooled(world.lesson(data)).values[0]
    labels = torch.where(data.known, data.labels, values.argmax(-1))
    return world.lesson(replace(data, labels=labels))


def one_teacher(training: TrainingSet, log_probs: Tensor) -> TrainingSet:
    """The same examples, with one teacher who says this, shape (example, class)."""
    return replace(
        pooled(training),
        values=log_probs[None].to(training.features.device).float(),
        log_weights=torch.zeros(1, len(training)),
    )
