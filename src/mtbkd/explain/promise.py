"""What has to be told of a file as a whole: whether the promise of its sets holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import RARE, Background, Causes, find_causes, joined_causes
from mtbkd.explain.outside import Seen, see
from mtbkd.explain.shift import (
    LEAST,
    UNLIKE,
    HeldOut,
    Ratio,
    compared,
    density_ratio,
    reweighted,
    same_kind,
)
from mtbkd.observation.answers import joined
from mtbkd.predictive import Answer, NumberPredictive, Predictive
from mtbkd.types import Report, quiet

_MANY = 5 * RARE  # share of rows outside, from which on weights mend nothing
_EFFECTIVE = 50  # calibration rows that have to be left
_ROWS = 2**14  # that are answered and explained at a time


def answer_file(
    background: Background,
    head: Posterior,
    features: Callable[[slice], Tensor],
    n: int,
    *,
    answer: Callable[[Tensor], Answer],
    report: Report = quiet,
) -> tuple[Answer, Causes]:
    """Answer all rows of a file, say why answers are uncertain, and judge it as a whole.

    Rows are read, answered and explained block by block, and what they were read as is not kept.

    Args:
        background: What the run keeps.
        head: The student behind its frozen part.
        features: What that reads of some rows, shape (row, ...).
        n: How many rows there are, one or more.
        answer: What is said of features.
        report: Called after each of several blocks.
    """
    chosen = compared(n)
    answers: list[Answer] = []
    causes: list[Causes] = []
    shown: list[Seen] = []
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        some = features(slice(start, stop))
        seen = see(head, some)
        answers.append(answer(some))
        causes.append(find_causes(background, seen, answers[-1]))
        shown.append(seen.at(chosen[(chosen >= start) & (chosen < stop)] - start))
        if n > _ROWS:
            report("predictions", stop, n)
    predictive = joined(answers)
    seen = Seen(torch.cat([s.inputs for s in shown]), torch.cat([s.hidden for s in shown]))
    return predictive, judge_file(background, seen, predictive, joined_causes(causes), head.classes)


def judge_file(
    background: Background,
    seen: Seen,
    predictive: Answer,
    causes: Causes,
    classes: tuple[str, ...],
) -> Causes:
    """Say so where the rows do not look like the calibration rows, and weight the sets for it.

    Fewer than 20 rows are not tested.

    Args:
        background: What the run keeps.
        seen: Those of the file's rows that are `mtbkd.explain.shift.compared`.
        predictive: The student's answers on them.
        causes: Why these are uncertain.
        classes: Their names.

    Returns:
        With a note, and with sets for rows of this kind; as given where the rows do look alike.
    """
    held_out = background.held_out
    scores = causes.scores
    if len(scores) < LEAST or len(held_out.scores) < LEAST:
        return causes
    p = same_kind(held_out, seen, scores)
    if p > UNLIKE:
        return causes
    shown = "p < 0.001" if p < 1e-3 else f"p = {p:.3f}"
    note = f"these {len(scores):,} rows do not look like the calibration rows ({shown})"
    level = f"{100 * float(background.level):.0f} %"
    if isinstance(predictive, NumberPredictive):
        told = f"their intervals are not known to hold {level} here; measure some of them"
        return replace(causes, note=f"{note}: {told}")
    ratio = density_ratio(held_out, scores, predictive)
    sets = reweighted(held_out, ratio, predictive, float(background.level))
    told = _beyond(held_out, ratio, predictive, causes, classes)
    if told:
        note += f": their sets (`possible`) are not to be relied on, since {told}"
    else:
        note += (
            f": their sets (`possible`) are weighted for it, as if there were {ratio.effective:.0f}"
            f" calibration rows, and hold {level} only if the same answers are right for the same "
            "inputs as there, which no test can tell; measure some of them"
        )
    return replace(causes, sets=sets, note=note)


def _beyond(
    held_out: HeldOut,
    ratio: Ratio,
    predictive: Answer,
    causes: Causes,
    classes: tuple[str, ...],
) -> str:
    """Why weights do not mend it, or nothing."""
    share = float((causes.outside <= RARE).mean())
    if share > _MANY:
        return f"{100 * share:.0f} % of them are outside what was trained on"
    if ratio.effective < _EFFECTIVE:
        return f"only about {ratio.effective:.0f} calibration rows are like them"
    if isinstance(predictive, Predictive):
        labels = held_out.labels.numpy()
        counts = np.bincount(labels[labels >= 0], minlength=len(classes))
        never = [name for name, n in zip(classes, counts, strict=True) if not n]
        if never:
            more = f" and {len(never) - 1} more" if len(never) > 1 else ""
            return f"no calibration row is {never[0]}{more}"
    return ""
