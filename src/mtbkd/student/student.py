"""The student: a frozen part whose features are cached, and a head whose parameters are sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import Tensor, nn

from mtbkd.student.augment import Augment, check_augment
from mtbkd.student.dense import Layer, apply, dense_layers
from mtbkd.student.finite import CORRECT_INPUTS, SCALE_INPUTS, check_finite
from mtbkd.student.passage import (
    Passage,
    as_read,
    check_features,
    check_network,
    find_passage,
    in_turn_by_kind,
)
from mtbkd.student.pixels import Pixels
from mtbkd.student.split import NETWORK_LOCK, split
from mtbkd.types import Generators, InputError

_NUMBERS = 2**22  # of inputs that go through the frozen part at a time
_REUSED = 10  # products for each float that autograd holds of a convolution, measured


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
        whole_numbers: Whether the network reads bytes or other whole numbers as they are; else
            they are made floats first, some examples at a time.
        passage: How chains and examples pass through the head, if it is no stack of linear layers.
        temperature: Divides the logits of every draw where the student is asked, not where its
            posterior is explored.
        augment: What is done to its images while it learns; it answers on them as they are.
    """

    head: nn.Module
    frozen: nn.Module | None
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    prior_mean: Tensor
    prior_scale: Tensor
    weight_scale: float = 1.0
    whole_numbers: bool = False
    passage: Passage = Passage()
    temperature: float = 1.0
    augment: Augment | None = None

    @property
    def n_parameters(self) -> int:
        """How many parameters are sampled."""
        return self.prior_mean.numel()

    @property
    def work(self) -> int:
        """About how many products one example and one gradient of it cost."""
        return max(self.n_parameters, _REUSED * self.passage.held)

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

    def read(self, inputs: Tensor) -> Tensor:
        """Inputs as the network takes them: floats, or whole numbers if it reads these."""
        return inputs if self.whole_numbers or inputs.is_floating_point() else inputs.float()

    def features(self, inputs: Tensor, batch_size: int = 256, first: int = 0) -> Tensor:
        """Run the frozen part, in batches, once: shape (example, ...) to (example, feature...).

        Args:
            inputs: Raw, shape (example, ...).
            batch_size: Examples at a time; fewer if they are large.
            first: Place of the first of them among all, for messages.

        Raises:
            InputError: If there is a frozen part and what goes in, or comes out, is not finite.
        """
        if self.frozen is None:
            return inputs.to(self.prior_mean.device)
        device = self.prior_mean.device
        rows = min(batch_size, max(1, _NUMBERS // max(1, inputs[:1].numel())))
        found, done = torch.empty(0), 0
        for part in inputs.split(rows):
            check_finite(part, "inputs", CORRECT_INPUTS, first + done)
            with torch.inference_mode():
                made = self.frozen(self.read(part.to(device)))
            check_finite(made, "features of the network's frozen part", SCALE_INPUTS, first + done)
            if done == 0:  # room for all: pieces between passes would keep these from being freed
                found = torch.empty((len(inputs), *made.shape[1:]), dtype=made.dtype, device=device)
            found[done : done + len(part)] = made
            done += len(part)
        return found

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
            return apply(self.dense, parameters, self.read(features))
        with NETWORK_LOCK:
            return self.call_on(self.head, parameters, features)

    def call_on(self, head: nn.Module, parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        """As `call`, for a copy of the head that no other thread uses."""
        read = self.passage.laid_out(self.read(features))
        return torch.func.functional_call(head, parameters, (read,))

    def logits_each(self, parameters: Tensor, features: Tensor) -> Tensor:
        """As `logits_at`, for several draws: (draw, parameter) to (draw, example, class)."""
        if not self.passage.in_turn:
            return torch.vmap(self.logits_at, in_dims=(0, None))(parameters, features)
        n, rows = len(features), self.passage.rows
        found = torch.empty(0)
        for draw, own in enumerate(parameters):
            for start in range(0, n, rows):
                part = self.logits_at(own, features[start : start + rows])
                if found.numel() == 0:
                    found = part.new_empty(len(parameters), n, part.shape[1])
                found[draw, start : start + len(part)] = part
        return found

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
        return replace(
            self,
            head=self.head.to(device),
            frozen=None if self.frozen is None else self.frozen.to(device),
            prior_mean=self.prior_mean.to(device),
            prior_scale=self.prior_scale.to(device),
        )


def make_student(
    module: nn.Module,
    *,
    sampled: str | Sequence[str] = "*",
    weight_scale: float = 1.0,
    example: Tensor | None = None,
    augment: Augment | None = None,
) -> Student:
    """Turn a network into a student.

    The weight prior is ``N(0, weight_scale**2 / fan_in)`` for each weight matrix and the biases
    beside it; the fan-in of an embedding is 1, as one row of it is read. Parameters of layers
    without a weight matrix, such as normalisations, are centred at their present value. The
    statistics of normalisations stay what they are.

    Args:
        module: Maps inputs (example, ...) to logits (example, class). It is put in evaluation
            mode, its parameters no longer require gradients, and its activations no longer
            overwrite their inputs, which are needed again.
        sampled: Name patterns (``"head.*"``) of the parameters to sample; the rest stay as they
            are. The part of the module before the first sampled parameter is split off where it
            can be, so that it runs once for each example.
        weight_scale: Multiplies the prior's standard deviation.
        example: A batch of inputs, to find and check the split. Needed to split, and to see
            whether the network will do.
        augment: What is done to images while it learns.

    Raises:
        InputError: If no parameter matches, or the network cannot read the example, is no function
            of one example at a time, or has no gradient; or if nothing can be augmented.
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
    if example is None:
        takers = (Pixels, nn.Embedding, nn.EmbeddingBag)
        whole_numbers = any(isinstance(layer, takers) for layer in module.modules())
    else:
        read = as_read(module, example.to(next(module.parameters()).device))
        whole_numbers = not read.is_floating_point()
        if augment is None or len(chosen) < len(every):
            head, frozen, prefix = split(module, chosen, read)
        if augment is not None:
            check_augment(example, whole=frozen is None)
    names = tuple(n.removeprefix(prefix) for n in chosen)
    moments = [_prior(head, name, weight_scale) for name in names]
    student = Student(
        head=head,
        frozen=frozen,
        names=names,
        shapes=tuple(head.get_parameter(n).shape for n in names),
        prior_mean=torch.cat([mean for mean, _ in moments]),
        prior_scale=torch.cat([scale for _, scale in moments]),
        weight_scale=weight_scale,
        whole_numbers=whole_numbers,
        passage=Passage(in_turn=in_turn_by_kind(head)),
        augment=augment,
    )
    return student if example is None else _examined(student, example)


def _examined(student: Student, example: Tensor) -> Student:
    """The student, once it is known that its network will do, and how examples pass through it."""
    if student.frozen is not None:
        check_features(student.features, example)
    if student.dense is not None:
        return replace(student, passage=Passage())
    position = student.initial_position([torch.Generator().manual_seed(0)])[0]
    parameters = student.unflatten(student.natural(position))
    with torch.no_grad():
        features = student.features(example)
        check_network(student.call, parameters, features)
        read = student.read(features)
        return replace(student, passage=find_passage(student.call, student.head, parameters, read))


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
    matrix = parameter if parameter.dim() >= 2 else matrices[0]
    looked_up = isinstance(owner, nn.Embedding | nn.EmbeddingBag)  # one row of it
    fan_in = 1 if looked_up else math.prod(matrix.shape[1:])
    scale = torch.full((parameter.numel(),), weight_scale / math.sqrt(fan_in))
    return torch.zeros(parameter.numel()), scale
