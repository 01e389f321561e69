"""Few draws that say together what all say: chosen apart from one another, then settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtbkd.observation.base import Outcome
from mtbkd.student.student import Student

_STEPS, _ROWS, _RATE = 200, 512, 0.03
_LEAST = 1e-12


class Aim(NamedTuple):
    """What few draws shall say together on some inputs.

    Attributes:
        mean: Probabilities of events averaged over all draws, shape (example, column, event).
        entropy: Mean entropy of a draw's events in nats, shape (example, column).
        cuts: What the events lie between; see `Outcome.cuts`.
    """

    mean: Tensor
    entropy: Tensor
    cuts: Tensor

    def at(self, rows: Tensor) -> Aim:
        """On some of the inputs."""
        return Aim(*(part[rows] for part in self))


def aim_at(events: Tensor, cuts: Tensor) -> Aim:
    """What all draws say: events of shape (draw, example, column, event)."""
    return Aim(events.mean(0), entropies(events).mean(0), cuts)


def entropies(events: Tensor) -> Tensor:
    """Entropy of distributions over events in nats, shape (..., event) to (...)."""
    return -torch.special.xlogy(events, events.clamp_min(_LEAST)).sum(-1)


def divergence(aim: Aim, events: Tensor) -> Tensor:
    """``KL(all || few)`` of mean predictives in nats for each example, (example,).

    Args:
        aim: What all draws say.
        events: What few say, shape (draw, example, column, event).
    """
    few = events.mean(0).clamp_min(_LEAST).log()
    each = torch.special.xlogy(aim.mean, aim.mean) - aim.mean * few
    return each.sum((1, 2))


def gram(events: Tensor, aim: Aim) -> Tensor:
    """Products of what draws say apart from the aim, shape (draw, draw).

    The mean of its entries over some draws is ``sum (few - all)**2 / all``, which is twice the
    `divergence` to second order, and twice the squared gap of mean entropies: without the latter,
    draws near the mean would be taken, and their spread be too small.

    Args:
        events: Shape (draw, example, column, event).
        aim: What all draws say.
    """
    said = ((events - aim.mean) * aim.mean.clamp_min(_LEAST).rsqrt()).flatten(1)
    spread = math.sqrt(2) * (entropies(events) - aim.entropy).flatten(1)
    apart = torch.cat([said, spread], 1)
    return (apart @ apart.T).double()


def choose(products: Tensor, n: int) -> list[int]:
    """The draws whose mean is nearest to the mean of all, each counting the same.

    One is added after the other (herding, Chen et al. 2010, arXiv:1203.3472), and then one is
    exchanged for another while that helps.

    Args:
        products: As `gram` gives, summed over inputs, shape (draw, draw).
        n: How many, at most the number of draws.

    Returns:
        Places of the draws, in rising order.
    """
    products = (products + products.T) / 2  # of rounded numbers, and not alike by themselves
    own = products.diagonal()
    taken: list[int] = []
    total = torch.zeros_like(own)  # sums of products with those taken
    for _ in range(n):
        taken.append(_best(2 * total + own, taken))
        total = total + products[taken[-1]]
    square = float(products[taken][:, taken].sum())
    least = 1e-12 * n * float(own.max())  # what rounding may feign where draws hardly differ
    while True:
        best, change = square - max(1e-9 * square, least), None
        for place, out in enumerate(taken):
            without = square - 2 * total[out] + own[out]
            scores = without + 2 * (total - products[out]) + own
            into = _best(scores, taken)
            if into not in taken and scores[into] < best:
                best, change = float(scores[into]), (place, into)
        if change is None:
            return sorted(taken)
        place, into = change
        total = total - products[taken[place]] + products[into]
        square, taken[place] = best, into


def _best(scores: Tensor, taken: Sequence[int]) -> int:
    """Place of the smallest score that is not taken."""
    scores = scores.clone()
    scores[list(taken)] = torch.inf
    return int(scores.argmin())


def settle(
    student: Student, draws: Tensor, features: Tensor, aim: Aim, outcome: Outcome, apart: Tensor
) -> Tensor:
    """Move draws a little, so that together they say what all say.

    What is minimised is the `divergence` plus the squared difference of mean entropies, so that
    the spread of the draws, and with it the epistemic uncertainty, is that of all as well. (Few
    networks in place of a posterior: Korattikula et al. 2015, arXiv:1506.04416, with one.)

    Args:
        student: Without a frozen part.
        draws: In natural units, shape (draw, parameter).
        features: Inputs of the student, shape (example, ...).
        aim: What all draws say there.
        outcome: What is predicted.
        apart: Which inputs do not teach but judge, shape (example,). If the draws are not nearer to
            all there than before, they stay as they were.

    Returns:
        Draws of the same shape.
    """
    start = student.standardised(draws).detach()

    def outputs(position: Tensor, inputs: Tensor) -> Tensor:
        return student.logits_each(student.natural(position), inputs) / student.temperature

    def far(position: Tensor) -> float:
        judged = aim.at(apart)
        with torch.no_grad():
            events = outcome.events(outputs(position, features[apart]), judged.cuts)
        return float(divergence(judged, events).mean())

    position = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([position], lr=_RATE, eps=1e-6)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, _STEPS)
    teaching = (~apart).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(_STEPS):
        some = torch.randint(len(teaching), (_ROWS,), generator=generator).to(teaching.device)
        rows = teaching[some]
        wanted = aim.at(rows)
        events = outcome.events(outputs(position, features[rows]), wanted.cuts)
        gap = entropies(events).mean(0) - wanted.entropy
        loss = (divergence(wanted, events) + gap.square().sum(-1)).mean()
        (position.grad,) = torch.autograd.grad(loss, position)
        optimiser.step()
        schedule.step()
    moved = position.detach()
    return student.natural(moved) if far(moved) < far(start) else draws
