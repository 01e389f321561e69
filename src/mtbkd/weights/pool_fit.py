"""Fits of the teachers' pool to labels: many at once, by their shrinkage and by what counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from mtbkd.types import Bools, Floats, Ints
from mtbkd.weights.cells import Cells
from mtbkd.weights.newton import Looked, minimise
from mtbkd.weights.rules import Stacked

_NOBODY = (-3.0, 2.0)  # prior mean and standard deviation of the score of trusting nobody
_EXACT = 1e-5  # largest gradient of a fit
_AT_ONCE = 2**18  # problems times cells times numbers: more would be spread over threads


class Scales(NamedTuple):
    """Prior standard deviations of what the scores rest on; 0 leaves a term out.

    Attributes:
        own: That of a and b, what the teacher's own confidence says.
        temperature: That of the log temperatures.
        by_class: That of d, the class that the teacher names.
        by_input: That of e, where the example lies.
        gate: That of what the odds of a partial teacher's classes rest on.
    """

    own: float
    temperature: float
    by_class: float = 0.0
    by_input: float = 0.0
    gate: float = 6.0


@dataclass(frozen=True)
class Problems:
    """Fits to the same cells, and the numbers that each of them rests on.

    These are ``mean + spread * z``, z standard normal: nobody's score, then for each teacher those
    of `sizes`. Where the spread is 0 they are fixed.

    Attributes:
        cells: What all are fitted to.
        counts: How often each cell counts, shape (problem, cell).
        design: What scores are linear in, shape (teacher, number, cell).
        mean: Prior mean, shape (problem, 1 + teacher * number).
        spread: Prior standard deviation, of the same shape.
        with_nobody: Whether nobody may be trusted, shape (problem,).
        sizes: How many numbers of each kind a teacher has, those of the design first.
    """

    cells: Cells
    counts: Floats
    design: Floats
    mean: Floats
    spread: Floats
    with_nobody: Bools
    sizes: dict[str, int]

    def solve(self, start: Floats) -> tuple[Floats, Floats]:
        """The most probable numbers, from where z starts: (problem, 1 + teacher * number).

        Returns:
            The numbers, and the pool's log score with them in each cell, (problem, cell).
        """
        z, scores = start.copy(), np.empty_like(self.counts)
        width = max(self.cells.values.shape[-1], self.design.shape[1])
        n_parts = min(len(start), -(-self.counts.size * width // _AT_ONCE))
        with np.errstate(all="ignore"):  # a step that leads too far is not taken
            for rows in np.array_split(np.arange(len(start)), n_parts):
                look = partial(self._look, rows)
                z[rows] = minimise(look, self._product, start[rows], _EXACT)
                scores[rows] = self._pool(z[rows], rows)[1]
        return self.mean + self.spread * z, scores

    def read(self, numbers: Floats, scale: float) -> Stacked:
        """From draws of the numbers, (draw, 1 + teacher * number), in single precision."""
        flat = torch.from_numpy(numbers).float().to(self.cells.values.device)
        each = flat[:, 1:].unflatten(1, (len(self.cells.values), -1))
        parts = each.split(list(self.sizes.values()), 2)
        found = {name: part for name, part in zip(self.sizes, parts, strict=True) if part.numel()}
        intercept, slope = found["own"][..., 0], found["own"][..., 1:]
        return Stacked(
            intercept=intercept[..., None] + found["column"] if "column" in found else intercept,
            slope=slope,
            temperature=found["temperature"][0, :, 0].exp(),
            scale=scale,
            nobody=flat[:, 0] if self.with_nobody.all() else None,
            gate=found["gate"][0] if "gate" in found else None,
            by_class=found.get("by_class"),
            by_input=found.get("by_input"),
        )

    def _look(self, every: Ints, z: Floats, which: Ints) -> Looked:
        """Minus the log posterior of some problems, as `minimise` asks for it."""
        rows = every[which]
        weights, score, shares, slopes = self._pool(z, rows)
        counts, spread = self.counts[rows, None], self.spread[rows]
        counted = counts * shares[:, :-1]
        pulls = [-counted * first for first in slopes[::2]]
        gradient = z + spread * self._gather(counts * (weights - shares), *pulls)
        value = 0.5 * (z * z).sum(1) - (counts[:, 0] * score).sum(1)
        bends = [counted * second for second in slopes[1::2]]
        return [value, gradient, spread, counts, weights, shares, *slopes[::2], *bends]

    def _product(self, looked: Looked, direction: Floats) -> Floats:
        """Products with the Hessian, which is not positive everywhere."""
        spread, counts, weights, shares, *slopes = looked[2:]
        scores, *inner = self._scatter(spread * direction)
        firsts, bends = slopes[: len(inner)], slopes[len(inner) :]
        ahead = scores.copy()
        for by, first in zip(inner, firsts, strict=True):
            ahead[:, :-1] += by * first
        ahead -= np.einsum("bkn,bkn->bn", shares, ahead)[:, None]
        ahead *= shares
        ahead *= counts
        pulls = [
            -ahead[:, :-1] * first - bend * by
            for by, first, bend in zip(inner, firsts, bends, strict=True)
        ]
        scores -= np.einsum("bkn,bkn->bn", weights, scores)[:, None]
        scores *= weights
        scores *= counts
        scores -= ahead
        return direction + spread * self._gather(scores, *pulls)

    def _pool(self, z: Floats, rows: Ints) -> tuple[Floats, Floats, Floats, list[Floats]]:
        """What the pool is at z.

        The weights of the teachers and of nobody, (problem, teacher + 1, cell); the pool's log
        score, (problem, cell); each one's share in it; derivatives, as in `Cells.scores`.
        """
        cells = self.cells
        scores, log_temperature, *odds = self._scatter(self.mean[rows] + self.spread[rows] * z)
        own, *slopes = cells.scores(log_temperature[..., 0], *odds)
        scores[:, :-1] -= cells.alike
        scores[:, :-1][:, ~cells.speaking] = -np.inf
        scores[:, -1][~self.with_nobody[rows]] = -np.inf
        scores -= _logsumexp(scores)
        joint = scores.copy()
        joint[:, :-1] += own
        joint[:, -1] -= math.log(cells.observation.n_alike(cells.values))
        pool = _logsumexp(joint)
        return np.exp(scores), pool[:, 0], np.exp(joint - pool), slopes

    def _scatter(self, numbers: Floats) -> list[Floats]:
        """Scores of the teachers and of nobody, log temperatures and, if there are gates, odds.

        All (problem, teacher, cell), log temperatures for all cells together.
        """
        each = numbers[:, 1:].reshape(len(numbers), len(self.design), -1)
        at = self.design.shape[1]
        ends = [at, at + 1, at + 1 + self.sizes["gate"]]
        own, log_temperature, gate, column = np.split(each, ends, 2)
        nobody = np.repeat(numbers[:, :1, None], self.design.shape[2], 2)
        scores = np.concatenate([_times(self.design, own), nobody], 1)
        if self.sizes["column"]:
            by_column = scores.reshape(*scores.shape[:2], -1, self.sizes["column"])  # a view
            by_column[:, :-1] += column[:, :, None]
        odds = [_times(self.cells.confidence, gate)] if self.sizes["gate"] else []
        return [scores, log_temperature, *odds]

    def _gather(self, scores: Floats, tempered: Floats, *odds: Floats) -> Floats:
        """The transpose of `_scatter`; log temperatures are of each cell."""
        own = scores[:, :-1]
        parts = [_times(self.design, own, across=True), tempered.sum(2, keepdims=True)]
        parts += [_times(self.cells.confidence, odds[0], across=True)] if odds else []
        if self.sizes["column"]:
            parts.append(own.reshape(*own.shape[:2], -1, self.sizes["column"]).sum(2))
        each = np.concatenate(parts, 2).reshape(len(scores), -1)
        return np.concatenate([scores[:, -1].sum(1, keepdims=True), each], 1)


def make_problems(cells: Cells, scales: Sequence[Scales], counts: Floats) -> Problems:
    """Fits with these scales to examples that count as often as said, (problem, example)."""
    design = {"own": cells.confidence}
    n_teachers, n_columns = len(cells.values), cells.labels[0].numel()
    if any(one.by_class for one in scales):
        named = cells.values.argmax(-1).cpu().numpy()
        design["by_class"] = np.eye(cells.values.shape[-1])[:, named].transpose(1, 0, 2)
    if cells.place is not None and any(one.by_input for one in scales):
        place = np.repeat(cells.place.double().cpu().numpy().T, n_columns, 1)
        design["by_input"] = np.broadcast_to(place, (n_teachers, *place.shape))
    sizes = {name: part.shape[1] for name, part in design.items()} | {"temperature": 1}
    at = sum(sizes.values())
    sizes["gate"] = 0 if cells.gates is None else sizes["own"]
    sizes["column"] = 0 if cells.outcome.numeric or n_columns == 1 else n_columns
    given = [{"column": one.own, **one._asdict()} for one in scales]
    each = [[one[name] for name, size in sizes.items() for _ in range(size)] for one in given]
    # n teachers that count as one are free to move together as one is
    members = np.sqrt(_members(cells, n_teachers))[:, None]
    mean = np.zeros((n_teachers, len(each[0])))
    if cells.gates is not None:
        mean[:, at] = cells.gates[0]
    return Problems(
        cells=cells,
        counts=np.repeat(counts, n_columns, 1) * cells.known,
        design=np.concatenate(list(design.values()), 1),
        mean=np.tile([_NOBODY[0], *mean.ravel()], (len(scales), 1)),
        spread=np.array([[_NOBODY[1], *(members * row).ravel()] for row in each]),
        with_nobody=np.array([one.own > 0 and not cells.outcome.numeric for one in scales]),
        sizes=sizes,
    )


def _members(cells: Cells, n_teachers: int) -> Floats:
    """How many teachers are in each one's group, (teacher,)."""
    if cells.groups is None:
        return np.ones(n_teachers)
    first = cells.groups.cpu().numpy()
    return (first[:, None] == first).sum(1).astype(float)


