"""Stacks of linear layers over all chains at once: the fast path of the commonest heads.

Autograd would allocate the gradient of every weight anew at each step and hand it over transposed;
here each is one batched product written where it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_POINTWISE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Identity)


class Record(NamedTuple):
    """What the backward pass needs of one layer; ``after`` is None for a linear one."""

    name: str
    before: Tensor
    after: Tensor | None


def is_dense(head: nn.Module, names: Sequence[str]) -> bool:
    """Whether the head is a stack of linear and pointwise layers, all of it sampled."""
    return (
        isinstance(head, nn.Sequential)
        and all(type(layer) in (nn.Linear, *_POINTWISE) for layer in head)
        and set(names) == {name for name, _ in head.named_parameters()}
    )


def forward(
    head: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor
) -> tuple[Tensor, list[Record]]:
    """Logits of every chain, and the records for `backward`.

    Args:
        head: One that `is_dense`.
        parameters: By name, each with a leading chain axis.
        inputs: Shape (chain, example, feature).

    Returns:
        Logits, shape (chain, example, class), and one record for each layer.
    """
    records, x = [], inputs
    for name, layer in head.named_children():
        if isinstance(layer, nn.Linear):
            records.append(Record(name, x, None))
            weight, bias = parameters[f"{name}.weight"], parameters.get(f"{name}.bias")
            x = x @ weight.mT if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        else:
            before = x.detach().requires_grad_()
            with torch.enable_grad():
                after = layer(before)
            records.append(Record(name, before, after))
            x = after.detach()
    return x, records


def backward(
    records: Sequence[Record],
    parameters: Mapping[str, Tensor],
    slopes: Tensor,
    grads: Mapping[str, Tensor],
    scales: Mapping[str, float],
) -> None:
    """Add the gradients of every chain, each times the scale of its parameter.

    Args:
        records: From `forward`.
        parameters: As given there.
        slopes: Derivatives with respect to the logits, shape (chain, example, class).
        grads: By name, added to.
        scales: By name.
    """
    for index in range(len(records) - 1, -1, -1):
        name, before, after = records[index]
        if after is not None:
            (slopes,) = torch.autograd.grad(after, before, slopes)
            continue
        weight, bias = f"{name}.weight", f"{name}.bias"
        grads[weight].baddbmm_(slopes.mT, before, alpha=scales[weight])
        if bias in grads:
            grads[bias].add_(slopes.sum(1), alpha=scales[bias])
        if index:
            slopes = torch.bmm(slopes, parameters[weight])
