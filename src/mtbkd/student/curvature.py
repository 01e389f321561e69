"""Curvature of the log posterior at a mode: the generalised Gauss-Newton precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mtbkd.observation import CATEGORICAL, Observation
from mtbkd.prior.mixture import Prior
from mtbkd.student.augment import seen
from mtbkd.student.dense import Layer, apply, forward, is_stack, through
from mtbkd.student.split import NETWORK_LOCK
from mtbkd.student.student import Student
from mtbkd.types import BatchSource

CurvatureKind = Literal["last_layer", "diagonal"]

_LARGEST_BLOCK = 2048
_FLOATS = 2**24


class Precision(NamedTuple):
    """Precision of a Gaussian over some parameters, in standardised coordinates.

    Attributes:
        which: Their places in a position, shape (chain, varying).
        matrix: Shape (chain, varying, varying), or its diagonal, shape (chain, varying).
    """

    which: Tensor
    matrix: Tensor


def choose_kind(student: Student) -> CurvatureKind:
    """``last_layer`` if the head ends in a sampled linear layer of 2048 parameters or fewer."""
    found = last_layer(student)
    if found is None:
        return "diagonal"
    _, names = found
    sizes = dict(zip(student.names, student.shapes, strict=True))
    return "last_layer" if sum(sizes[n].numel() for n in names) <= _LARGEST_BLOCK else "diagonal"


def precision(
    student: Student,
    positions: Tensor,
    batch: BatchSource,
    prior: Prior = Prior(),
    kind: CurvatureKind = "diagonal",
    observation: Observation = CATEGORICAL,
) -> Precision:
    """Negative curvature of the log posterior, summed over all examples, not averaged.

    The generalised Gauss-Newton matrix ``I + sum_n J_n' H_n J_n`` (Martens 2020,
    arXiv:1412.1193): the network is linearised at the mode, ``J_n`` being the derivative of its
    outputs, and ``H_n = R_n R_n'`` with the observation's roots. The identity is the weight prior.
    It goes over a few examples at a time, so memory does not grow with their number.

    Args:
        student: Turns a position and features into logits.
        positions: Modes, shape (chain, parameter).
        batch: All examples, with a leading chain axis.
        prior: The mixture prior.
        kind: ``last_layer``, the full block of the head's last linear layer, whose weights come
            before its biases; ``diagonal``, all parameters, their correlations left out.
        observation: How outputs meet labels and teachers.

    Raises:
        ValueError: For ``last_layer``, if the head does not end in a sampled linear layer.
    """
    with torch.no_grad():
        n_outputs = student.logits(positions[0], batch.rows(slice(0, 1)).inputs[0]).shape[-1]
    dense = _unshared(student)
    if kind == "last_layer":
        found = last_layer(student)
        if found is None:
            raise ValueError("the head does not end in a sampled linear layer")
        layer, names = found
        which = torch.cat([_places(student, name) for name in names])
        floats = n_outputs * len(which)
    else:
        layer, names = None, ()
        which = torch.arange(student.n_parameters, device=positions.device)
        widest = max(max(shape) for shape in student.shapes)
        floats = n_outputs * (widest if dense else student.n_parameters)
    size = max(1, _FLOATS // floats)
    matrices = []
    for chain, position in enumerate(positions):
        power = prior.power[chain] if isinstance(prior.power, Tensor) else prior.power
        total: Tensor | float = 0.0
        for start in range(0, batch.n_examples, size):
            part = batch.rows(slice(start, start + size)).chain(chain)
            part = part._replace(inputs=student.read(seen(part)))
            with torch.no_grad():
                its = Prior(power=power, student_softening=prior.student_softening)
                if layer is None:
                    logits = student.logits(position, part.inputs)
                    roots = observation.roots(logits, part, its)
                    if dense:
                        more = _dense_diagonal(student, dense, position, part.inputs, roots)
                    else:
                        more = _any_diagonal(student, position, part.inputs, roots)
                    total = total + more
                else:
                    logits, hidden = logits_and_inputs(student, layer, position, part.inputs)
                    roots = observation.roots(logits, part, its)
                    total = total + block(hidden, roots @ roots.mT, with_bias=len(names) == 2)
        if kind == "last_layer":
            scale = student.prior_scale[which]
            total = total * scale[:, None] * scale
            matrices.append(total + torch.eye(len(which), dtype=scale.dtype, device=scale.device))
        else:
            matrices.append(total + torch.ones_like(position))
    return Precision(which.expand(len(positions), -1), torch.stack(matrices))


def block(hidden: Tensor, hessians: Tensor, *, with_bias: bool) -> Tensor:
    """Sum over examples of ``H_n (x) h_n h_n'``, weights (class, feature) before biases (class,).

    Args:
        hidden: Inputs of the layer, shape (example, feature).
        hessians: Shape (example, class, class).
        with_bias: Whether the layer has one.
    """
    n_classes = hessians.shape[-1]
    rows = []
    for c in range(n_classes):
        right = hessians[:, c, :, None] * hidden[:, None, :]
        rows.append(hidden.mT @ right.flatten(1))
    weights = torch.cat(rows)
    if not with_bias:
        return weights
    across = torch.einsum("nf,ncd->cfd", hidden, hessians).reshape(-1, n_classes)
    top = torch.cat([weights, across], dim=1)
    return torch.cat([top, torch.cat([across.mT, hessians.sum(0)], dim=1)])


def _dense_diagonal(
    student: Student, layers: Sequence[Layer], position: Tensor, inputs: Tensor, roots: Tensor
) -> Tensor:
    """As `_any_diagonal`, for a dense head, without the gradients of single examples.

    An example's gradient of a weight is ``slope_o * input_i`` for each column of its root, so the
    sum of its squares is one product of squared slopes, summed over columns, and squared inputs.
    """
    named = student.unflatten(student.natural(position).unsqueeze(0))
    _, records = forward(layers, named, inputs.unsqueeze(0))
    slopes = roots.permute(2, 0, 1)  # (column, example, class)
    found: dict[str, Tensor] = {}
    for layer, before, after in reversed(records):
        if after is not None:
            slopes = slopes * through(layer, before, after, torch.ones_like(after))
        if layer.weight is not None:
            squares = slopes.square().sum(0)
            found[layer.weight] = squares.mT @ before[0].square()
            if layer.bias is not None:
                found[layer.bias] = squares.sum(0)
            slopes = slopes @ named[layer.weight][0]
    return torch.cat([found[n].flatten() for n in student.names]) * student.prior_scale.square()


def _any_diagonal(student: Student, position: Tensor, inputs: Tensor, roots: Tensor) -> Tensor:
    """Diagonal of ``sum_n J_n' R_n R_n' J_n``, shape (parameter,): squares of ``R_n' J_n``."""
    if student.passage.in_turn:
        leaf, total = position.detach().requires_grad_(), torch.zeros_like(position)
        for x, root in zip(inputs, roots, strict=True):
            with torch.enable_grad():
                outputs = student.logits(leaf, x.unsqueeze(0))[0]
            for column in root.unbind(1):
                (pulled,) = torch.autograd.grad(outputs, leaf, column, retain_graph=True)
                total.add_(pulled.square())
        return total

    def squares(x: Tensor, root: Tensor) -> Tensor:
        pull = torch.func.vjp(lambda z: student.logits(z, x.unsqueeze(0))[0], position)[1]
        return torch.vmap(pull)(root.mT)[0].square().sum(0)

    return torch.vmap(squares)(inputs, roots).sum(0)


