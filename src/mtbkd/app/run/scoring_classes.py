"""How classes are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mtbkd.app.run.scoring_shared import (
    Pool,
    Rival,
    Scores,
    entropy,
    mean_probs,
    pooled_probs,
    probs_of,
)
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.explain.influence import by_class
from mtbkd.metrics import coverage, error_auroc, exact_coverage, log_losses, scores
from mtbkd.observation import CLASSES, Said
from mtbkd.observation.answers import Predictive
from mtbkd.observation.units import Units
from mtbkd.types import Bools, Floats, Ints


class ClassScoring:
    """As `mtbkd.app.run.scoring.Scoring`."""

    def predicted(self, rival: Rival, inputs: Tensor, units: Units | None) -> Floats:
        return mean_probs(rival, inputs, CLASSES)

    def losses(self, predicted: Floats, labels: Ints) -> Floats:
        return log_losses(predicted, labels)[:, None]

    def doubts(self, predicted: Floats, units: Units | None) -> Floats:
        return entropy(predicted)[:, None]

    def wrong(self, predicted: Floats, labels: Ints) -> Floats:
        return (predicted.argmax(1) != labels)[:, None].astype(float)

    def draws(self, rival: Rival, test: Dataset, units: Units | None) -> dict[str, float]:
        return scores(self.predicted(rival, test.inputs, units), test.labels.numpy())

    def teacher(self, said: Tensor, mask: Tensor, labels: Tensor, units: Units | None) -> Scores:
        return {**scores(probs_of(said[mask]), labels[mask].numpy())}

    def pool(self, said: Said, complete: Tensor, heard: Tensor, units: Units | None) -> Pool:
        probs, quarrel = pooled_probs(said, complete, heard)
        return {"probs": probs, "disagreement": quarrel}

    def pooled(
        self, pool: Pool, heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        return scores(pool["probs"][heard].numpy(), labels[heard].numpy())

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        return {"chain_accuracy": (means.argmax(-1) == labels).double().mean(1).numpy()}

    def student(
        self, posterior: Posterior, answer: Predictive, causes: Causes, test: Dataset
    ) -> Scores:
        labels, sets = test.labels.numpy(), answer.credible_set(0.9)
        found: Scores = {
            **scores(answer.probs, labels),
            "coverage_90": coverage(sets, labels),
            "coverage_90_exact": exact_coverage(answer.probs, labels, 0.9),
            "mass_90": float((answer.probs * sets).sum(1).mean()),
            "set_size_90": float(sets.sum(1).mean()),
            "error_auroc": error_auroc(answer.probs, answer.total, labels),
        }
        if causes.sets is not None:
            found["set_coverage"] = coverage(causes.sets, labels)
            found["set_size"] = float(causes.sets.sum(1).mean())
        return found

    def right(self, answer: Predictive, causes: Causes, labels: Ints) -> Bools:
        return answer.probs.argmax(1) == labels

    def shown(
        self, posterior: Posterior, answer: Predictive, test: Dataset, pool: Pool
    ) -> dict[str, Tensor]:
        return {"pool_probs": pool["probs"]}

    def columns(self, test: Dataset, quarrel: Tensor, shares: dict[str, Tensor]) -> dict[str, Any]:
        names = [test.classes[i] if i >= 0 else "" for i in test.labels.tolist()]
        return {
            "label": np.array(names),
            "teacher_disagreement": quarrel.numpy(),
            **{f"responsibility.{name}": own.numpy() for name, own in shares.items()},
        }

    def by_column(self, shares: Tensor, means: Tensor) -> Tensor:
        return by_class(shares, means).double()
