"""Stacked weights: fitted to labels that no teacher was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.observation import CATEGORICAL, OUTCOMES, Observation, Outcome, Said
from mtbkd.observation.base import labelled
from mtbkd.weights.directions import Directions
from mtbkd.weights.rules import Seen, Stacked


class Scales(NamedTuple):
    """Prior standard deviations of what the scores rest on; 0 leaves a term out.

    Attributes:
        own: That of a and b, what the teacher's own confidence says.
        temperature: That of the log temperatures.
        by_class: That of d, the class that the teacher names.
        by_input: That of e, where the example lies.
    """

    own: float
    temperature: float
    by_class: float = 0.0
    by_input: float = 0.0


_OWN = (Scales(0, 0), Scales(0, 1), Scales(0.25, 1), Scales(1, 1), Scales(4, 1))
"""The scales of a, b and the temperatures that are tried, the most shrunk first."""

_FURTHER = {"by_input": (0.1, 0.3, 1.0), "by_class": (0.3, 1.0)}
"""Scales of the further terms that are tried, one term after the other."""

_FOLDS = 5
_MOST = 4096  # examples on which the prior's scales are chosen
_SIGNIFICANT = 1.645  # standard errors: one-sided, 5 %
_BETTER = 1.0  # standard errors by which a further term must be better
_NOBODY = (-3.0, 2.0)  # prior mean and standard deviation of the score of trusting nobody
_GATE = 6.0  # prior standard deviation of what the odds of a partial teacher's classes rest on
_DRAWS = 8
_ITERATIONS = 100
_EXACT, _ROUGH = 1e-5, 1e-3  # largest gradient of a fit, and of those that only choose
_MOST_CLASSES = 300  # classes of all teachers, beyond which trust by class is not tried


def fit_stacked(
    values: Tensor,
    mask: Tensor,
    labels: Tensor,
    *,
    kept: Tensor | None = None,
    observation: Observation = CATEGORICAL,
    features: Tensor | None = None,
    directions: Directions | None = None,
) -> Stacked:
    """Fit stacked weights and temperatures jointly on labels that no teacher was trained on.

    Maximises the log score of the pool ``sum_k w_k p_k`` of the teachers at their temperatures with
    Gaussian priors on a, b, d, e and log T, whose scales are chosen by five-fold cross-validation,
    on some thousands of examples at most. First those of a, b and T: weights are uniform and
    temperatures 1 unless the labels tell otherwise at the level of 5 %, for a temperature fitted to
    few labels harms intervals for p(y | x) more than it helps; of the rest the most shrunk within
    one standard error of the best. Then trust by input and trust by class, each of which must be
    better than without it by a standard error of the paired differences. Cells without any teacher
    are left out.

    How sure the weights are is drawn by the weighted likelihood bootstrap (Newton and Raftery
    1994): each draw is the fit to examples that count as often as exponential chance numbers say,
    at the temperatures of the fit to all.

    Where weights are not uniform, an example also has a share of trusting nobody, for which all
    classes are alike: where the only teacher that speaks is one that should not be trusted there,
    its weight must not become 1.

    Of several labels, each has its own a: a teacher's, and with the same prior what it is better or
    worse by on this label.

    For a teacher that knows some of the classes, the log odds that one of these is true are fitted
    as well, as a function of its confidence: ``pi_k p_k`` on its classes and ``1 - pi_k`` in equal
    parts on the others is what it adds to the pool.

    Args:
        values: As in `TeacherOutputs`.
        mask: Shape (teacher, example) or (teacher, example, column).
        labels: As in a `Dataset`, shape (example,) or (example, column).
        kept: As in `TeacherOutputs`.
        observation: How a student's outputs meet these teachers.
        features: What the student reads behind its frozen part, shape (example, ...).
        directions: What trust by input is along; without them it is not tried.
    """
    place = None
    if directions is not None and features is not None:
        place = directions.place(features).to(mask.device)
    cells = _Cells(
        values=values.double(),
        mask=mask,
        labels=labels,
        kept=kept,
        observation=observation,
        place=place,
    )
    some = cells.at(torch.arange(0, len(labels), -(-len(labels) // _MOST), device=labels.device))
    scores = cache(lambda scales: _cross_validated(some, scales))
    chosen = _OWN[_choose([scores(scales) for scales in _OWN])]
    for term in cells.further():
        base = chosen if chosen.own else chosen._replace(own=_OWN[2].own, temperature=1.0)
        options = [base._replace(**{term: scale}) for scale in _FURTHER[term]]
        best = max(options, key=lambda scales: float(scores(scales).mean()))
        if _errors_above(scores(best), scores(chosen)) > _BETTER:
            chosen = best
    fit = _fit(cells, chosen, _DRAWS if chosen.own else 1)
    return replace(fit, directions=directions if chosen.by_input else None)


def _cross_validated(cells: _Cells, scales: Scales) -> Tensor:
    """Log score of the pool in each known cell, fitted on the other folds."""
    fold = torch.arange(len(cells.labels), device=cells.labels.device) % _FOLDS
    score = torch.zeros(cells.labels.shape, dtype=torch.float64)
    for held in range(min(_FOLDS, len(cells.labels))):
        train, test = fold != held, fold == held
        if train.any():
            fit = _fit(cells.at(train), scales, exact=_ROUGH)
            score[test.cpu()] = cells.at(test).pool_score(fit).cpu()
    return score[cells.known.cpu()]


@dataclass(frozen=True)
class _Cells:
    """Labelled cells, and what the teachers say of them, in double precision."""

    values: Tensor
    mask: Tensor
    labels: Tensor
    kept: Tensor | None
    observation: Observation
    place: Tensor | None

    def at(self, rows: Tensor) -> _Cells:
        return replace(
            self,
            values=self.values[:, rows],
            mask=self.mask[:, rows],
            labels=self.labels[rows],
            kept=None if self.kept is None else self.kept[:, rows],
            place=None if self.place is None else self.place[rows],
        )

    def further(self) -> list[str]:
        """Terms beside the teachers' own confidence that can be tried here."""
        n_teachers, n_classes = len(self.values), self.values.shape[-1]
        named = self.outcome.exclusive and self.kept is None
        few = n_teachers * n_classes <= _MOST_CLASSES
        possible = {"by_input": self.place is not None, "by_class": named and few}
        return [term for term in _FURTHER if n_teachers > 1 and possible[term]]

    @property
    def outcome(self) -> Outcome:
        return OUTCOMES[self.observation.family]

    @property
    def known(self) -> Tensor:
        """Cells with a label and a teacher, (example,) or (example, column)."""
        return labelled(self.outcome, self.labels) & self.mask.any(0)

    @property
    def seen(self) -> Seen:
        return Seen(self.observation.features(self.values), self.values.argmax(-1), self.place)

    @property
    def base(self) -> Tensor | None:
        """Log odds of a partial teacher's classes if all are equally probable, (teacher, 1)."""
        spaces = self.observation.spaces
        if spaces is None or not any(k >= 0 for k in spaces.known):
            return None
        share = spaces.sizes.sum(1, keepdim=True) / self.values.shape[-1]
        return torch.logit(share.double(), 1e-6)

    @property
    def speaking(self) -> Tensor:
        """The mask, true for everybody in cells that do not count, so that all is finite."""
        return self.mask | ~self.known

    def score(self, temperature: Tensor, inside: Tensor | None) -> Tensor:
        """Log score of each teacher in each cell, (teacher, ...)."""
        said = Said(self.values, self.values[..., 0], self.kept, inside)
        return self.observation.score(said, self.labels, temperature)

    def pool_score(self, fit: Stacked) -> Tensor:
        seen = self.seen
        own = self.score(fit.temperature.double(), fit.inside(seen))
        return torch.where(self.known, self.pool(fit, seen, own), 0.0).double()

    def pool(self, fit: Stacked, seen: Seen, own: Tensor) -> Tensor:
        """Log score of the pool, (...), given that of each teacher, (teacher, ...)."""
        log_weights, nobody = fit.log_weights(seen, self.speaking)
        pooled = torch.logsumexp(log_weights + own, 0)
        if nobody is None:
            return pooled
        return torch.logaddexp(pooled, nobody - math.log(self.observation.n_alike(self.values)))


