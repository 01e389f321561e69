"""A network in two: the part before the first sampled parameter, and the part that is sampled."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

NETWORK_LOCK = threading.RLock()
"""Held while a module's parameters are swapped or a hook is on it, unseen by other threads.

One for all modules, since students that were made from one network share its layers.
"""


class _Frozen(nn.Module):
    """The network up to the input of the sampled part, caught on its way."""

    def __init__(self, network: nn.Module, stop: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._stop = (stop,)  # in a tuple, so that it is not registered twice

    def forward(self, inputs: Tensor) -> Tensor:
        return self.calls(inputs)[0][0]

    def calls(self, inputs: Tensor) -> list[tuple[Tensor, ...]]:
        """The arguments of every call of the sampled part, in order."""
        caught: list[tuple[Tensor, ...]] = []
        with NETWORK_LOCK:
            hook = self._stop[0].register_forward_pre_hook(lambda _, args: caught.append(args))
            try:
                self.network(inputs)
            finally:
                hook.remove()
        return caught


def split(
    module: nn.Module, chosen: Sequence[str], example: Tensor
) -> tuple[nn.Module, nn.Module | None, str]:
    """Find (head, frozen part, prefix of the head's parameter names).

    Nothing is split off that only makes its inputs larger, as floats of bytes are.

    Args:
        module: The network.
        chosen: Its parameters that are sampled.
        example: A batch of inputs, as the network reads them.
    """
    paths = [name.split(".")[:-1] for name in chosen]
    common = paths[0]
    for path in paths[1:]:
        size = next(
            (i for i, (a, b) in enumerate(zip(common, path, strict=False)) if a != b),
            min(len(common), len(path)),
        )
        common = common[:size]
    owner = module.get_submodule(".".join(common))
    prefix = ".".join(common) + "." if common else ""
    head: nn.Module = owner
    stop: nn.Module = owner
    first: list[nn.Module] = []
    if isinstance(owner, nn.Sequential):
        wanted = {id(module.get_parameter(name)) for name in chosen}
        start = next(
            i for i, child in enumerate(owner) if wanted & {id(p) for p in child.parameters()}
        )
        if owner is module and start == 0:
            return module, None, ""
        head, stop = owner[start:], owner[start]  # a slice keeps its children's names
        first = list(owner)[:start]
    if stop is module:
        return module, None, ""
    frozen = _Frozen(module, stop)
    with torch.inference_mode():
        calls, whole = frozen.calls(example), module(example)
        once = len(calls) == 1 and len(calls[0]) == 1
        part = head(*calls[0]) if once else whole.new_empty(0)
        if part.shape == whole.shape and torch.allclose(part, whole, atol=1e-5):
            costs = owner is not module or any(list(layer.parameters()) for layer in first)
            if not costs and _n_bytes(calls[0][0]) > _n_bytes(example):
                return module, None, ""
            return head, frozen, prefix
    warnings.warn(
        f"The network does more after `{prefix.rstrip('.') or 'its head'}` than return its "
        "output, so its frozen part runs again at every step. Let it end with the sampled part.",
        stacklevel=4,
    )
    return module, None, ""


def _n_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
