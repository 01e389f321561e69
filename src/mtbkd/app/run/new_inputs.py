"""New inputs: read as those of the run were, and predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from mtbkd.app.config.run import RunConfig
from mtbkd.app.folder import check_run, read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Recipe
from mtbkd.app.run import stages
from mtbkd.app.run.few import FEW, recall_few
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import Causes, load_background
from mtbkd.explain.promise import answer_file
from mtbkd.inputs.kind import Unread
from mtbkd.observation.answers import rows_of
from mtbkd.outputs import store
from mtbkd.predictive import Answer
from mtbkd.types import Bools, InputError, Report, quiet


@dataclass(frozen=True)
class Predicted:
    """Answers on new inputs.

    Attributes:
        ids: Ids of the examples.
        classes: Names of classes, labels or targets.
        predictive: What the posterior says.
        causes: Why it is uncertain.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    predictive: Answer
    causes: Causes

    def at(self, rows: Bools) -> Predicted:
        """Some of the examples."""
        where = np.flatnonzero(rows)
        return replace(
            self,
            ids=tuple(self.ids[row] for row in where.tolist()),
            predictive=rows_of(self.predictive, where),
            causes=self.causes.at(where),
        )


@dataclass(frozen=True)
class New:
    """New inputs, and the run that answers on them.

    Attributes:
        config: The run's.
        recipe: The run's.
        ids: Ids of the inputs.
        inputs: As its student reads them.
        classes: Names of classes, labels or targets.
        posterior: The student.
    """

    config: RunConfig
    recipe: Recipe
    ids: tuple[str, ...]
    inputs: Tensor | Unread
    classes: tuple[str, ...]
    posterior: Posterior

    @property
    def head(self) -> Posterior:
        """The student behind its frozen part."""
        return replace(self.posterior, student=replace(self.posterior.student, frozen=None))


def read_new(
    out: Path,
    source: Path,
    report: Report = quiet,
    recipe: Recipe | None = None,
    network: str | None = None,
) -> New:
    """Read new inputs as `predict_run` does."""
    config = read_run(out, "samples/manifest.json", "teachers/manifest.json", network=network)
    check_run(out, (stages.BACKGROUND, "examples.json", FEW))
    if not (out / stages.BACKGROUND).exists():
        raise InputError(
            f"Expected {stages.BACKGROUND} in {out}, with which answers are compared, but it is "
            f"missing. Make it with `mtbkd evaluate {out}`."
        )
    recipe = recipe or find_recipe(config.recipe)
    classes = tuple(store.read_manifest(out / "teachers")["classes"])
    inputs: Tensor | Unread
    if recipe.read is not None:
        ids, inputs = recipe.read(source)
    elif recipe.read_as is not None:
        ids, inputs = recipe.read_as(config, out / "features", source, report)
    else:
        raise ValueError(f"the recipe {recipe.name} reads no new inputs")
    posterior = stages.recall(recipe, config, inputs[:1], classes, out)
    return New(
        config=config,
        recipe=recipe,
        ids=ids,
        inputs=inputs,
        classes=classes,
        posterior=posterior,
    )


def predict_run(
    out: Path,
    source: Path,
    report: Report = quiet,
    n_draws: int | None = None,
    recipe: Recipe | None = None,
    network: str | None = None,
) -> Predicted:
    """Predict new inputs with a distilled run, and say why answers are uncertain.

    Args:
        out: The run directory.
        source: New inputs.
        report: Called with the progress of long stages.
        n_draws: As many as the run keeps in place of all draws; None for all.
        recipe: Another one than the run names.
        network: As `read_run` takes it.

    Raises:
        InputError: If the run is not distilled, a file of it was changed, or the inputs are not
            what its recipe reads.
    """
    return predicted(out, read_new(out, source, report, recipe, network), report, n_draws)


def predicted(out: Path, new: New, report: Report = quiet, n_draws: int | None = None) -> Predicted:
    """The student's answers on new inputs; see `predict_run`."""
    posterior, head = new.posterior, new.head
    answering = head if n_draws is None else recall_few(head, out, n_draws)
    level, point = new.config.predict.level, new.config.predict.point
    predictive, causes = answer_file(
        load_background(out / stages.BACKGROUND, level),
        head,
        lambda rows: posterior.student.features(new.inputs[rows]),
        len(new.ids),
        answer=lambda some: answering.predict(some, level=level, point=point),
        report=report,
    )
    return Predicted(new.ids, new.classes, predictive, causes)
