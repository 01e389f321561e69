"""Independent modes, each a draw: deep ensembles, the baseline that explores nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from mtbkd.inference.method import Method, every_example
from mtbkd.types import Engine, Generators


class State(NamedTuple):
    """Positions, shape (chain, parameter)."""

    position: Tensor


def build() -> Engine:
    """Build the engine (Lakshminarayanan et al. 2017, arXiv:1612.01474): nothing moves.

    Returns:
        The engine; ``info`` is empty.
    """

    def init(position: Tensor, generators: Generators) -> State:
        del generators
        return State(position.clone())

    def update(state: State, batch: Any, generators: Generators) -> tuple[State, dict[str, Tensor]]:
        del batch, generators
        return state, {}

    return Engine(init, update)


METHOD = Method(
    build=lambda problem, plan: build(),
    steps=lambda settings: (0, 1, 1),
    batch_size=every_example,
    independent=True,
)
