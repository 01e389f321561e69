"""The page: what each part of it says, and the template that lays it out."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mtbkd.report import figures
from mtbkd.report.canvas import CHAINS
from mtbkd.report.data import Example, ReportData, check
from mtbkd.report.verdict import verdict
from mtbkd.report.words import count, is_number, number, percent, significant

# key in metrics, heading, how it is written, and which end is best
_COLUMNS = (
    ("accuracy", "Accuracy", lambda v: percent(v), max),
    ("nll", "NLL, nats", number, min),
    ("brier", "Brier", number, min),
    ("ece", "ECE", number, min),
    ("parameters", "Parameters", count, min),
    ("ms_per_example", "ms / example", significant, min),
)
_CHAIN_COLUMNS = (
    ("step_size", "Step size"),
    ("distance_moved", "Distance moved"),
    ("kinetic_temperature", "Kinetic temperature"),
    ("acceptance", "Accepted"),
    ("divergences", "Divergences"),
    ("accuracy", "Accuracy"),
)
_SET_SHOWN = 6


def render(data: ReportData) -> str:
    """The report as one HTML file that needs no network and no script.

    Equal data gives equal bytes.

    Args:
        data: Everything the report shows.

    Raises:
        InputError: If arrays do not fit together, with one message for each.
    """
    check(data)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("mtbkd.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        data=data,
        metrics=data.metrics,
        verdict=verdict(data),
        tiles=_tiles(data),
        columns=[heading for _, heading, *_ in _COLUMNS],
        rows=_rows(data.metrics),
        figures={name: Markup(svg) for name, svg in _figures(data).items()},
        chain_columns=[heading for key, heading in _CHAIN_COLUMNS if key in data.chains],
        chain_rows=_chain_rows(data),
        diagnostics=_diagnostics(data.metrics.get("diagnostics", {})),
        sampler=_sampler(data.metrics.get("diagnostics", {})),
        examples=[_card(data, example) for example in data.examples],
        costs=_costs(data.metrics.get("cost", {})),
        count=count,
    ) + "\n"  # fmt: skip


def _tiles(data: ReportData) -> list[tuple[str, str, str]]:
    """Name, value and meaning of the numbers at the top."""
    student = data.metrics.get("student", {})

    def shown(key: str, how: Any) -> str:
        value = student.get(key)
        return how(value) if is_number(value) else number(None)

    cost = data.metrics.get("cost", {})
    size = student.get("parameters", cost.get("student_parameters"))
    return [
        ("Accuracy", shown("accuracy", percent), "share of test answers that are right"),
        ("ECE", shown("ece", number), "gap between stated confidence and share right; 0 is best"),
        (
            f"Coverage at {percent(0.9, 0)}",
            shown("coverage_90", percent),
            f"of {percent(0.9, 0)} sets contain the truth; should not be below {percent(0.9, 0)}",
        ),
        (
            "Error AUROC",
            shown("error_auroc", lambda v: number(v, 2)),
            "how well uncertainty tells wrong answers from right ones; 0.5 is chance, 1 perfect",
        ),
        ("Size", count(size), "parameters in the student"),
    ]


def _rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of results: kind, name, and each cell's text and whether it is the best."""
    named = [("teacher", n, m) for n, m in metrics.get("teachers", {}).items()]
    if metrics.get("teacher_pool"):
        named.append(("pool", "pool of teachers", metrics["teacher_pool"]))
    named += [("baseline", n, m) for n, m in metrics.get("baselines", {}).items()]
    student = dict(metrics.get("student", {}))
    student.setdefault("parameters", metrics.get("cost", {}).get("student_parameters"))
    named.append(("student", "Bayesian student", student))
    rows = [{"kind": kind, "name": name, "cells": []} for kind, name, _ in named]
    for key, _, how, pick in _COLUMNS:
        values = [m.get(key) for _, _, m in named]
        known = [v for v in values if is_number(v)]
        best = how(pick(known)) if len(known) > 1 else None
        for row, value in zip(rows, values, strict=True):
            text = how(value) if is_number(value) else number(None)
            row["cells"].append((text, text == best))
    return rows


def _figures(data: ReportData) -> dict[str, str]:
    drawn = {
        "student": figures.calibration(
            "student", "Reliability diagram of the student", data.probs, data.labels, "student"
        ),
        "spread": figures.right_and_wrong(data),
        "split": figures.split(data),
        "handing": figures.handing_over(data),
    }
    if data.pool_probs is not None:
        drawn["pool"] = figures.calibration(
            "pool",
            "Reliability diagram of the teachers' pool",
            data.pool_probs,
            data.labels,
            "pool",
        )
    if len(data.teachers) > 1:
        for name, title, values in (
            ("weights", "Prior weight of each teacher in each class", data.weights_by_class),
            (
                "taught",
                "Responsibility of each teacher in each class",
                data.responsibilities_by_class,
            ),
        ):
            drawn[name] = figures.shares(name, title, values, data.teachers, data.classes)
    if data.trace.size:
        drawn["trace"] = figures.trace(data.trace)
    return drawn


def _chain_rows(data: ReportData) -> list[tuple[int, list[str]]]:
    """Colour and cells of each chain."""
    known = [key for key, _ in _CHAIN_COLUMNS if key in data.chains]
    n = max((len(data.chains[key]) for key in known), default=0)

    def cell(key: str, chain: int) -> str:
        values = data.chains[key].tolist()
        if chain >= len(values) or not is_number(values[chain]):
            return number(None)
        if key in ("accuracy", "acceptance"):
            return percent(values[chain])
        return significant(values[chain])

    return [(i % len(CHAINS), [cell(key, i) for key in known]) for i in range(n)]


def _diagnostics(numbers: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, median and worst of R-hat and of the effective sample size."""
    return [
        (name, number(numbers.get(median), digits), number(numbers.get(worst), digits))
        for name, median, worst, digits in (
            ("R-hat", "rhat_median", "rhat_95", 3),
            ("Effective sample size", "ess_median", "ess_5", 0),
        )
    ]


def _sampler(numbers: dict[str, Any]) -> str:
    """Which engine drew, and why."""
    engine, reason = numbers.get("engine"), numbers.get("engine_reason")
    return f"Drawn by {engine}: {reason}." if engine and reason else ""


def _card(data: ReportData, example: Example) -> dict[str, Any]:
    """An example, with the length of its uncertainty bar in per cent of the page's longest."""
    longest = max((e.total for e in data.examples), default=0) or 1.0
    hidden = len(example.credible_set) - _SET_SHOWN
    return {
        "example": example,
        "drawn": Markup(example.html),
        "right": example.label == example.prediction,
        "probability": number(example.probability, 2),
        "parts": [
            (word, number(nats, 2), f"{100 * max(0.0, nats) / longest:.1f}")
            for word, nats in (("aleatoric", example.aleatoric), ("epistemic", example.epistemic))
        ],
        "total": number(example.total, 2),
        "set": example.credible_set[: _SET_SHOWN if hidden > 0 else None],
        "hidden": max(hidden, 0),
    }


def _costs(cost: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = cost.get("seconds")
    if isinstance(seconds, dict):
        return [(f"seconds.{k}", significant(v)) for k, v in seconds.items()]
    return [("seconds", significant(seconds))] if is_number(seconds) else []
