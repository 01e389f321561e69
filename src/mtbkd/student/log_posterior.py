"""The log posterior: likelihood, mixture prior and weight prior, on one scale.

The only place that knows how many examples there are. Everything is divided by that number, so
engines sample at temperature 1/N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from threading import get_ident

import torch
from torch import Tensor, nn

from mtbkd.observation import CATEGORICAL, Observation
from mtbkd.prior.mixture import Prior
from mtbkd.student.augment import seen
from mtbkd.student.dense import Layer, backward, forward
from mtbkd.student.split import NETWORK_LOCK
from mtbkd.student.student import Student
from mtbkd.types import Batch, Gradient, LogPosterior

Named = dict[str, Tensor]
Outer = Callable[[Tensor, Batch, slice], tuple[Tensor, Tensor]]
"""Outputs on a batch under these chains to values, shape (chain,), and gradients in the outputs.

Both belong to means over the examples of the batch.
"""

Differentiate = Callable[[Named, Named, Batch, Outer], Tensor]
"""``(parameters, gradients, batch, outer)`` to values of the data terms, shape (chain,).

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
        outputs = student.logits(position, seen(batch))
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
    if student.dense is not None:
        differentiate = _dense(student, student.dense)
    else:
        differentiate = _in_turn(student) if student.passage.in_turn else _together(student)
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

        def outer(outputs: Tensor, part: Batch, chains: slice) -> tuple[Tensor, Tensor]:
            own = prior
            if isinstance(prior.power, Tensor):
                own = replace(prior, power=prior.power[chains])
            values, slopes = observation.value_and_slope(outputs, part, own)
            return values.mean(-1), slopes.div_(outputs.shape[-2])

        named, named_grads = student.unflatten(parameters), student.unflatten(grads)
        values = differentiate(named, named_grads, batch, outer)
        values -= 0.5 * torch.linalg.vector_norm(position, dim=1) ** 2 / n_examples
        return values, grads

    return gradient


def _dense(student: Student, layers: Sequence[Layer]) -> Differentiate:
    """Along the fast path."""
    scales = student.scales()

    def differentiate(named: Named, grads: Named, batch: Batch, outer: Outer) -> Tensor:
        outputs, records = forward(layers, named, student.read(seen(batch)))
        values, slopes = outer(outputs, batch, slice(None))
        backward(records, named, slopes, grads, scales)
        return values

    return differentiate


def _together(student: Student) -> Differentiate:
    """By autograd through any module, all chains side by side."""
    scales, call = student.scales(), torch.vmap(student.call)

    def differentiate(named: Named, grads: Named, batch: Batch, outer: Outer) -> Tensor:
        leaves = {name: value.requires_grad_() for name, value in named.items()}
        with torch.enable_grad():
            outputs = call(leaves, seen(batch))
        values, slopes = outer(outputs.detach(), batch, slice(None))
        for name, part in _pulled(outputs, leaves, slopes):
            grads[name].add_(part, alpha=scales[name])
        return values

    return differentiate


def _in_turn(student: Student) -> Differentiate:
    """By autograd through any module, chain after chain and a few examples at a time.

    Each thread has a copy of the network, so that chains in several threads need not wait.
    """
    scales = student.scales()
    heads: dict[int, nn.Module] = {}

    def differentiate(named: Named, grads: Named, batch: Batch, outer: Outer) -> Tensor:
        mine, n = get_ident(), batch.n_examples
        if mine not in heads:
            with NETWORK_LOCK:
                heads[mine] = deepcopy(student.head)
        totals = []
        for chain in range(len(batch.labels)):
            own, alone = batch.each(lambda part, c=chain: part[c : c + 1]), slice(chain, chain + 1)
            leaves = {name: value[chain].requires_grad_() for name, value in named.items()}
            total = torch.zeros_like(own.labels[:, 0], dtype=torch.float32)
            for start in range(0, n, student.passage.rows):
                part = own.rows(slice(start, start + student.passage.rows))
                share = part.n_examples / n
                with torch.enable_grad():
                    outputs = student.call_on(heads[mine], leaves, seen(part)[0])
                values, slopes = outer(outputs.detach().unsqueeze(0), part, alone)
                total = total.add(values, alpha=share)
                for name, pulled in _pulled(outputs, leaves, slopes[0]):
                    grads[name][chain].add_(pulled, alpha=share * scales[name])
            totals.append(total)
        return torch.cat(totals)

    return differentiate


def _pulled(outputs: Tensor, leaves: Named, slopes: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Names of parameters and their gradients; none for those without a part in the outputs."""
    parts = torch.autograd.grad(outputs, list(leaves.values()), slopes, allow_unused=True)
    return ((name, part) for name, part in zip(leaves, parts, strict=True) if part is not None)
