"""How several labels are judged."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.run.scoring_shared import Scores, mean_probs, pooled_probs, probs_of
from mtbkd.data import Dataset
from mtbkd.distillation.distill import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.explain.conformal import whole_coverage
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.metrics import label_scores, wrong_auroc
from mtbkd.observation import BINARY, Said
from mtbkd.observation.answers import LabelPredictive, NumberPredictive
from mtbkd.observation.units import Units
from mtbkd.student.student import Student
from mtbkd.types import Floats


class LabelScoring:
    """As `Scoring`."""

    def draws(
        self,
        student: Student,
        samples: PosteriorSamples,
        inputs: Tensor,
        labels: Tensor,
        units: Units | None,
    ) -> dict[str, float]:
        """Scores of the mean probabilities."""
        return label_scores(mean_probs(student, samples, inputs, BINARY), labels.numpy())

    def teacher(
        self, complete: Tensor, mask: Tensor, labels: Tensor, units: Units | None
    ) -> Scores:
        """On the labels of which it speaks."""
        known = torch.where(mask, labels, torch.nan).numpy()
        return {**label_scores(probs_of(complete[..., 1]), known)}

    def pool(
        self, said: Said, complete: Tensor, heard: Tensor, units: Units | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Probabilities of yes and the divergence, each (example, label)."""
        probs, quarrel = pooled_probs(said, complete, heard)
        return {"probs": probs[..., 1]}, quarrel

    def pooled(
        self, pool: dict[str, Tensor], heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        """On the labels of which any teacher speaks."""
        known = torch.where(heard, labels, torch.nan)
        return label_scores(torch.where(heard, pool["probs"], 0.5).numpy(), known.numpy())

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        """Share of known labels that are right."""
        right = ((means >= 0.5) == (labels == 1)).double()
        right = torch.where(labels.isnan(), torch.nan, right)
        return {"chain_accuracy": right.flatten(1).nanmean(1).numpy()}

    def student(
        self, posterior: Posterior, answer: LabelPredictive, causes: Causes, test: Dataset
    ) -> dict[str, float | None]:
        """Scores, and what sets hold."""
        found: dict[str, float | None] = {
            **self.draws(posterior.student, posterior.samples, test.inputs, test.labels, None)
        }
        if causes.sets is not None:
            found["set_coverage"] = whole_coverage(causes.sets, test.labels.double().numpy())
            found["set_size"] = float(causes.sets.sum(1).mean())
            known = ~test.labels.isnan().numpy()
            wrong = (answer.probs >= 0.5) != (test.labels.numpy() == 1)
            found["error_auroc"] = wrong_auroc(answer.total[known], wrong[known])
        return found

    def right(self, answer: LabelPredictive, causes: Causes, labels: Floats) -> Any:
        """All known labels at once, at the thresholds of the run."""
        if causes.labels is None:
            return np.full(len(labels), np.nan)
        return ((causes.labels == (labels == 1)) | np.isnan(labels)).all(1)

    def shown(
        self,
        posterior: Posterior,
        answer: LabelPredictive,
        test: Dataset,
        pool: dict[str, Tensor],
        quarrel: Tensor,
    ) -> dict[str, Tensor]:
        """The answer's arrays, the disagreement and the pool."""
        return arrays_of(answer) | {"disagreement": quarrel, "pool_probs": pool["probs"]}

    def columns(
        self, test: Dataset, quarrel: Tensor, shares: Tensor, names: tuple[str, ...]
    ) -> dict[str, Any]:
        """A column for each label; one disagreement and one share for each example."""
        return {
            **label_columns(test),
            "teacher_disagreement": quarrel.nan_to_num().sum(1).numpy(),
            **{f"responsibility.{n}": shares[k].mean(-1).numpy() for k, n in enumerate(names)},
        }

    def by_column(self, shares: Tensor, means: Tensor) -> Tensor:
        """Over the examples."""
        return shares.mean(1).double()


def arrays_of(answer: LabelPredictive | NumberPredictive) -> dict[str, Tensor]:
    """What an answer holds for each example and column, by name."""
    arrays = {k: v for k, v in asdict(answer).items() if isinstance(v, np.ndarray)}
    arrays["epistemic"] = answer.epistemic
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def label_columns(test: Dataset) -> dict[str, Any]:
    """Labels or targets by column."""
    return {f"label.{c}": test.labels[:, i].numpy() for i, c in enumerate(test.classes)}
