"""Which answers of a run the student may give alone, found on its calibration examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtbkd.app.config.run import RunConfig
from mtbkd.app.folder import POLICY, SHOWN, amended, check_run, read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Recipe, Task
from mtbkd.app.report import draw_defer
from mtbkd.app.run import stages
from mtbkd.app.run.calibration import calibrated, on_calibration
from mtbkd.app.run.judged import Judged, judge, truly
from mtbkd.app.run.policy import FIGURE, Goal, Policy, record_of
from mtbkd.app.run.report_data import write_report
from mtbkd.app.run.scoring import pool_of
from mtbkd.distillation.choose import choose_weighting
from mtbkd.distillation.cross_fit import calibration_folds
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.defer import (
    cheapest,
    choose_score,
    coverage_curve,
    threshold,
    thresholds_by_class,
    voice,
)
from mtbkd.files import save_sealed, write_bytes
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.types import Bools, Floats, InputError, Report, quiet

_POINTS = 300


def defer_run(
    out: Path,
    goal: Goal,
    report: Report = quiet,
    recipe: Recipe | None = None,
    network: str | None = None,
) -> dict[str, Any]:
    """Find which answers the student may give alone, and write it down with its figure.

    Args:
        out: The run directory.
        goal: What is promised of them.
        report: Called with the progress of long stages.
        recipe: Another one than the run names.
        network: As `read_run` takes it.

    Returns:
        The content of ``defer.json``.

    Raises:
        InputError: If the goal or the run is none, or the answers are numbers.
    """
    goal.check()
    config = read_run(out, "samples/manifest.json", "teachers/costs.json", network=network)
    check_run(out, but=(*SHOWN, POLICY))
    recipe = recipe or find_recipe(config.recipe)
    task = stages.load(recipe, config, out)
    if task.test.outcome.numeric:
        raise InputError(
            f"Expected a run whose answers are right or wrong, but {out} answers with numbers. "
            "Hand over those whose interval (`lower` to `upper` of `mtbkd predict`) is wider than "
            "you can bear."
        )
    if goal.per_class and not task.test.outcome.exclusive:
        raise InputError(
            f"Expected --per-class of answers that say one class, but {out} answers with several "
            "labels. Leave it out."
        )
    teachers, _ = stages.teach(recipe, config, task, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.test.classes, out)
    task, posterior = stages.on_features(task, posterior, out)
    posterior, background = calibrated(config, task, teachers, posterior, out, report)
    answers, _ = on_calibration(config, task, teachers, posterior, out, report)
    calibration, test = task.calibration, task.test
    others = cross_fitted_pool(config, task, teachers, posterior)
    heard = [teachers.at(data.ids).mask.any(0).numpy() for data in (calibration, test)]
    held = judge(calibration, answers, posterior, background, others, heard[0])
    policy, numbers = find_policy(held, goal, len(test.classes))
    level, point = config.predict.level, config.predict.point
    tested = posterior.predict(test.inputs, level=level, point=point)
    outputs = teachers.at(test.ids)
    pool = pool_of(outputs, posterior.weighting, posterior.units, test.inputs)["probs"].numpy()
    shown = judge(test, tested, posterior, background, pool, heard[1])
    good = held.agrees[held.heard] if goal.agree is not None else held.right
    judged = held.at(held.heard) if goal.agree is not None else held
    found = record_of(policy) | {
        "classes": list(test.classes),
        "teachers": list(teachers.names),
        "calibration": numbers,
        "test": _numbers(shown, policy),
        "curves": {name: _curve(values, good) for name, values in judged.scores.items()},
    }
    with amended(out, POLICY, FIGURE, "report.html"):
        save_sealed(out / POLICY, found)
        write_bytes(out / FIGURE, draw_defer(found).encode())
        if (out / "metrics.json").exists():
            write_report(config, task, teachers, out)
    return found


def cross_fitted_pool(
    config: RunConfig, task: Task, teachers: TeacherOutputs, posterior: Posterior
) -> Floats:
    """What the teachers' pool says on calibration examples whose labels did not weigh it.

    Else the pool would seem better than the student, whose answers there are those of a student
    that did not learn from them. Shape (example, column).
    """
    calibration = task.calibration
    weighting, units = posterior.weighting, posterior.units
    stacked = weighting.stacked is not None
    fold = calibration_folds(len(calibration), task.together, config.seed)
    fold = fold if stacked else torch.zeros_like(fold)
    found: list[Floats] = []
    for held in range(int(fold.max()) + 1):
        own = calibration.subset((fold == held).nonzero()[:, 0])
        if stacked:
            rest = calibration.subset((fold != held).nonzero()[:, 0])
            weighting = choose_weighting("auto", task.train, teachers, rest, None, units)
        pool = pool_of(teachers.at(own.ids), weighting, units, own.inputs)
        found.append(pool["probs"].numpy())
    return np.concatenate(found)[fold.argsort(stable=True).argsort().numpy()]


def find_policy(held: Judged, goal: Goal, n_classes: int) -> tuple[Policy, dict[str, Any]]:
    """The policy that held-out answers find, and how good it is on those that found it.

    Args:
        held: Answers on calibration examples, of a student that did not learn from them.
        goal: What is promised.
        n_classes: How many classes there are.
    """
    held = held.at(held.heard) if goal.agree is not None else held
    if not len(held.right):
        raise InputError(
            "Expected calibration examples with labels, and with teachers for --agree, but got "
            "none. Label some."
        )
    weight = voice(*truly(held))
    good = held.agrees if goal.agree is not None else held.right
    score, rest = choose_score(held.scores, good)
    used, good = held.at(rest), good[rest]
    values = used.scores[score]
    if goal.call is not None and goal.error is not None:
        asked = ~used.all_right(used.together(weight))
        above = np.array([cheapest(values, ~used.right, asked, goal.call, goal.error)])
    else:
        target = float(goal.agree or goal.accuracy or 0.0)
        if goal.per_class:
            above = thresholds_by_class(
                values, good, target, expected=used.expected, said=used.said, n_classes=n_classes
            )
        else:
            above = np.array([threshold(values, good, target, expected=used.expected)])
    policy = Policy(goal, score, above, weight)
    return policy, _numbers(used, policy)


def _numbers(judged: Judged, policy: Policy) -> dict[str, Any]:
    """What a policy does on labelled examples."""
    alone = policy.alone(judged.scores, judged.said)
    asked = judged.all_right(judged.together(policy.weight))
    whole = np.where(alone, judged.right, asked)
    found: dict[str, Any] = {
        "n": len(alone),
        "alone": float(alone.mean()),
        "accuracy_alone": _mean(judged.right[alone]),
        "agreement_alone": _mean(judged.agrees[alone & judged.heard]),
        "accuracy_student": _mean(judged.right),
        "accuracy_asked": _mean(asked),
        "accuracy_system": _mean(whole),
        "calls_saved": float((alone & judged.heard).sum() / max(judged.heard.sum(), 1)),
    }
    call, error = policy.goal.call, policy.goal.error
    if call is not None and error is not None:
        found["cost"] = {
            "system": call * float((~alone).mean()) + error * float((~whole).mean()),
            "student": error * float((~judged.right).mean()),
            "asked": call + error * float((~asked).mean()),
        }
    return found


def _mean(values: Bools) -> float | None:
    return float(values.mean()) if len(values) else None


def _curve(scores: Floats, good: Bools) -> list[list[float]]:
    """Shares answered alone and what is reached there, at some hundreds of thresholds at most."""
    share, reached = coverage_curve(scores, good)
    some = np.unique(np.linspace(0, len(share) - 1, _POINTS).astype(int))
    return [share[some].round(6).tolist(), reached[some].round(6).tolist()]
