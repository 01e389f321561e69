"""How numbers are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.run.scoring_shared import (
    Pool,
    Rival,
    Scores,
    arrays_of,
    by_label,
    draws_of_numbers,
    unit_of,
)
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.explain.influence import spread_of_means
from mtbkd.metrics import mixture_log_density, number_scores, pit
from mtbkd.observation import Said
from mtbkd.observation.answers import NumberPredictive
from mtbkd.observation.units import Units, mixture
from mtbkd.types import Floats


class NumberScoring:
    """As `mtbkd.app.run.scoring.Scoring`."""

    def predicted(self, rival: Rival, inputs: Tensor, units: Units | None) -> tuple[Floats, Floats]:
        return draws_of_numbers(rival, inputs, units)

    def losses(self, predicted: tuple[Floats, Floats], labels: Floats) -> Floats:
        return -mixture_log_density(*predicted, labels)

    def doubts(self, predicted: tuple[Floats, Floats], units: Units | None) -> Floats:
        means, sds = predicted
        variance, unit = means.var(0) + np.square(sds).mean(0), unit_of(units)
        return variance if unit is None else variance / np.square(unit)

    def wrong(self, predicted: tuple[Floats, Floats], labels: Floats) -> None:
        return None

    def draws(self, rival: Rival, test: Dataset, units: Units | None) -> dict[str, float]:
        draws = draws_of_numbers(rival, test.inputs, units)
        return number_scores(*draws, test.labels.numpy(), unit=unit_of(units))

    def teacher(self, said: Tensor, mask: Tensor, labels: Tensor, units: Units | None) -> Scores:
        known = torch.where(mask, labels, torch.nan).numpy()
        mean, sd = mixture(torch.cat(said.unbind(-1), -1), units)
        return {**number_scores(mean.numpy()[None], sd.numpy()[None], known, unit=unit_of(units))}

    def pool(self, said: Said, complete: Tensor, heard: Tensor, units: Units | None) -> Pool:
        means, spreads = mixture(torch.cat(complete.unbind(-1), -1), units)
        apart = spread_of_means(said.log_weights, complete)
        apart = apart if units is None else apart * units.scale
        silent = torch.isneginf(said.log_weights).all(0)
        even = torch.full_like(said.log_weights, 1 / len(said.log_weights))
        weights = torch.where(silent, even, said.log_weights.exp()).double()
        quarrel = apart.double().square()
        return {"means": means, "sds": spreads, "weights": weights, "disagreement": quarrel}

    def pooled(
        self, pool: Pool, heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        means, sds, weights = _components(pool)
        known = torch.where(heard, labels, torch.nan).numpy()
        return number_scores(means, sds, known, weights, unit=unit_of(units))

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        off = (means - labels).square().nanmean((1, 2)).sqrt()
        return {"chain_rmse": off.double().numpy()}

    def student(
        self, posterior: Posterior, answer: NumberPredictive, causes: Causes, test: Dataset
    ) -> Scores:
        return {**self.draws(Rival(posterior.student, posterior.samples), test, posterior.units)}

    def right(self, answer: NumberPredictive, causes: Causes, labels: Floats) -> Floats:
        return np.full(len(labels), np.nan)

    def shown(
        self, posterior: Posterior, answer: NumberPredictive, test: Dataset, pool: Pool
    ) -> dict[str, Tensor]:
        rival = Rival(posterior.student, posterior.samples)
        draws = draws_of_numbers(rival, test.inputs, posterior.units)
        labels, unit = test.labels.double().numpy(), unit_of(posterior.units)
        means, sds, weights = _components(pool)
        return arrays_of(answer) | {
            "disagreement": pool["disagreement"],
            "log_density": torch.from_numpy(mixture_log_density(*draws, labels)),
            "pit": torch.from_numpy(pit(*draws, labels)),
            "pool_pit": torch.from_numpy(pit(means, sds, labels, weights)),
            "unit": torch.ones(len(test.classes)) if unit is None else torch.from_numpy(unit),
        }

    def columns(self, test: Dataset, quarrel: Tensor, shares: dict[str, Tensor]) -> dict[str, Any]:
        apart = {
            f"teacher_disagreement.{c}": quarrel[:, i].sqrt().numpy()
            for i, c in enumerate(test.classes)
        }
        return by_label(test, apart, shares)

    def by_column(self, shares: Tensor, means: Tensor) -> Tensor:
        return shares.mean(1).double()


def _components(pool: Pool) -> tuple[Floats, Floats, Floats]:
    """Means, standard deviations and weights of the pool."""
    return pool["means"].numpy(), pool["sds"].numpy(), pool["weights"].numpy()
