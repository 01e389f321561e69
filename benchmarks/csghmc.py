"""What cyclical steps cost in faithfulness: variance at the ends of cycles over the true one.

Each line is one target and setting, the three numbers one for each parameter. Minutes on one core:

    python benchmarks/csghmc.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from mtbkd.inference import csghmc, sghmc
from mtbkd.inference.chains import chain_generators, chainwise_gradient

N_CHAINS, N_UPDATES, BURN_IN = 512, 8000, 1000
ROTATION = torch.linalg.qr(torch.tensor([[1.0, 2.0, 0.5], [-1.0, 1.0, 2.0], [0.3, 1.0, -1.0]]))[0]
COVARIANCE = ROTATION @ torch.diag(torch.tensor([0.16, 0.5, 1.5])) @ ROTATION.T
PRECISION = torch.linalg.inv(COVARIANCE)
SHAPES = torch.tensor([1.0, 2.5, 4.0])


def gaussian(position: Tensor, batch: Any) -> Tensor:
    """Correlated, of largest curvature 6.25."""
    del batch
    return -0.5 * position @ PRECISION @ position


def log_gamma(position: Tensor, batch: Any) -> Tensor:
    """Logarithms of gamma variables, of curvature 4 at the mode."""
    del batch
    return (SHAPES * position - position.exp()).sum()


TARGETS = {
    "gaussian": (gaussian, torch.zeros(3), COVARIANCE.diagonal()),
    "log_gamma": (log_gamma, torch.digamma(SHAPES), torch.polygamma(1, SHAPES)),
}


def measure(target: str, step_size: float, cycle: int, silent: int, whole_kicks: bool) -> Tensor:
    """Variances about the true mean over the true ones, shape (parameter,).

    Args:
        target: Of `TARGETS`.
        step_size: The largest of a cycle.
        cycle: Updates.
        silent: So many at the start of a cycle are without noise.
        whole_kicks: Whether each kick is that of the present step alone.
    """
    log_density, mean, variance = TARGETS[target]
    gradient = chainwise_gradient(log_density)
    with _kicks(gradient) if whole_kicks else nullcontext():
        engine = csghmc.build(gradient, temperature=1.0, step_size=step_size, cycle=cycle)
    generators = chain_generators(0, 0, N_CHAINS, torch.device("cpu"))
    state = engine.init(mean.repeat(N_CHAINS, 1), generators)
    squares = []
    for done in range(N_UPDATES):
        with mock.patch.object(sghmc, "fill_normal", _fill(done % cycle < silent)):
            state, _ = engine.update(state, torch.zeros(N_CHAINS), generators)
        if done >= BURN_IN and (done + 1) % cycle == 0:
            squares.append((state.position - mean).square().mean(0))
    return torch.stack(squares).mean(0) / variance


def _fill(silent: bool) -> Callable[..., Tensor]:
    return (lambda out, generators: out.zero_()) if silent else _FILL


@contextmanager
def _kicks(gradient: Any) -> Iterator[None]:
    """Build on the gradient itself, without the engine's shares of kicks."""
    build = sghmc.build
    with mock.patch.object(sghmc, "build", lambda _, **rest: build(gradient, **rest)):
        yield


_FILL = sghmc.fill_normal


def main() -> None:
    """Print a line for each setting."""
    torch.set_num_threads(1)
    print("target      step  cycle  noise-free  kicks  variance / true")
    for target, largest in (("gaussian", 0.6), ("log_gamma", 0.75)):
        for step, cycle, silent, whole in (
            (largest, 50, 0, False),
            (0.4, 20, 0, False),
            (0.4, 20, 0, True),
            (0.2, 20, 5, False),
            (0.2, 20, 10, False),
        ):
            found = measure(target, step, cycle, silent, whole)
            ratios = " ".join(f"{value:.3f}" for value in found.tolist())
            kicks = "whole" if whole else "halves"
            print(f"{target:10} {step:5.2f} {cycle:6} {silent / cycle:11.2f} {kicks:>6}  {ratios}")


if __name__ == "__main__":
    main()
