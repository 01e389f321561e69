"""Stacks of linear layers over all chains at once: the fast path of the commonest heads.

Autograd would allocate the gradient of every weight anew at each step and hand it over transposed;
here each is one batched product written where it belongs. No module's parameters are swapped, so
threads may share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_POINTWISE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Identity)


class Layer(NamedTuple):
    """A linear layer, or a pointwise one, which has no weight.

    Attributes:
        module: What is called if it is pointwise.
        weight: Name of its weight; layers that share one have the same name here.
        bias: Name of its bias, if it has one.
    """

    module: nn.Module
    weight: str | None = None
    bias: str | None = None


class Record(NamedTuple):
    """What the backward pass needs of one layer; ``after`` is None for a linear one."""

    layer: Layer
    before: Tensor
    after: Tensor | None


def dense_layers(head: nn.Module, names: Sequence[str]) -> tuple[Layer, ...] | None:
    """The layers in the order in which they are called; one that is called twice occurs twice.

    Args:
        head: Any network.
        names: Its sampled parameters.

    Returns:
        None if the head is anything but a stack of linear and pointwise layers, all of it sampled.
    """
    known = {id(p): name for name, p in head.named_parameters()}
    if not is_stack(head) or set(names) != set(known.values()):
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in head.modules()):
        return None
    found = []
    for module in _called(head):
        changed = "forward" in vars(module)
        if type(module) in _POINTWISE and not changed:
            found.append(Layer(module))
        elif type(module) is nn.Linear and not changed and id(module.weight) in known:
            bias = None if module.bias is None else known[id(module.bias)]
            found.append(Layer(module, known[id(module.weight)], bias))
        else:
            return None
    return tuple(found)


def is_stack(module: nn.Module) -> bool:
    """Whether the module calls its children one after the other."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """The modules in a stack of stacks, in the order of their calls."""
    if isinstance(module, nn.Sequential) and is_stack(module):
        for child in module:
            yield from _called(child)
    else:
        yield module


def apply(layers: Sequence[Layer], parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Outputs for one set of parameters: (example, feature) to (example, output)."""
    x = inputs
    for layer in layers:
        if layer.weight is None:
            x = layer.module(x)
        else:
            bias = None if layer.bias is None else parameters[layer.bias]
            x = nn.functional.linear(x, parameters[layer.weight], bias)
    return x


def forward(
    layers: Sequence[Layer], parameters: Mapping[str, Tensor], inputs: Tensor
) -> tuple[Tensor, list[Record]]:
    """Logits of every chain, and the records for `backward`.

    Args:
        layers: Those of `dense_layers`.
        parameters: By name, each with a leading chain axis.
        inputs: Shape (chain, example, feature).

    Returns:
        Logits, shape (chain, example, class), and one record for each layer.
    """
    records, x = [], inputs
    for layer in layers:
        if layer.weight is not None:
            records.append(Record(layer, x, None))
            weight = parameters[layer.weight].mT
            if layer.bias is None:
                x = x @ weight
            else:
                x = torch.baddbmm(parameters[layer.bias].unsqueeze(1), x, weight)
        elif type(layer.module) is nn.ReLU:
            x = x.relu()
            records.append(Record(layer, x, x))
        else:
            before = x.detach().requires_grad_()
            with torch.enable_grad():
                after = layer.module(before)
            records.append(Record(layer, before, after))
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
        layer, before, after = records[index]
        if after is not None:
            slopes = through(layer, before, after, slopes)
        if layer.weight is not None:
            grads[layer.weight].baddbmm_(slopes.mT, before, alpha=scales[layer.weight])
            if layer.bias is not None:
                grads[layer.bias].add_(slopes.sum(1), alpha=scales[layer.bias])
            if index:
                slopes = torch.bmm(slopes, parameters[layer.weight])


def through(layer: Layer, before: Tensor, after: Tensor, slopes: Tensor) -> Tensor:
    """Slopes in what a pointwise layer was given, from those in what it made of it."""
    if type(layer.module) is nn.ReLU:
        return slopes.masked_fill(after <= 0, 0.0)  # autograd is slow here, and slow to import
    return torch.autograd.grad(after, before, slopes)[0]
