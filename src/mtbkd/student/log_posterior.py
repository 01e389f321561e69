"""The log posterior: likelihood, mixture prior and weight prior, on one scale.

The only place that knows how many examples there are. Everything is divided by that number, so
engines sample at temperature 1/N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident

import torch
from torch import Tensor

from mtbkd.observation import CATEGORICAL, Observation
from mtbkd.prior.mixture import Prior
from mtbkd.student.dense import Layer, backward, forward
from mtbkd.student.student import Student
from mtbkd.types import Batch, Gradient, LogPosterior

Named = dict[str, Tensor]
Outer = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Outputs of the student to values, shape (chain,), and their gradients in the outputs."""

Differentiate = Callable[[Named, Named, Tensor, Outer], Tensor]
"""``(parameters, gradients, inputs, outer)`` to values of the data terms, shape (chain,).

Their gradients, each times the scale of its parameter, are added to the gradients given.
"""


def log_posterior(
    student: Student,
    n_examples: int,
    prior: Prior = Prior(),
    observation: Observation = CATEGORICAL,
) -> LogPosterior:
    """Build ``log p(z | data) / N`` as a function of (position, batch), up to a constant.

    The labelled examples of a batch give their log likelihood, all of them the log density of
    the mixture, and the position its standard normal prior (MT-BKD, eq. of the posterior). The
    average over a batch is an unbiased estimate of the average over all ``n_examples``.

    Args:
        student: Turns a position and features into logits.
        n_examples: N, the number of examples, labelled or not.
        prior: The mixture prior.
        observation: How outputs meet labels and teachers.
    """

    def average(position: Tensor, batch: Batch) -> Tensor:
        outputs = student.logits(position, batch.inputs)
        weight_prior = -0.5 * position.square().sum() / n_examples
        return observation.value(outputs, batch, prior).mean() + weight_prior

    return average


def posterior_gradient(
    student: Student,
    n_examples: int,
    prior: Prior = Prior(),
    observation: Observation = CATEGORICAL,
) -> Gradient:
    """Build the value and gradient of `log_posterior` for all chains at once, in closed form.

    The observation knows the gradient in the outputs, so autograd is needed for the network alone.
    Buffers are reused: the gradients returned are overwritten by the next call of the same thread.

    Args:
        student: Turns a position and features into logits.
        n_examples: N, the number of examples, labelled or not.
        prior: The mixture prior.
        observation: How outputs meet labels and teachers.
    """
    differentiate = _any_head(student) if student.dense is None else _dense(student, student.dense)
    buffers: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    centred = not student.prior_mean.any()

    def gradient(position: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        mine = position.shape[0], get_ident()
        if mine not in buffers:
            buffers[mine] = torch.empty_like(position), torch.empty_like(position)
        parameters, grads = buffers[mine]
        torch.mul(position, student.prior_scale, out=parameters)
        if not centred:
            parameters.add_(student.prior_mean)
        torch.mul(position, -1 / n_examples, out=grads)

        def outer(outputs: Tensor) -> tuple[Tensor, Tensor]:
            values, slopes = observation.value_and_slope(outputs, batch, prior)
            return values.mean(-1), slopes.div_(outputs.shape[-2])

        named, named_grads = student.unflatten(parameters), student.unflatten(grads)
        values = differentiate(named, named_grads, student.read(batch.inputs), outer)
        values -= 0.5 * torch.linalg.vector_norm(position, dim=1) ** 2 / n_examples
        return values, grads

    return gradient


def _dense(student: Student, layers: Sequence[Layer]) -> Differentiate:
    """Along the fast path."""
    scales = student.scales()

    def differentiate(named: Named, grads: Named, inputs: Tensor, outer: Outer) -> Tensor:
        outputs, records = forward(layers, named, inputs)
        values, slopes = outer(outputs)
        backward(records, named, slopes, grads, scales)
        return values

    return differentiate


def _any_head(student: Student) -> Differentiate:
    """By autograd through any module."""
    scales, call = student.scales(), torch.vmap(student.call)

    def differentiate(named: Named, grads: Named, inputs: Tensor, outer: Outer) -> Tensor:
        leaves = {name: value.requires_grad_() for name, value in named.items()}
        with torch.enable_grad():
            outputs = call(leaves, inputs)
        values, slopes = outer(outputs.detach())
        parts = torch.autograd.grad(outputs, list(leaves.values()), slopes)
        for name, part in zip(leaves, parts, strict=True):
            grads[name].add_(part, alpha=scales[name])
        return values

    return differentiate
