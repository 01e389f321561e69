"""A recipe from end to end, and its single stages, over a run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from mtbkd.app.config.run import RunConfig
from mtbkd.app.config.text import seconds_of
from mtbkd.app.folder import (
    JUDGED,
    POLICY,
    SHOWN,
    amended,
    check_run,
    close_run,
    is_finished,
    open_run,
    read_manifest,
    read_run,
    reopen_run,
)
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Labelling, Recipe
from mtbkd.app.run import stages
from mtbkd.app.run.costs import TRAINING
from mtbkd.app.run.few import FEW, keep_few
from mtbkd.distillation.posterior import Posterior
from mtbkd.distillation.shares import decided
from mtbkd.errors import shown
from mtbkd.files import read_json
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.types import Report, quiet, refuse

Say = Callable[[str], None]
"""Called with the name of each stage as it starts."""


@dataclass
class _Clock:
    """Wall-clock seconds of each stage, when it ran first."""

    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.say(name)
        start = perf_counter()
        yield
        self.seconds.setdefault(name, round(perf_counter() - start, 3))


def run(
    config: RunConfig,
    out: Path,
    *,
    say: Say = lambda _: None,
    report: Report = quiet,
    labelling: Labelling = Labelling(),
    more: str | None = None,
    begun: float | None = None,
) -> dict[str, Any]:
    """Teach, distil, evaluate and report; goes on from where a killed run stopped.

    Args:
        config: What to do.
        out: The run directory.
        say: Called with each stage.
        report: Called with the progress of long stages.
        labelling: How teachers are asked, where the recipe asks them.
        more: How long the chains of a finished run with a budget go on, such as ``5 min``.
        begun: When the run began, by `time.perf_counter`; now, if not given.

    Returns:
        The content of ``metrics.json``.

    Raises:
        InputError: If the configuration, the data or the folder is wrong.
    """
    from mtbkd.app.run.allowance import Allowance, choose_baselines, choose_folds, expected
    from mtbkd.app.run.baselines import baselines
    from mtbkd.app.run.calibration import calibrated
    from mtbkd.app.run.evaluate import Spent, evaluate
    from mtbkd.app.run.report_data import write_report

    begun = perf_counter() if begun is None else begun

    recipe = find_recipe(config.recipe)
    stages.check_scenario(recipe, config)
    extra = 0.0 if more is None else _extra(config, out, more)
    open_run(out, config)
    if extra and check_run(out):
        reopen_run(out, stages.BACKGROUND, FEW, POLICY)
    elif check_run(out):
        say("nothing to do: the run is complete")
        return read_json(out / "metrics.json")
    clock = _Clock(say, read_manifest(out)["seconds"] if is_finished(out) else {})
    with clock.stage("data"):
        task = stages.load(recipe, config, out, report)
    with clock.stage("teachers"):
        teachers, costs = stages.teach(recipe, config, task, out, labelling)
    with clock.stage("student"):
        allowance = Allowance(config.seconds + extra, begun, out)
        timed = config.budget is not None
        before = decided(out, "before", allowance.spent) if timed else 0.0
        posterior = stages.learn(recipe, config, task, teachers, out, report, extra, before)
        speed = stages.milliseconds(posterior, task.test.inputs)
        task, posterior = stages.on_features(task, posterior, out)
        after = expected(config, task, posterior, out) if timed else None
        if after is not None:
            choose_folds(config.baselines, after, allowance)
        posterior, _ = calibrated(config, task, teachers, posterior, out, report)
    with clock.stage("baselines"):
        if after is not None:
            choose_baselines(config.baselines, after, allowance)
        rivals = baselines(config, task, teachers, posterior, out, report)
    with clock.stage("evaluation"):
        spent = Spent(costs, speed, _early(clock.seconds))
        metrics = evaluate(config, task, teachers, posterior, rivals, spent, out)
    with clock.stage("report"):
        write_report(config, task, teachers, out)
    close_run(out, config, task.test.classes, {"seconds": clock.seconds})
    return metrics


def _extra(config: RunConfig, out: Path, more: str) -> float:
    """Seconds that a run goes on for.

    Raises:
        InputError: If it has no budget, or is not finished, or this is no duration.
    """
    faults = []
    if config.budget is None:
        faults.append(
            f"Expected a run with a budget, but {out} has none: its chains make the steps that its "
            "configuration says. Start a new run with a larger sampler.thinning, or with a budget."
        )
    elif not is_finished(out):
        faults.append(
            f"Expected a finished run in {out}, but it is not. Finish it with `mtbkd run {out}`."
        )
    try:
        seconds = seconds_of(more)
    except ValueError as error:
        faults.append(f"Expected --more to be {error}, but got {shown(more)}. Correct it.")
        seconds = 0.0
    refuse(*faults)
    return seconds


def teach(config: RunConfig, out: Path, labelling: Labelling = Labelling()) -> TeacherOutputs:
    """The first stage alone: the teachers' outputs on the recipe's examples."""
    recipe = find_recipe(config.recipe)
    stages.check_scenario(recipe, config)
    open_run(out, config)
    task = stages.load(recipe, config, out, labelling.report)
    return stages.teach(recipe, config, task, out, labelling)[0]


def distill(
    config: RunConfig,
    out: Path,
    report: Report = quiet,
    labelling: Labelling = Labelling(),
) -> Posterior:
    """The stages up to the posterior."""
    from mtbkd.app.run.calibration import calibrated

    recipe = find_recipe(config.recipe)
    stages.check_scenario(recipe, config)
    open_run(out, config)
    task = stages.load(recipe, config, out, report)
    teachers, _ = stages.teach(recipe, config, task, out, labelling)
    posterior = stages.learn(recipe, config, task, teachers, out, report)
    behind, head = stages.on_features(task, posterior, out)
    head, _ = calibrated(config, behind, teachers, head, out, report)
    keep_few(head, behind.train.inputs, out)
    return posterior.at_temperature(head.student.temperature)


def evaluate_run(
    out: Path, report: Report = quiet, recipe: Recipe | None = None, network: str | None = None
) -> dict[str, Any]:
    """Judge a distilled run again.

    Args:
        out: The run directory.
        report: Called with the progress of long stages.
        recipe: Another one than the run names.
        network: As `read_run` takes it.
    """
    from mtbkd.app.run.baselines import baselines
    from mtbkd.app.run.evaluate import Spent, evaluate

    config = read_run(out, "samples/manifest.json", "teachers/costs.json", network=network)
    check_run(out, but=(*JUDGED, *SHOWN))
    recipe = recipe or find_recipe(config.recipe)
    task = stages.load(recipe, config, out)
    teachers, costs = stages.teach(recipe, config, task, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.test.classes, out)
    speed = stages.milliseconds(posterior, task.test.inputs)
    task, posterior = stages.on_features(task, posterior, out)
    with amended(out, *JUDGED, TRAINING):
        rivals = baselines(config, task, teachers, posterior, out, report)
        spent = Spent(costs, speed, _seconds(out))
        return evaluate(config, task, teachers, posterior, rivals, spent, out)


def _seconds(out: Path) -> dict[str, float]:
    """What the stages before evaluation took, if the run has it."""
    if is_finished(out):
        return _early(read_manifest(out)["seconds"])
    path = out / "metrics.json"
    return read_json(path)["cost"]["seconds"] if path.exists() else {}


def _early(seconds: dict[str, float]) -> dict[str, float]:
    return {name: s for name, s in seconds.items() if name not in ("evaluation", "report")}


def report_run(out: Path, recipe: Recipe | None = None) -> Path:
    """Draw the report of an evaluated run again; returns where it is."""
    from mtbkd.app.run.report_data import write_report

    config = read_run(out, *JUDGED)
    check_run(out, but=SHOWN)
    recipe = recipe or find_recipe(config.recipe)
    with amended(out, "report.html"):
        task = stages.load(recipe, config, out)
        teachers, _ = stages.teach(recipe, config, task, out)
        write_report(config, task, teachers, out)
    return out / "report.html"
