"""All draws of a network in one graph: side by side where they are stacks of linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtbkd.student.dense import dense_layers


class Stack(nn.Module):
    """A network under each of several draws of its parameters.

    A stack of linear layers is one product over all draws in its first layer, which reads the same
    for all of them, and a batched one in each of the others. Any other network is written out once
    for each draw.

    Attributes:
        head: The network.
        names: Its parameters that differ between draws.
        layers: Those of a stack of linear layers; None for any other network.
        n_draws: How many there are.
    """

    def __init__(
        self, head: nn.Module, draws: dict[str, Tensor], dtype: torch.dtype = torch.float32
    ) -> None:
        """Keep the draws as the products read them.

        Args:
            head: The network.
            draws: By name, shape (draw, ...); those that the network does not have are left out.
            dtype: How they are stored; they are read as float32 in any case.
        """
        super().__init__()
        own = {name for name, _ in head.named_parameters()}
        self.head, self.names = head, tuple(name for name in draws if name in own)
        self.layers = dense_layers(head, self.names) if self.names else None
        self.n_draws = len(next(iter(draws.values())))
        for i, layer in enumerate(self.layers or ()):
            if layer.weight is None:
                continue
            weight = draws[layer.weight]
            first = not any(earlier.weight for earlier in (self.layers or ())[:i])
            laid_out = weight.flatten(0, 1).T if first else weight.mT
            self.register_buffer(f"weight_{i}", laid_out.to(dtype).contiguous())
            if layer.bias is not None:
                bias = draws[layer.bias].unsqueeze(1)
                self.register_buffer(f"bias_{i}", (bias.flatten() if first else bias).to(dtype))
        if self.layers is None:
            for i, name in enumerate(self.names):
                for draw, value in enumerate(draws[name]):
                    self.register_buffer(f"draw_{draw}_{i}", value.to(dtype).contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """From shape (example, ...) to (draw, example, output)."""
        if self.layers is not None:
            return self._side_by_side(features)
        each = [
            torch.func.functional_call(
                self.head,
                {name: self._read(f"draw_{draw}_{i}") for i, name in enumerate(self.names)},
                (features,),
            )
            for draw in range(self.n_draws)
        ]
        return torch.stack(each)

    def _side_by_side(self, x: Tensor) -> Tensor:
        apart = False
        for i, layer in enumerate(self.layers or ()):
            if layer.weight is None:
                x = layer.module(x)
                continue
            x = x @ self._read(f"weight_{i}")
            if layer.bias is not None:
                x = x + self._read(f"bias_{i}")
            if not apart:
                x, apart = x.unflatten(-1, (self.n_draws, -1)).transpose(0, 1), True
        return x

    def _read(self, name: str) -> Tensor:
        return self.get_buffer(name).float()
