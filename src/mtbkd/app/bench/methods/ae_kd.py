"""AE-KD: weights under which teachers' gradients agree (Du et al. 2020, NeurIPS 33)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.bench.students import Climb, climbed
from mtbkd.app.bench.world import World
from mtbkd.data import Dataset
from mtbkd.inference.modes import MapSettings
from mtbkd.prior.settings import Prior
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import Batch, Floats, Progress
from mtbkd.weights.rules import Weighting

_CAP, _ROUNDS = 0.6, 100


def lesson(world: World, data: Dataset) -> TrainingSet:
    """All teachers, each by itself."""
    return world.lesson(data, Weighting("uniform"))


def min_norm(gram: Floats, cap: float = _CAP) -> Floats:
    """``argmin_a |sum_k a_k g_k|^2`` with ``sum a = 1`` and ``0 <= a_k <= C``: equation 8.

    Weight goes from one teacher to another, the pair that gains most first, as far as it helps
    (sequential minimal optimisation, Platt 1998). C is the paper's tolerance of disagreement, 1 for
    the plain min-norm point (Désidéri 2012); it is at least ``1 / K``.

    Args:
        gram: Products of the teachers' gradients, shape (teacher, teacher).
        cap: C.

    Returns:
        Shape (teacher,).
    """
    n = len(gram)
    cap = max(cap, 1 / n)
    weights = np.full(n, 1 / n)
    for _ in range(_ROUNDS):
        slope = gram @ weights
        more = int(np.where(weights < cap, slope, np.inf).argmin())
        less = int(np.where(weights > 0, slope, -np.inf).argmax())
        gain = slope[less] - slope[more]
        if gain <= 1e-9 * np.abs(slope).max():
            break
        bend = gram[more, more] + gram[less, less] - 2 * gram[more, less]
        step = min(gain / bend, cap - weights[more], weights[less])
        weights[more] += step
        weights[less] -= step
    return weights


def search(
    student: Student,
    training: TrainingSet,
    prior: Prior,
    settings: MapSettings,
    *,
    n_chains: int,
    seed: int,
    path: Path | None,
    progress: Progress | None = None,
) -> Tensor:
    """As `mtbkd.app.bench.students.Search`: at each step the teachers' gradients are weighed anew.

    Gradients are those of the distillation losses in the student's logits, as in the paper.
    """
    del progress
    said = training.said(slice(None))
    heard = (~torch.isneginf(said.log_weights)).float()
    every = training.observation.complete(said, None).exp() * heard.unsqueeze(-1)
    strength, n = float(prior.power) * float(prior.concentration), len(training)

    def climb(generators: Sequence[torch.Generator]) -> Climb:
        del generators

        def gradient(position: Tensor, batch: Batch, rows: Tensor) -> Tensor:
            def logits_of(z: Tensor) -> Tensor:
                return torch.vmap(student.logits)(z, batch.inputs)

            found: Any = torch.func.vjp(logits_of, position)
            logits, pull = found
            probs = torch.softmax(logits, -1)
            slopes = torch.zeros_like(probs)
            for chain, own in enumerate(rows):
                gaps = every[:, own] - heard[:, own].unsqueeze(-1) * probs[chain]
                flat = gaps.flatten(1).double().numpy()
                weights = torch.from_numpy(min_norm(flat @ flat.T)).float()
                slopes[chain] = strength * torch.einsum("k,knc->nc", weights, gaps)
            known = (batch.labels >= 0).unsqueeze(-1)
            hot = torch.nn.functional.one_hot(batch.labels.clamp_min(0), probs.shape[-1])
            slopes = slopes + known * (hot - probs)
            return pull(slopes / rows.shape[1])[0] - position / n

        return gradient

    return climbed(
        student, training, prior, settings, climb, n_chains=n_chains, seed=seed, path=path
    )