def fit_pool(cells: Cells, scales: Scales, n_draws: int = 1) -> Stacked:
    """The fit with these scales, in single precision; with bootstrap draws if there are several."""
    problems = make_problems(cells, [scales], np.ones((1, len(cells.labels))))
    numbers = problems.solve(np.zeros_like(problems.mean))[0]
    if n_draws > 1:
        chance = torch.Generator().manual_seed(0)
        drawn = torch.empty(n_draws, len(cells.labels), dtype=torch.float64)
        counts = drawn.exponential_(generator=chance).numpy()
        fixed = scales._replace(temperature=0.0, gate=0.0)
        again = make_problems(cells, [fixed] * n_draws, counts / counts.mean(1, keepdims=True))
        again = replace(again, mean=np.where(again.spread > 0, again.mean, numbers))
        start = (numbers - again.mean) / np.where(again.spread > 0, again.spread, 1.0)
        numbers = again.solve(start)[0]
    return problems.read(numbers, scales.own)


def _times(design: Floats, numbers: Floats, across: bool = False) -> Floats:
    """Cells from numbers, or across: the transpose, each (problem, teacher, ...)."""
    design = design.transpose(0, 2, 1) if across else design
    return (numbers.transpose(1, 0, 2) @ design).transpose(1, 0, 2)


def _logsumexp(values: Floats) -> Floats:
    """Over teachers, (problem, teacher, cell) to (problem, 1, cell)."""
    most = values.max(1, keepdims=True)
    return most + np.log(np.exp(values - most).sum(1, keepdims=True))
