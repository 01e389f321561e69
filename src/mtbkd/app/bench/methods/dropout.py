"""MC dropout on the pool (Gal & Ghahramani 2016, arXiv:1506.02142)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mtbkd.app.bench.students import Climb, climbed
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.prior.settings import Prior
from mtbkd.student.dense import Layer
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import Batch, InputError, Progress

_DROPPED, _PASSES = 0.1, 50


def layers_of(student: Student) -> tuple[Layer, ...]:
    """The layers of a stack of linear ones.

    Raises:
        InputError: If the network is another.
    """
    if student.dense is None:
        raise InputError(
            "Expected a stack of linear layers for MC dropout, but got another network. Leave "
            "`dropout` out of --methods."
        )
    return student.dense


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
    """As `mtbkd.app.bench.students.Search`, each hidden unit dropped by chance, 1 of 10."""
    del progress
    layers, n, observation = layers_of(student), len(training), training.observation

    def climb(generators: Sequence[torch.Generator]) -> Climb:
        def dropped(hidden: Tensor) -> Tensor:
            kept = [torch.rand(hidden.shape[1:], generator=g) >= _DROPPED for g in generators]
            return hidden * torch.stack(kept) / (1 - _DROPPED)

        def gradient(position: Tensor, batch: Batch, rows: Tensor) -> Tensor:
            del rows
            leaf = position.detach().requires_grad_()
            with torch.enable_grad():
                named = student.unflatten(student.natural(leaf))
                hidden, first = student.read(batch.inputs), True
                for layer in layers:
                    if layer.weight is None:
                        hidden = layer.module(hidden)
                        continue
                    hidden = hidden if first else dropped(hidden)
                    hidden, first = hidden @ named[layer.weight].mT, False
                    if layer.bias is not None:
                        hidden = hidden + named[layer.bias].unsqueeze(1)
                value = observation.value(hidden, batch, prior).mean(-1).sum()
                value = value - 0.5 * leaf.square().sum() / n
                return torch.autograd.grad(value, leaf)[0]

        return gradient

    return climbed(
        student, training, prior, settings, climb, n_chains=n_chains, seed=seed, path=path
    )


def draws(
    student: Student, modes: Tensor, training: TrainingSet, prior: Prior, seed: int
) -> PosteriorSamples:
    """50 passes: each drops hidden units, by taking their columns from the next layer's weights."""
    del training, prior
    generator = torch.Generator().manual_seed(seed)
    weights = [layer.weight for layer in layers_of(student) if layer.weight is not None]
    found = []
    for mode in modes:
        for _ in range(_PASSES):
            named = {k: v.clone() for k, v in student.unflatten(student.natural(mode)).items()}
            for name in weights[1:]:
                kept = torch.rand(named[name].shape[1], generator=generator) >= _DROPPED
                named[name] *= kept / (1 - _DROPPED)
            found.append(torch.cat([named[name].flatten() for name in student.names]))
    shapes = tuple(tuple(shape) for shape in student.shapes)
    return PosteriorSamples((torch.stack(found)[:, None],), student.names, shapes)