def logits_and_inputs(
    student: Student, layer: nn.Linear, position: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits, and the inputs of the head's last layer: (example, class), (example, feature)."""
    if student.dense is not None:
        named = student.unflatten(student.natural(position))
        hidden = apply(student.dense[:-1], named, student.read(features))
        return apply(student.dense[-1:], named, hidden), hidden
    caught: list[Tensor] = []
    rows = student.passage.rows if student.passage.in_turn else max(1, len(features))
    with NETWORK_LOCK:
        hook = layer.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            logits = [student.logits(position, part) for part in features.split(rows)]
        finally:
            hook.remove()
    return torch.cat(logits), torch.cat(caught)


def last_layer(student: Student) -> tuple[nn.Linear, tuple[str, ...]] | None:
    """The linear layer that ends the head and the names of its parameters, all of them sampled.

    None too if the layer, or a parameter of it, is used elsewhere in the head as well.
    """
    layer = student.head
    while isinstance(layer, nn.Sequential) and is_stack(layer) and len(layer):
        layer = layer[-1]
    if type(layer) is not nn.Linear:
        return None
    own = {id(p) for p in layer.parameters()}
    every = student.head.named_parameters(remove_duplicate=False)
    names = tuple(name for name, p in every if id(p) in own)
    return (layer, names) if len(names) == len(own) and set(names) <= set(student.names) else None


def _unshared(student: Student) -> tuple[Layer, ...]:
    """The layers of a dense head; none if a parameter is used twice, or the head is another."""
    layers = student.dense or ()
    used = [name for layer in layers for name in (layer.weight, layer.bias) if name is not None]
    return layers if len(used) == len(set(used)) else ()


def _places(student: Student, name: str) -> Tensor:
    """Where a named parameter is in a position."""
    sizes = [shape.numel() for shape in student.shapes]
    start = sum(sizes[: student.names.index(name)])
    stop = start + math.prod(student.shapes[student.names.index(name)])
    return torch.arange(start, stop, device=student.prior_mean.device)
