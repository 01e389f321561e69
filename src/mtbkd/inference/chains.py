"""What every engine does with chains: gradients side by side, noise from one generator each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.types import Batch, BatchSource, Generators, Gradient, LogPosterior

_ROWS = 2**16
_MUCH = 2**25  # examples times chains times products from which a second thread pays


def chainwise_gradient(log_posterior: LogPosterior) -> Gradient:
    """Return ``(position, batch) -> (values, gradients)`` for all chains in one pass.

    Only the forward pass goes through `torch.vmap`: chains do not interact, so the gradient of
    their sum is the gradient of each.

    Args:
        log_posterior: For one chain: flat position (parameter,) and its batch to a scalar.

    Returns:
        A function of positions (chain, parameter) and a batch with a leading chain axis; values
        have shape (chain,) and gradients (chain, parameter).
    """

    def gradient(position: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        leaf = position.detach().requires_grad_()
        with torch.enable_grad():
            values = torch.vmap(log_posterior, (0, _axes(batch)))(leaf, batch)
            (grads,) = torch.autograd.grad(values.sum(), leaf)
        return values.detach(), grads

    return gradient


def _axes(batch: Any) -> Any:
    """Where the chain axis of each part is; nowhere of what there is none."""
    if isinstance(batch, Batch):
        return Batch(0, 0, 0, None if batch.views is None else 0)  # type: ignore[arg-type]
    return 0


def in_parts(gradient: Gradient, n_rows: int = _ROWS, work: int | None = None) -> Gradient:
    """The same gradient, over a few examples at a time, so that memory is bounded.

    Where that is much work, two threads take half of the chains each. What is divided does not
    depend on the machine, so neither do the numbers.

    Args:
        gradient: Gradient of the log posterior averaged per example. Threads may call it.
        n_rows: Examples held at a time, over all chains together.
        work: About how many products a gradient of one example costs; None for one for each
            parameter.
    """

    def summed(position: Tensor, batch: BatchSource) -> tuple[Tensor, Tensor]:
        n, size = batch.n_examples, max(1, n_rows // len(position))
        if isinstance(batch, Batch) and n <= size:
            return _divided(gradient, position, batch, work)
        values, grads = torch.zeros_like(position[:, 0]), torch.zeros_like(position)
        for start in range(0, n, size):
            part = batch.rows(slice(start, start + size))
            value, grad = _divided(gradient, position, part, work)
            share = part.n_examples / n
            values.add_(value, alpha=share)
            grads.add_(grad, alpha=share)
        return values, grads

    return summed


def _divided(
    gradient: Gradient, position: Tensor, batch: Batch, work: int | None
) -> tuple[Tensor, Tensor]:
    """The gradient, by two threads if it is much work on a processor."""
    n_chains, middle = len(position), len(position) // 2
    products = batch.n_examples * n_chains * (work or position.shape[1])
    much = products >= _MUCH and position.device.type == "cpu"
    if not (middle and much):
        return gradient(position, batch)
    values, grads = torch.empty_like(position[:, 0]), torch.empty_like(position)

    def take(own: slice) -> None:
        value, grad = gradient(position[own], batch.each(lambda part: part[own]))
        values[own], grads[own] = value, grad  # copied: the next call overwrites it

    first = _thread(os.getpid()).submit(take, slice(0, middle))
    take(slice(middle, None))
    first.result()
    return values, grads


@cache
def _thread(process: int) -> ThreadPoolExecutor:
    """A second thread, which a fork of this process does not inherit."""
    del process
    return ThreadPoolExecutor(1)


def fill_normal(out: Tensor, generators: Generators) -> Tensor:
    """Fill with standard normal noise; row c comes from generator c."""
    for row, generator in zip(out, generators, strict=True):
        row.normal_(generator=generator)
    return out


def chain_generators(
    seed: int, stream: int, n_chains: int, device: torch.device
) -> list[torch.Generator]:
    """One generator for each chain; chain c's does not depend on the number of chains.

    Args:
        seed: The run's seed.
        stream: Tells apart stages of one run that must not share random numbers.
        n_chains: How many.
        device: Where they draw.
    """
    states = [np.random.SeedSequence([seed, stream, chain]) for chain in range(n_chains)]
    seeds = [int(state.generate_state(1, np.uint64)[0] >> np.uint64(1)) for state in states]
    return [torch.Generator(device).manual_seed(s) for s in seeds]  # each its own generator