def _errors_above(scores: Tensor, others: Tensor) -> float:
    """How many standard errors the first are better by, pair by pair."""
    gap = scores - others
    return float(gap.mean()) / max(float(gap.std()) / math.sqrt(len(gap)), 1e-12)


def _choose(scores: Sequence[Tensor]) -> int:
    """The plain pool unless another is better at 5 %, else the most shrunk of the others.

    The most shrunk is the first within one standard error of the best.
    """
    best = max(range(len(scores)), key=lambda i: float(scores[i].mean()))
    if _errors_above(scores[best], scores[0]) <= _SIGNIFICANT:
        return 0
    return next(
        i for i in range(1, len(scores)) if i == best or _errors_above(scores[best], scores[i]) <= 1
    )


@dataclass(frozen=True)
class _Unknown:
    """How a vector of standard normal numbers is read as `Stacked`."""

    cells: _Cells
    scales: Scales

    def sizes(self) -> dict[str, int]:
        """How many numbers of each kind a teacher has."""
        cells, scales = self.cells, self.scales
        n_features, base = cells.seen.confidence.shape[-1], cells.base
        own = not (cells.outcome.exclusive or cells.outcome.numeric)
        n_columns = cells.values.shape[2] if own and cells.values.shape[2] > 1 else 0
        place = cells.place
        return {
            "intercept": 1,
            "slope": n_features,
            "temperature": 1,
            "gate": 0 if base is None else 1 + n_features,
            "column": n_columns,
            "by_class": cells.values.shape[-1] if scales.by_class else 0,
            "by_input": place.shape[1] if scales.by_input and place is not None else 0,
        }

    def read(self, flat: Tensor) -> Stacked:
        """From shape (draw, 1 + teacher * numbers); temperatures and gates of the first draw."""
        cells, scales, sizes = self.cells, self.scales, self.sizes()
        values = flat[:, 1:].unflatten(1, (len(cells.values), sum(sizes.values())))
        parts = dict(zip(sizes, values.split(list(sizes.values()), 2), strict=True))
        gate = None
        if cells.base is not None:
            gate = _GATE * parts["gate"][0]
            gate = torch.cat([gate[:, :1] + cells.base, gate[:, 1:]], 1)
        intercept = parts["intercept"][..., 0]
        if sizes["column"]:
            intercept = intercept[..., None] + parts["column"]
        with_nobody = scales.own > 0 and not cells.outcome.numeric
        return Stacked(
            intercept=scales.own * intercept,
            slope=scales.own * parts["slope"],
            temperature=(scales.temperature * parts["temperature"][0, :, 0]).exp(),
            scale=scales.own,
            nobody=_NOBODY[0] + _NOBODY[1] * flat[:, 0] if with_nobody else None,
            gate=gate,
            by_class=scales.by_class * parts["by_class"] if scales.by_class else None,
            by_input=scales.by_input * parts["by_input"] if scales.by_input else None,
        )


