"""How chains and examples pass through a network that is no stack of linear layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from mtbkd.types import InputError

Call = Callable[[dict[str, Tensor], Tensor], Tensor]
"""Parameters by name and inputs, shape (example, ...), to outputs, shape (example, output)."""

_HELD = 2**22  # floats that autograd holds at a time: what a processor's cache is about to take
_UNKNOWN = 64  # examples at a time where nobody knows how much it holds
_SLOW_TOGETHER = (
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.EmbeddingBag,
    ParametrizationList,
)
_CLOSE = 1e-3

_OVERWRITES = (
    "Expected a network that leaves its inputs as they are, but it overwrites them. Use operations "
    "that are not in place on what it is given."
)
_CHANGES = (
    "Expected a network that answers the same when asked again, but its answers differ. Let "
    "dropout and noise follow `self.training`, so that evaluation switches them off."
)
_BESIDE = (
    "Expected a network whose answer on an example does not depend on the others beside it, but it "
    "does. Give normalisations statistics that are kept (`track_running_stats`), or use GroupNorm "
    "or LayerNorm."
)
_CONSTANT = (
    "Expected outputs that depend on the sampled parameters, but no gradient reaches them. Remove "
    "`detach`, `no_grad` or rounding from the network, or sample other parameters."
)


class Passage(NamedTuple):
    """How chains and examples pass through a head.

    Attributes:
        in_turn: Whether chains go one after the other. Side by side, by `torch.vmap`, a convolution
            becomes a grouped one, which processors are slow at, and some layers cannot go.
        channels_last: Whether pictures are laid out with their channels last.
        held: Floats of each example that autograd holds; 0 if not known.
    """

    in_turn: bool = False
    channels_last: bool = False
    held: int = 0

    @property
    def rows(self) -> int:
        """Examples of one chain that go at a time, if chains go in turn."""
        return max(1, _HELD // self.held) if self.held else _UNKNOWN

    def laid_out(self, inputs: Tensor) -> Tensor:
        """Inputs, shape (example, ...), in the layout that is read fast."""
        return (
            inputs.contiguous(memory_format=torch.channels_last) if self.channels_last else inputs
        )


def in_turn_by_kind(head: nn.Module) -> bool:
    """Whether a head has layers for which it is known that chains go better one by one."""
    kinds = any(isinstance(layer, _SLOW_TOGETHER) for layer in head.modules())
    return kinds or any(parameter.dim() > 2 for parameter in head.parameters())


def find_passage(call: Call, head: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Passage:
    """See how chains and examples pass best; it depends on kinds of layers, not on a clock.

    Args:
        call: The head as a function.
        head: What it calls.
        parameters: One set of them.
        x: Inputs, as the head takes them.
    """
    last = False
    if x.dim() == 4 and any(type(layer) is nn.Conv2d for layer in head.modules()):
        laid_out = x.contiguous(memory_format=torch.channels_last)
        found = _attempt(lambda: call(parameters, laid_out))  # a view may not like the layout
        last = isinstance(found, Tensor) and _alike(found, call(parameters, x))
    alone = in_turn_by_kind(head) or not _pass_together(call, parameters, x)
    return Passage(in_turn=alone, channels_last=last, held=_held(call, parameters, x[:1]))


def as_read(network: nn.Module, example: Tensor) -> Tensor:
    """The example as the network reads it: as it is, or as floats.

    Raises:
        InputError: If it reads neither, overwrites it, or does not answer with one tensor.
    """
    whole = not example.is_floating_point()
    found, read = _answer(network, example), example
    if whole and isinstance(found, Exception):
        read = example.float()
        found = _answer(network, read)
    shape = tuple(example.shape[1:])
    if isinstance(found, Exception):
        raise InputError(
            f"Expected a network that reads examples of shape {shape}, but got: "
            f"{str(found).splitlines()[0] or type(found).__name__}. Change its first layers, or "
            "what it is given."
        )
    if found is None:
        raise InputError(_OVERWRITES)
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(example):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"Expected a network that answers {len(example)} examples with one tensor of shape "
            f"({len(example)}, output), but got {got}. Return the logits alone."
        )
    return read


def check_features(features: Callable[[Tensor], Tensor], example: Tensor) -> None:
    """Refuse a frozen part that is no function of one example.

    Raises:
        InputError: If it is not.
    """
    both, one = features(example), _attempt(lambda: features(example[:1]))
    if not isinstance(one, Tensor) or not _alike(one, both[:1]):
        raise InputError(_BESIDE)


def check_network(call: Call, parameters: dict[str, Tensor], features: Tensor) -> None:
    """Refuse a network that is no function of one example and its parameters.

    Args:
        call: Its sampled part.
        parameters: One set of them.
        features: What the sampled part reads of some examples.

    Raises:
        InputError: Saying what it is instead.
    """
    given = features.clone()
    first = call(parameters, given)
    faults = [] if _same(features, given) else [_OVERWRITES]
    if not _alike(call(parameters, features.clone()), first):
        faults.append(_CHANGES)
    elif len(features) > 1:
        one = _attempt(lambda: call(parameters, features[:1].clone()))
        faults += [] if isinstance(one, Tensor) and _alike(one, first[:1]) else [_BESIDE]
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    with torch.enable_grad():
        total = call(leaves, features.clone()).float().sum()
        if not total.requires_grad:
            faults.append(_CONSTANT)
        else:
            every = list(leaves.values())
            found = _attempt(lambda: torch.autograd.grad(total, every, allow_unused=True))
            if isinstance(found, Exception):
                faults.append(
                    "Expected a network that can be differentiated, but got: "
                    f"{str(found).splitlines()[0]}. Use operations that are not in place."
                )
    if faults:
        raise InputError(*faults)


def _answer(network: nn.Module, example: Tensor) -> Any:
    """What the network answers, None if it overwrites what it reads, or why it cannot."""
    given = example.clone()
    with torch.inference_mode():
        found = _attempt(lambda: network(given))
    return found if isinstance(found, Exception) or _same(given, example) else None


def _attempt(function: Callable[[], Any]) -> Any:
    """What it returns, or what it raises."""
    try:
        return function()
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        return error


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.nan_to_num(), second.nan_to_num())


def _alike(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=_CLOSE, atol=_CLOSE, equal_nan=True)


def _pass_together(call: Call, parameters: dict[str, Tensor], x: Tensor) -> bool:
    """Whether two chains go side by side to what each of them says alone."""
    both = {name: torch.stack([p, p]).requires_grad_() for name, p in parameters.items()}
    try:
        with torch.enable_grad():
            outputs = torch.vmap(call)(both, torch.stack([x, x]))
            torch.autograd.grad(outputs.sum(), list(both.values()), allow_unused=True)
    except Exception:  # whatever it is, alone they go
        return False
    return _alike(outputs[1].detach(), call(parameters, x))


def _held(call: Call, parameters: dict[str, Tensor], x: Tensor) -> int:
    """Floats that autograd holds of one example, its parameters left out."""
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    own = {value.untyped_storage().data_ptr() for value in leaves.values()}
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            sizes[place] = tensor.numel() * tensor.element_size() // 4
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        outputs = call(leaves, x)
    return max(1, sum(sizes.values()), outputs.numel())
