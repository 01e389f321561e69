"""How several labels are judged."""

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
    entropy,
    mean_probs,
    pooled_probs,
    probs_of,
)
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.explain.conformal import whole_coverage
from mtbkd.metrics import label_losses, label_scores, wrong_auroc
from mtbkd.observation import BINARY, Said
from mtbkd.observation.answers import LabelPredictive
from mtbkd.observation.units import Units
from mtbkd.types import Floats


class LabelScoring:
    """As `mtbkd.app.run.scoring.Scoring`."""

    def predicted(self, rival: Rival, inputs: Tensor, units: Units | None) -> Floats:
        return mean_probs(rival, inputs, BINARY)

    def losses(self, predicted: Floats, labels: Floats) -> Floats:
        return label_losses(predicted, labels)

    def doubts(self, predicted: Floats, units: Units | None) -> Floats:
        return entropy(np.stack([1 - predicted, predicted], -1))

    def wrong(self, predicted: Floats, labels: Floats) -> Floats:
        return np.where(np.isnan(labels), np.nan, (predicted >= 0.5) != (labels == 1))

    def draws(self, rival: Rival, test: Dataset, units: Units | None) -> dict[str, float]:
        return label_scores(self.predicted(rival, test.inputs, units), test.labels.numpy())

    def teacher(self, said: Tensor, mask: Tensor, labels: Tensor, units: Units | None) -> Scores:
        known = torch.where(mask, labels, torch.nan).numpy()
        return {**label_scores(probs_of(said[..., 1]), known)}

    def pool(self, said: Said, complete: Tensor, heard: Tensor, units: Units | None) -> Pool:
        probs, quarrel = pooled_probs(said, complete, heard)
        return {"probs": probs[..., 1], "disagreement": quarrel}

    def pooled(
        self, pool: Pool, heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        known = torch.where(heard, labels, torch.nan)
        return label_scores(torch.where(heard, pool["probs"], 0.5).numpy(), known.numpy())

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        right = ((means >= 0.5) == (labels == 1)).double()
        right = torch.where(labels.isnan(), torch.nan, right)
        return {"chain_accuracy": right.flatten(1).nanmean(1).numpy()}

    def student(
        self, posterior: Posterior, answer: LabelPredictive, causes: Causes, test: Dataset
    ) -> Scores:
        rival = Rival(posterior.student, posterior.samples)
        found: Scores = {**self.draws(rival, test, None)}
        if causes.sets is not None:
            found["set_coverage"] = whole_coverage(causes.sets, test.labels.double().numpy())
            found["set_size"] = float(causes.sets.sum(1).mean())
            known = ~test.labels.isnan().numpy()
            wrong = (answer.probs >= 0.5) != (test.labels.numpy() == 1)
            found["error_auroc"] = wrong_auroc(answer.total[known], wrong[known])
        return found

    def right(self, answer: LabelPredictive, causes: Causes, labels: Floats) -> Any:
        if causes.labels is None:
            return np.full(len(labels), np.nan)
        return ((causes.labels == (labels == 1)) | np.isnan(labels)).all(1)

    def shown(
        self, posterior: Posterior, answer: LabelPredictive, test: Dataset, pool: Pool
    ) -> dict[str, Tensor]:
        shown = {"disagreement": pool["disagreement"], "pool_probs": pool["probs"]}
        return arrays_of(answer) | shown

    def columns(self, test: Dataset, quarrel: Tensor, shares: dict[str, Tensor]) -> dict[str, Any]:
        together = {"teacher_disagreement": quarrel.nan_to_num().sum(1).numpy()}
        return by_label(test, together, shares)

    def by_column(self, shares: Tensor, means: Tensor) -> Tensor:
        return shares.mean(1).double()
