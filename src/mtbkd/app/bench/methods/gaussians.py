"""Gaussians around a network that learned from the pool: last-layer Laplace, and SWAG."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.inference.run import sample
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.inference.settings import SamplerSettings
from mtbkd.inference.step_size import largest_curvature, start_direction
from mtbkd.prior.settings import Prior
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import Student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.types import Generators

_DRAWS, _STREAM = 50, 0
_EPOCHS, _COLUMNS, _BATCH, _ITERATIONS, _SHARE = 40, 20, 64, 20, 0.5


def laplace(
    student: Student, modes: Tensor, training: TrainingSet, prior: Prior, seed: int
) -> PosteriorSamples:
    """50 draws of the last layer's Gaussian at the mode (Daxberger et al. 2021, arXiv:2106.14806).

    The generalised Gauss-Newton precision of the weighted loss, by `mtbkd.student.curvature`.
    """
    settings = SamplerSettings(engine="laplace", draws=_DRAWS)
    return sample(student, training, prior, settings, modes, seed=seed).samples


def swag(
    student: Student, modes: Tensor, training: TrainingSet, prior: Prior, seed: int
) -> PosteriorSamples:
    """50 draws of the Gaussian of SGD's iterates (Maddox et al. 2019, arXiv:1902.02476).

    From the mode SGD goes on for 40 epochs at a constant rate, half of the reciprocal of the
    largest curvature; a snapshot is taken after each.
    """
    generators = chain_generators(seed, _STREAM, len(modes), modes.device)
    batches, n = Minibatches(training, prior, generators), len(training)
    gradient = in_parts(
        posterior_gradient(student, n, prior, training.observation), work=student.work
    )
    start = start_direction(modes, generators)
    sharp, _ = largest_curvature(gradient, modes, batches(n), start, _ITERATIONS)
    rate = (_SHARE / sharp.clamp_min(1e-6)).unsqueeze(1)
    position, snapshots = modes.clone(), []
    for _ in range(_EPOCHS):
        for _ in range(math.ceil(n / _BATCH)):
            _, slope = gradient(position, batches(_BATCH))
            position = position + rate * slope
        snapshots.append(position)
    found = gaussian_draws(torch.stack(snapshots, 1), _DRAWS, generators)
    shapes = tuple(tuple(shape) for shape in student.shapes)
    return PosteriorSamples((student.natural(found),), student.names, shapes)


def gaussian_draws(snapshots: Tensor, n: int, generators: Generators) -> Tensor:
    """``mean + sd * z1 / sqrt(2) + D z2 / sqrt(2 (K - 1))``: equation 1 of SWAG.

    ``sd`` is the snapshots' deviation in each direction, ``D`` holds the last K = 20 deviations
    from the running mean.

    Args:
        snapshots: Shape (chain, snapshot, parameter).
        n: Draws of each chain.
        generators: One for each chain.

    Returns:
        Shape (chain, draw, parameter).
    """
    mean = snapshots.mean(1, keepdim=True)
    spread = (snapshots.square().mean(1, keepdim=True) - mean.square()).clamp_min(0).sqrt()
    counts = torch.arange(1, snapshots.shape[1] + 1).view(1, -1, 1)
    strays = (snapshots - snapshots.cumsum(1) / counts)[:, -_COLUMNS:]
    k = strays.shape[1]
    first = torch.stack([torch.randn(n, snapshots.shape[2], generator=g) for g in generators])
    second = torch.stack([torch.randn(n, k, generator=g) for g in generators])
    return mean + spread * first / math.sqrt(2) + second @ strays / math.sqrt(2 * max(k - 1, 1))
