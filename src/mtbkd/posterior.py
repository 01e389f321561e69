"""The log posterior: likelihood, mixture prior and weight prior, on one scale.

The only place that knows how many examples there are. Everything is divided by that number, so
engines sample at temperature 1/N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtbkd.dense import backward, forward, is_dense
from mtbkd.prior import MixtureTerms, component_log_densities, mixture_log_density
from mtbkd.student import Student
from mtbkd.types import Batch, Gradient, LogPosterior

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Strength:
    """How the mixture prior enters the posterior.

    Attributes:
        power: Exponent of the mixture prior; `posterior_gradient` also takes one for each chain,
            shape (chain,).
        student_softening: Softens the student inside the mixture prior, as the paper does.
    """

    power: float | Tensor = 1.0
    student_softening: float = 1.0


def log_posterior(
    student: Student, n_examples: int, strength: Strength = Strength()
) -> LogPosterior:
    """Build ``log p(z | data) / N`` as a function of (position, batch), up to a constant.

    The labelled examples of a batch give ``log q[y]``, all of them the log density of the
    mixture, and the position its standard normal prior (MT-BKD, eq. of the posterior). The
    average over a batch is an unbiased estimate of the average over all ``n_examples``.

    Args:
        student: Turns a position and features into logits.
        n_examples: N, the number of examples, labelled or not.
        strength: Of the mixture prior.
    """

    def average(position: Tensor, batch: Batch) -> Tensor:
        logits = student.logits(position, batch.inputs)
        picked = torch.log_softmax(logits, dim=-1)
        picked = picked.gather(-1, batch.labels.clamp_min(0)[:, None])[:, 0]
        likelihood = torch.where(batch.labels >= 0, picked, 0.0).mean()
        log_q = torch.log_softmax(logits / strength.student_softening, dim=-1)
        terms = MixtureTerms(batch.pseudo_counts, batch.log_offsets)
        mixture = mixture_log_density(terms, log_q).mean()
        weight_prior = -0.5 * position.square().sum() / n_examples
        return likelihood + strength.power * mixture + weight_prior

    return average


def posterior_gradient(
    student: Student, n_examples: int, strength: Strength = Strength()
) -> Gradient:
    """Build the value and gradient of `log_posterior` for all chains at once, in closed form.

    With the responsibilities ``r_k`` the gradient with respect to the logits is that of one
    cross-entropy against ``onehot(y) + power * sum_k r_k * concentration * p_k``, so autograd is
    needed for the network alone. Buffers are reused: the gradients returned are overwritten by
    the next call.

    Args:
        student: Turns a position and features into logits.
        n_examples: N, the number of examples, labelled or not.
        strength: Of the mixture prior.
    """
    differentiate = _dense if is_dense(student.head, student.names) else _any_head
    buffers: dict[int, tuple[Tensor, Tensor]] = {}
    centred = not student.prior_mean.any()
    scales = student.scales()

    def gradient(position: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        n_chains = position.shape[0]
        if n_chains not in buffers:
            buffers[n_chains] = torch.empty_like(position), torch.empty_like(position)
        parameters, grads = buffers[n_chains]
        torch.mul(position, student.prior_scale, out=parameters)
        if not centred:
            parameters.add_(student.prior_mean)
        torch.mul(position, -1 / n_examples, out=grads)
        named, named_grads = student.unflatten(parameters), student.unflatten(grads)
        values = differentiate(student.head, named, named_grads, scales, batch, strength)
        values -= 0.5 * torch.linalg.vector_norm(position, dim=1) ** 2 / n_examples
        return values, grads

    return gradient


def _dense(
    head: nn.Module,
    named: Named,
    grads: Named,
    scales: Mapping[str, float],
    batch: Batch,
    strength: Strength,
) -> Tensor:
    """Values of the data terms, shape (chain,); adds their gradients, each times its scale."""
    logits, records = forward(head, named, batch.inputs)
    values, slopes = _value_and_slope(logits, batch, strength)
    backward(records, named, slopes, grads, scales)
    return values


def _any_head(
    head: nn.Module,
    named: Named,
    grads: Named,
    scales: Mapping[str, float],
    batch: Batch,
    strength: Strength,
) -> Tensor:
    """As `_dense`, by autograd through any module."""
    leaves = {name: value.requires_grad_() for name, value in named.items()}
    call = torch.vmap(lambda leaf, x: torch.func.functional_call(head, leaf, (x,)))
    with torch.enable_grad():
        logits = call(leaves, batch.inputs)
    values, slopes = _value_and_slope(logits.detach(), batch, strength)
    parts = torch.autograd.grad(logits, list(leaves.values()), slopes)
    for name, part in zip(leaves, parts, strict=True):
        grads[name].add_(part, alpha=scales[name])
    return values


def _value_and_slope(logits: Tensor, batch: Batch, strength: Strength) -> tuple[Tensor, Tensor]:
    """The data terms for each chain, and their gradient: (chain,), (chain, example, class)."""
    log_q = _log_softmax(logits)
    labelled = (batch.labels >= 0).to(logits.dtype).unsqueeze(-1)
    index = batch.labels.clamp_min(0).unsqueeze(-1)
    values = (log_q.gather(-1, index) * labelled).squeeze(-1)
    slopes = log_q.exp().mul_(-labelled).scatter_add_(-1, index, labelled)
    soft = strength.student_softening
    if soft != 1.0:
        log_q = _log_softmax(logits / soft)
    parts = component_log_densities(MixtureTerms(batch.pseudo_counts, batch.log_offsets), log_q)
    mixture = torch.logsumexp(parts, dim=-2)
    shares = (parts - mixture.unsqueeze(-2)).exp_().unsqueeze(-1)
    counts = (shares * batch.pseudo_counts).sum(-3)
    pull = counts.sub_(counts.sum(-1, keepdim=True) * log_q.exp())
    power = strength.power
    if isinstance(power, Tensor):
        mixture, pull, power = mixture * power[:, None], pull * power[:, None, None], 1.0
    slopes.add_(pull, alpha=power / soft)
    return values.add_(mixture, alpha=power).mean(-1), slopes.div_(logits.shape[-2])


def _log_softmax(logits: Tensor) -> Tensor:
    """As torch's, which takes three times as long over few classes on a CPU."""
    return logits - torch.logsumexp(logits, dim=-1, keepdim=True)
