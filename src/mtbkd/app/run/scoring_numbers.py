"""How numbers are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.run.scoring_labels import arrays_of, label_columns
from mtbkd.app.run.scoring_shared import Scores, draws_of_numbers, unit_of
from mtbkd.data import Dataset
from mtbkd.distillation.distill import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.explain.influence import spread_of_means
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.metrics import mixture_log_density, number_scores, pit
from mtbkd.observation import Said
from mtbkd.observation.answers import NumberPredictive
from mtbkd.observation.units import Units, mixture
from mtbkd.student.student import Student
from mtbkd.types import Floats


class NumberScoring:
    """As `Scoring`."""

    def draws(
        self,
        student: Student,
        samples: PosteriorSamples,
        inputs: Tensor,
        labels: Tensor,
        units: Units | None,
    ) -> dict[str, float]:
        """Scores of the mixture of all draws."""
        draws = draws_of_numbers(student, samples, inputs, units)
        return number_scores(*draws, labels.numpy(), unit=unit_of(units))

    def teacher(
        self, complete: Tensor, mask: Tensor, labels: Tensor, units: Units | None
    ) -> Scores:
        """On the targets of which it speaks."""
        known = torch.where(mask, labels, torch.nan).numpy()
        means, spreads = mixture(torch.cat(complete.unbind(-1), -1), units)
        found = number_scores(
            means.numpy()[None], spreads.numpy()[None], known, unit=unit_of(units)
        )
        return {**found}

    def pool(
        self, said: Said, complete: Tensor, heard: Tensor, units: Units | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Components (teacher, example, target), and the variance of means (example, target)."""
        means, spreads = mixture(torch.cat(complete.unbind(-1), -1), units)
        apart = spread_of_means(said.log_weights, complete)
        apart = apart if units is None else apart * units.scale
        silent = torch.isneginf(said.log_weights).all(0)
        even = torch.full_like(said.log_weights, 1 / len(said.log_weights))
        weights = torch.where(silent, even, said.log_weights.exp()).double()
        return {"means": means, "sds": spreads, "weights": weights}, apart.double().square()

    def pooled(
        self, pool: dict[str, Tensor], heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        """On the targets of which any teacher speaks."""
        means, spreads, weights = _components(pool)
        known = torch.where(heard, labels, torch.nan).numpy()
        return number_scores(means, spreads, known, weights, unit=unit_of(units))

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        """Root mean square error."""
        off = (means - labels).square().nanmean((1, 2)).sqrt()
        return {"chain_rmse": off.double().numpy()}

    def student(
        self, posterior: Posterior, answer: NumberPredictive, causes: Causes, test: Dataset
    ) -> dict[str, float | None]:
        """Scores of the mixture of all draws."""
        student, samples, units = posterior.student, posterior.samples, posterior.units
        return {**self.draws(student, samples, test.inputs, test.labels, units)}

    def right(self, answer: NumberPredictive, causes: Causes, labels: Floats) -> Floats:
        """A number is never right."""
        return np.full(len(labels), np.nan)

    def shown(
        self,
        posterior: Posterior,
        answer: NumberPredictive,
        test: Dataset,
        pool: dict[str, Tensor],
        quarrel: Tensor,
    ) -> dict[str, Tensor]:
        """The answer's arrays, the disagreement, and where labels fall in both densities."""
        student, samples, units = posterior.student, posterior.samples, posterior.units
        draws = draws_of_numbers(student, samples, test.inputs, units)
        labels = test.labels.double().numpy()
        means, sds, weights = _components(pool)
        unit = unit_of(units)
        return arrays_of(answer) | {
            "disagreement": quarrel,
            "log_density": torch.from_numpy(mixture_log_density(*draws, labels)),
            "pit": torch.from_numpy(pit(*draws, labels)),
            "pool_pit": torch.from_numpy(pit(means, sds, labels, weights)),
            "unit": torch.ones(len(test.classes)) if unit is None else torch.from_numpy(unit),
        }

    def columns(
        self, test: Dataset, quarrel: Tensor, shares: Tensor, names: tuple[str, ...]
    ) -> dict[str, Any]:
        """A column and a disagreement for each target; one share for each example."""
        return {
            **label_columns(test),
            **{
                f"teacher_disagreement.{c}": quarrel[:, i].sqrt().numpy()
                for i, c in enumerate(test.classes)
            },
            **{f"responsibility.{n}": shares[k].mean(-1).numpy() for k, n in enumerate(names)},
        }

    def by_column(self, shares: Tensor, means: Tensor) -> Tensor:
        """Over the examples."""
        return shares.mean(1).double()


def _components(pool: dict[str, Tensor]) -> tuple[Floats, Floats, Floats]:
    """Means, standard deviations and weights of the pool."""
    return pool["means"].numpy(), pool["sds"].numpy(), pool["weights"].numpy()
