"""What limits the step size: the stiffest direction and the noise of minibatch gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mtbkd.inference.chains import fill_normal
from mtbkd.types import Generators, Gradient

Batches = Callable[[int], Any]
"""Draws a batch of so many examples for each chain."""


def largest_curvature(
    gradient: Gradient, position: Tensor, batch: Any, direction: Tensor, n_iterations: int
) -> tuple[Tensor, Tensor]:
    """Largest absolute curvature of the log posterior, by power iteration.

    Hessian products are central differences of gradients on one batch, so any network that has
    first derivatives will do.

    Args:
        gradient: Of the log posterior averaged per example.
        position: Shape (chain, parameter).
        batch: The same at every iteration.
        direction: Where to start, shape (chain, parameter).
        n_iterations: At least one.

    Returns:
        Curvatures, shape (chain,), and the directions found, to start from next time.
    """
    radius = 1e-2
    curvature = torch.ones(len(position), device=position.device)
    for _ in range(n_iterations):
        unit = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        ahead = gradient(position + radius * unit, batch)[1].clone()
        behind = gradient(position - radius * unit, batch)[1]
        direction = (behind - ahead).div_(2 * radius)
        curvature = torch.linalg.vector_norm(direction, dim=1)
    return curvature, direction


def gradient_noise(gradient: Gradient, position: Tensor, batches: tuple[Any, Any]) -> Tensor:
    """Mean variance of a component of the minibatch gradient, from two batches: (chain,)."""
    first = gradient(position, batches[0])[1].clone()
    second = gradient(position, batches[1])[1]
    return (first - second).square().mean(1) / 2


def start_direction(position: Tensor, generators: Generators) -> Tensor:
    """A random direction for each chain to start the power iteration from."""
    return fill_normal(torch.empty_like(position), generators)