def _fit(cells: _Cells, scales: Scales, n_draws: int = 1, exact: float = _EXACT) -> Stacked:
    """The fit with these scales, in single precision; with bootstrap draws if there are several."""
    seen, known, unknown = cells.seen, cells.known, _Unknown(cells, scales)
    n_unknown = 1 + len(cells.values) * sum(unknown.sizes().values())
    start = torch.zeros(n_unknown, dtype=torch.float64, device=cells.values.device)

    def best(start: Tensor, counts: Tensor, at: Stacked | None = None) -> Tensor:
        """The most probable numbers where each example counts as often as this."""
        flat = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [flat],
            max_iter=_ITERATIONS,
            tolerance_grad=exact,
            tolerance_change=exact / 100,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            fit = unknown.read(flat[None])
            fit = fit if at is None else replace(fit, temperature=at.temperature, gate=at.gate)
            own = cells.score(fit.temperature, fit.inside(seen))
            each = counts.view(-1, *[1] * (known.dim() - 1)) * cells.pool(fit, seen, own)
            value = 0.5 * flat.square().sum() - each[known].sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(loss)  # type: ignore[arg-type]
        return flat.detach()

    mode = best(start, torch.ones(len(known), dtype=torch.float64, device=start.device))
    found = unknown.read(mode[None])
    if n_draws > 1:
        chance = torch.Generator().manual_seed(0)
        counts = torch.empty(n_draws, len(known), dtype=torch.float64)
        counts = counts.exponential_(generator=chance).to(mode.device)
        counts = counts / counts.mean(1, keepdim=True)
        draws = [best(mode, own, found) for own in counts]
        spread = unknown.read(torch.stack(draws))
        found = replace(spread, temperature=found.temperature, gate=found.gate)
    single: Any = {
        name: value.float() if isinstance(value, Tensor) else value
        for name, value in vars(found).items()
    }
    return Stacked(**single)
