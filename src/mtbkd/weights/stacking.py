"""Stacked weights: fitted to labels that no teacher was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mtbkd.observation import CATEGORICAL, OUTCOMES, Observation, Outcome, Said
from mtbkd.observation.base import labelled
from mtbkd.weights.rules import Stacked

_SCALES = ((0.0, 0.0), (0.0, 1.0), (0.25, 1.0), (1.0, 1.0), (4.0, 1.0))
"""Prior standard deviations of (a and b, log T) that are tried, the most shrunk first."""


_FOLDS = 5


_MOST = 4096  # examples on which the prior's scales are chosen


_SIGNIFICANT = 1.645  # standard errors: one-sided, 5 %


_NOBODY = (-3.0, 2.0)  # prior mean and standard deviation of the score of trusting nobody


_GATE = 6.0  # prior standard deviation of what the odds of a partial teacher's classes rest on


def fit_stacked(
    values: Tensor,
    mask: Tensor,
    labels: Tensor,
    *,
    kept: Tensor | None = None,
    observation: Observation = CATEGORICAL,
) -> Stacked:
    """Fit stacked weights and temperatures jointly on labels that no teacher was trained on.

    Maximises the log score of the pool ``sum_k w_k p_k`` of the teachers at their temperatures with
    Gaussian priors on a, b and log T. The scales of these priors are chosen by five-fold
    cross-validation, on some thousands of examples at most: weights are uniform and temperatures 1
    unless the labels tell otherwise at the level of 5 %, for a temperature fitted to few labels
    harms intervals for p(y | x) more than it helps; of the rest the most shrunk within one standard
    error of the best. Cells without any teacher are left out.

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
    """
    cells = _Cells(
        values=values.double(), mask=mask, labels=labels, kept=kept, observation=observation
    )
    some = cells.at(torch.arange(0, len(labels), -(-len(labels) // _MOST), device=labels.device))
    fold = torch.arange(len(some.labels), device=labels.device) % _FOLDS
    scores = []
    for scales in _SCALES:
        score = torch.zeros(some.labels.shape, dtype=torch.float64)
        for held in range(min(_FOLDS, len(some.labels))):
            train, test = fold != held, fold == held
            if not train.any():
                continue
            fit = _fit(some.at(train), scales)
            score[test.cpu()] = some.at(test).pool_score(fit).cpu()
        scores.append(score[some.known.cpu()])
    return _fit(cells, _SCALES[_choose(scores)])


@dataclass(frozen=True)
class _Cells:
    """Labelled cells, and what the teachers say of them, in double precision."""

    values: Tensor
    mask: Tensor
    labels: Tensor
    kept: Tensor | None
    observation: Observation

    def at(self, rows: Tensor) -> _Cells:
        return replace(
            self,
            values=self.values[:, rows],
            mask=self.mask[:, rows],
            labels=self.labels[rows],
            kept=None if self.kept is None else self.kept[:, rows],
        )

    @property
    def outcome(self) -> Outcome:
        return OUTCOMES[self.observation.family]

    @property
    def known(self) -> Tensor:
        """Cells with a label and a teacher, (example,) or (example, column)."""
        return labelled(self.outcome, self.labels) & self.mask.any(0)

    @property
    def features(self) -> Tensor:
        return self.observation.features(self.values)

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
        features = self.features
        inside = fit.inside(features)
        own = self.score(fit.temperature.double(), inside)
        return torch.where(self.known, self.pool(fit, features, own), 0.0).double()

    def pool(self, fit: Stacked, features: Tensor, own: Tensor) -> Tensor:
        """Log score of the pool, (...), given that of each teacher, (teacher, ...)."""
        log_weights, nobody = fit.log_weights(features, self.speaking)
        pooled = torch.logsumexp(log_weights + own, 0)
        if nobody is None:
            return pooled
        return torch.logaddexp(pooled, nobody - math.log(self.observation.n_alike(self.values)))


def _choose(scores: Sequence[Tensor]) -> int:
    """The plain pool unless another is better at 5 %, else the most shrunk of the others.

    The most shrunk is the first within one standard error of the best.
    """
    best = max(range(len(scores)), key=lambda i: float(scores[i].mean()))

    def errors_below(i: int) -> float:
        gap = scores[best] - scores[i]
        return float(gap.mean()) / max(float(gap.std()) / math.sqrt(len(gap)), 1e-12)

    if errors_below(0) <= _SIGNIFICANT:
        return 0
    return next(i for i in range(1, len(scores)) if i == best or errors_below(i) <= 1)


def _fit(cells: _Cells, scales: tuple[float, float]) -> Stacked:
    scale, temperature_scale = scales
    phi, base, known = cells.features, cells.base, cells.known
    n_teachers, n_features = len(phi), phi.shape[-1]
    n_unknown = 2 + n_features + (0 if base is None else 1 + n_features)
    own = not (cells.outcome.exclusive or cells.outcome.numeric)
    n_columns = cells.values.shape[2] if own and cells.values.shape[2] > 1 else 0
    unknown = torch.zeros(
        1 + n_teachers * (n_unknown + n_columns),
        dtype=torch.float64,
        device=phi.device,
        requires_grad=True,
    )
    with_nobody = scale > 0 and not cells.outcome.numeric
    optimiser = torch.optim.LBFGS(
        [unknown], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def read(flat: Tensor) -> Stacked:
        values, gate = flat[1:].view(n_teachers, n_unknown + n_columns), None
        values, of_column = values.split([n_unknown, n_columns], 1)
        if base is not None:
            gate = _GATE * values[:, 2 + n_features :]
            gate = torch.cat([gate[:, :1] + base, gate[:, 1:]], 1)
        return Stacked(
            intercept=scale * (values[:, :1] + of_column if n_columns else values[:, 0]),
            slope=scale * values[:, 1 : 1 + n_features],
            temperature=(temperature_scale * values[:, 1 + n_features]).exp(),
            scale=scale,
            nobody=_NOBODY[0] + _NOBODY[1] * flat[0] if with_nobody else None,
            gate=gate,
        )

    def loss() -> Tensor:
        optimiser.zero_grad()
        fit = read(unknown)
        own = cells.score(fit.temperature, fit.inside(phi))
        value = 0.5 * unknown.square().sum() - cells.pool(fit, phi, own)[known].sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[arg-type]
    found = asdict(read(unknown.detach()))
    single: Any = {k: v.float() if isinstance(v, Tensor) else v for k, v in found.items()}
    return Stacked(**single)
