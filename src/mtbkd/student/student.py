"""The student: a frozen part whose features are cached, and a head whose parameters are sampled."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import Tensor, nn

from mtbkd.student.dense import Layer, apply, dense_layers
from mtbkd.student.finite import CORRECT_INPUTS, SCALE_INPUTS, check_finite
from mtbkd.types import Generators, InputError

NETWORK_LOCK = threading.RLock()
"""Held while a module's parameters are swapped or a hook is on it, unseen by other threads.

One for all modules, since students that were made from one network share its layers.
"""


@dataclass(frozen=True)
class Student:
    """A network as a function of a flat, standardised position.

    A position ``z`` stands for the parameters ``prior_mean + prior_scale * z``, so the weight
    prior is standard normal in every direction and one step size suits all layers.

    Attributes:
        head: The part that depends on sampled parameters; maps features to logits.
        frozen: The part before it, run once for each example; None if there is none.
        names: Sampled parameters, as ``head.named_parameters()`` calls them.
        shapes: Their shapes.
        prior_mean: Mean of the weight prior, shape (parameter,).
        prior_scale: Standard deviation of the weight prior, shape (parameter,), the same within
            each named parameter.
        weight_scale: That deviation in units of ``1 / sqrt(fan_in)``.
    """

    head: nn.Module
    frozen: nn.Module | None
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    prior_mean: Tensor
    prior_scale: Tensor
    weight_scale: float = 1.0

    @property
    def n_parameters(self) -> int:
        """How many parameters are sampled."""
        return self.prior_mean.numel()

    @cached_property
    def dense(self) -> tuple[Layer, ...] | None:
        """The head's layers, if it is a stack for the fast path."""
        with NETWORK_LOCK:
            return dense_layers(self.head, self.names)

    def scales(self) -> dict[str, float]:
        """Standard deviation of the weight prior for each named parameter."""
        parts = self.prior_scale.split([shape.numel() for shape in self.shapes])
        return {name: float(part[0]) for name, part in zip(self.names, parts, strict=True)}

    def fixed(self) -> dict[str, Tensor]:
        """Everything besides the draws: parameters that are not sampled, and buffers, by name."""
        sampled = {id(self.head.get_parameter(name)) for name in self.names}
        found: dict[str, Tensor] = {}
        for part, module in (("head", self.head), ("frozen", self.frozen)):
            if module is not None:
                every = module.named_parameters(remove_duplicate=False)
                skip = {n for n, p in every if id(p) in sampled}
                state = module.state_dict()
                found |= {f"{part}.{n}": value for n, value in state.items() if n not in skip}
        return found

    def features(self, inputs: Tensor, batch_size: int = 256, first: int = 0) -> Tensor:
        """Run the frozen part, in batches, once: shape (example, ...) to (example, feature...).

        Args:
            inputs: Raw, shape (example, ...).
            batch_size: Examples at a time.
            first: Place of the first of them among all, for messages.

        Raises:
            InputError: If there is a frozen part and what goes in, or comes out, is not finite.
        """
        if self.frozen is None:
            return inputs.to(self.prior_mean.device)
        device = self.prior_mean.device
        parts = []
        for part in inputs.split(batch_size):
            check_finite(part, "inputs", CORRECT_INPUTS, first)
            with torch.inference_mode():
                parts.append(self.frozen(part.to(device)))
            check_finite(parts[-1], "features of the network's frozen part", SCALE_INPUTS, first)
            first += len(part)
        return torch.cat(parts).clone()

    def logits(self, position: Tensor, features: Tensor) -> Tensor:
        """Logits of the head at one position: (parameter,), (example, ...) to (example, class)."""
        return self.logits_at(self.natural(position), features)

    def natural(self, position: Tensor) -> Tensor:
        """Positions as parameters in their natural units, shape (..., parameter)."""
        return self.prior_mean + self.prior_scale * position

    def standardised(self, parameters: Tensor) -> Tensor:
        """The inverse of `natural`."""
        return (parameters - self.prior_mean) / self.prior_scale

    def logits_at(self, parameters: Tensor, features: Tensor) -> Tensor:
        """As `logits`, for parameters in their natural units, as draws are stored."""
        return self.call(self.unflatten(parameters), features)

    def call(self, parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        """As `logits_at`, for parameters by name. Threads may call it on one student."""
        if self.dense is not None:
            return apply(self.dense, parameters, features)
        with NETWORK_LOCK:
            return torch.func.functional_call(self.head, parameters, (features,))

    def unflatten(self, parameters: Tensor) -> dict[str, Tensor]:
        """Flat natural parameters, shape (..., parameter), as named tensors of the head."""
        parts = parameters.split([shape.numel() for shape in self.shapes], dim=-1)
        lead = parameters.shape[:-1]
        return {
            name: part.reshape(lead + shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def initial_position(self, generators: Generators) -> Tensor:
        """A random start for each chain, with the variance of He et al. 2015, or the prior's.

        A wide weight prior is no place to start an optimiser from: of ``2 / fan_in`` and the
        prior's variance the start takes the smaller one. Biases start at their mean.

        Returns:
            Positions, shape (chain, parameter).
        """
        device = self.prior_mean.device
        spread = math.sqrt(2) / max(self.weight_scale, math.sqrt(2))
        noise = [torch.randn(self.n_parameters, generator=g, device=device) for g in generators]
        is_bias = [torch.full((s.numel(),), len(s) < 2, device=device) for s in self.shapes]
        return spread * torch.stack(noise).masked_fill(torch.cat(is_bias), 0.0)

    def to(self, device: torch.device) -> Student:
        """The same student on a device."""
        return Student(
            self.head.to(device),
            None if self.frozen is None else self.frozen.to(device),
            self.names,
            self.shapes,
            self.prior_mean.to(device),
            self.prior_scale.to(device),
            self.weight_scale,
        )


def make_student(
    module: nn.Module,
    *,
    sampled: str | Sequence[str] = "*",
    weight_scale: float = 1.0,
    example: Tensor | None = None,
) -> Student:
    """Turn a network into a student.

    The weight prior is ``N(0, weight_scale**2 / fan_in)`` for each layer. Parameters of layers
    without a weight matrix, such as normalisations, are centred at their present value.

    Args:
        module: Maps inputs (example, ...) to logits (example, class). It is put in evaluation
            mode, its parameters no longer require gradients, and its activations no longer
            overwrite their inputs, which are needed again.
        sampled: Name patterns (``"head.*"``) of the parameters to sample; the rest stay as they
            are. The part of the module before the first sampled parameter is split off where it
            can be, so that it runs once for each example.
        weight_scale: Multiplies the prior's standard deviation.
        example: A batch of inputs, to find and check the split. Needed to split.

    Raises:
        InputError: If no parameter matches.
    """
    patterns = (sampled,) if isinstance(sampled, str) else tuple(sampled)
    module = module.eval().requires_grad_(False)
    for part in module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
    every = dict(module.named_parameters())
    chosen = [n for n in every if any(fnmatchcase(n, pattern) for pattern in patterns)]
    if not chosen:
        raise InputError(
            f"Expected a parameter matching {', '.join(patterns)}, but the network has "
            f"{', '.join(every) or 'none'}. Change the pattern `sampled`."
        )
    head, frozen, prefix = module, None, ""
    if example is not None:
        head, frozen, prefix = _split(module, chosen, example)
    names = tuple(n.removeprefix(prefix) for n in chosen)
    moments = [_prior(head, name, weight_scale) for name in names]
    return Student(
        head,
        frozen,
        names,
        tuple(head.get_parameter(n).shape for n in names),
        torch.cat([mean for mean, _ in moments]),
        torch.cat([scale for _, scale in moments]),
        weight_scale,
    )


def widened(student: Student, factor: float) -> Student:
    """The same student under a weight prior whose standard deviation is so many times larger."""
    return replace(
        student,
        prior_scale=student.prior_scale * factor,
        weight_scale=student.weight_scale * factor,
    )


def _prior(head: nn.Module, name: str, weight_scale: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of one parameter under the weight prior, flat."""
    parameter = head.get_parameter(name)
    owner = head.get_submodule(name.rpartition(".")[0])
    matrices = [p for p in owner.parameters(recurse=False) if p.dim() >= 2]
    if not matrices:
        return parameter.flatten().clone(), torch.full((parameter.numel(),), weight_scale)
    fan_in = math.prod(matrices[0].shape[1:])
    scale = torch.full((parameter.numel(),), weight_scale / math.sqrt(fan_in))
    return torch.zeros(parameter.numel()), scale


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


def _split(
    module: nn.Module, chosen: Sequence[str], example: Tensor
) -> tuple[nn.Module, nn.Module | None, str]:
    """Find (head, frozen part, prefix of the head's parameter names)."""
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
    if isinstance(owner, nn.Sequential):
        wanted = {id(module.get_parameter(name)) for name in chosen}
        start = next(
            i for i, child in enumerate(owner) if wanted & {id(p) for p in child.parameters()}
        )
        if owner is module and start == 0:
            return module, None, ""
        head, stop = owner[start:], owner[start]  # a slice keeps its children's names
    if stop is module:
        return module, None, ""
    frozen = _Frozen(module, stop)
    with torch.inference_mode():
        calls, whole = frozen.calls(example), module(example)
        once = len(calls) == 1 and len(calls[0]) == 1
        part = head(*calls[0]) if once else whole.new_empty(0)
        if part.shape == whole.shape and torch.allclose(part, whole, atol=1e-5):
            return head, frozen, prefix
    warnings.warn(
        f"The network does more after `{prefix.rstrip('.') or 'its head'}` than return its "
        "output, so its frozen part runs again at every step. Let it end with the sampled part.",
        stacklevel=3,
    )
    return module, None, ""
