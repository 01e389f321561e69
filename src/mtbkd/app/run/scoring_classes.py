"""How classes are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mtbkd.app.run.scoring_shared import Scores, mean_probs, pooled_probs, probs_of
from mtbkd.data import Dataset
from mtbkd.distillation.distill import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.explain.influence import by_class
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.metrics import coverage, error_auroc, exact_coverage, scores
from mtbkd.observation import CLASSES, Said
from mtbkd.observation.answers import Predictive
from mtbkd.observation.units import Units
from mtbkd.student.student import Student
from mtbkd.types import Bools, Floats


class ClassScoring:
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
        return scores(mean_probs(student, samples, inputs, CLASSES), labels.numpy())

    def teacher(
        self, complete: Tensor, mask: Tensor, labels: Tensor, units: Units | None
    ) -> Scores:
        """On the examples where it speaks."""
        return {**scores(probs_of(complete[mask]), labels[mask].numpy())}

    def pool(
        self, said: Said, complete: Tensor, heard: Tensor, units: Units | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Probabilities (example, class), and the divergence (example,)."""
        probs, quarrel = pooled_probs(said, complete, heard)
        return {"probs": probs}, quarrel

    def pooled(
        self, pool: dict[str, Tensor], heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        """On the examples where any teacher speaks."""
        return scores(pool["probs"][heard].numpy(), labels[heard].numpy())

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        """Share of classes that are right."""
        right = (means.argmax(-1) == labels).double()
        return {"chain_accuracy": right.mean(1).numpy()}

    def student(
        self, posterior: Posterior, answer: Predictive, causes: Causes, test: Dataset
    ) -> dict[str, float | None]:
        """Scores, and what sets hold."""
        labels = test.labels.numpy()
        sets, calibrated = answer.credible_set(0.9), causes.sets
        found: dict[str, float | None] = {}
        if calibrated is not None:
            found = {
                "set_coverage": coverage(calibrated, labels),
                "set_size": float(calibrated.sum(1).mean()),
            }
        return found | {
            **scores(answer.probs, labels),
            "coverage_90": coverage(sets, labels),
            "coverage_90_exact": exact_coverage(answer.probs, labels, 0.9),
            "mass_90": float((answer.probs * sets).sum(1).mean()),
            "set_size_90": float(sets.sum(1).mean()),
            "error_auroc": error_auroc(answer.probs, answer.total, labels),
        }

    def right(self, answer: Predictive, causes: Causes, labels: Floats) -> Bools:
        """The most probable class."""
        return answer.probs.argmax(1) == labels

    def shown(
        self,
        posterior: Posterior,
        answer: Predictive,
        test: Dataset,
        pool: dict[str, Tensor],
        quarrel: Tensor,
    ) -> dict[str, Tensor]:
        """The pool."""
        return {"pool_probs": pool["probs"]}

    def columns(
        self, test: Dataset, quarrel: Tensor, shares: Tensor, names: tuple[str, ...]
    ) -> dict[str, Any]:
        """One label."""
        label = np.array([test.classes[i] if i >= 0 else "" for i in test.labels.tolist()])
        return {
            "label": label,
            "teacher_disagreement": quarrel.numpy(),
            **{f"responsibility.{n}": shares[k].numpy() for k, n in enumerate(names)},
        }

    def by_column(self, shares: Tensor, means: Tensor) -> Tensor:
        """By class as the student sees it."""
        return by_class(shares, means).double()
