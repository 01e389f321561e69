"""The page: what each part of it says, and the template that lays it out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mtbkd.app.report import deferring, figures, figures_classes, figures_trust
from mtbkd.app.report.canvas import CHAINS
from mtbkd.app.report.data import ReportData, check
from mtbkd.app.report.families import FAMILIES, SPREAD, Column
from mtbkd.app.report.verdict import verdict
from mtbkd.app.report.words import count, is_number, number, percent, plural, significant

_CHAIN_COLUMNS = (
    ("step_size", "Step size"),
    ("distance_moved", "Distance moved"),
    ("kinetic_temperature", "Kinetic temperature"),
    ("acceptance", "Accepted"),
    ("divergences", "Divergences"),
    ("accuracy", "Accuracy"),
    ("rmse", "RMSE"),
)


def render(data: ReportData[Any]) -> str:
    """The report as one HTML file that needs no network and no script.

    Equal data gives equal bytes.

    Args:
        data: Everything the report shows.

    Raises:
        InputError: If arrays do not fit together, with one message for each.
    """
    check(data)
    family = FAMILIES[data.family]
    in_each = family.each.format(data.noun)
    drawn = family.figures(data) | _figures(data, in_each)
    columns = tuple(c for c in family.columns if c[0] != SPREAD or SPREAD in data.student)
    shared = {
        "data": data,
        "template": family.template,
        "nouns": plural(data.noun),
        "in_each": in_each,
        "taught_by": family.taught_by.format(data.noun),
        "verdict": verdict(data),
        "columns": [heading for _, heading, *_ in columns],
        "rows": _rows(data, columns),
        "figures": {name: Markup(svg) for name, svg in drawn.items()},
        "chain_columns": [heading for key, heading in _CHAIN_COLUMNS if key in data.chains],
        "chain_rows": _chain_rows(data),
        "sources": _sources(data.metrics.get("by_source", {}), columns),
        "named": figures_trust.by_named_class(data.trust, data.classes),
        "deferring": deferring,
        "flags": _flags(data.metrics.get("flags", {})),
        "examples": [
            {"id": example.id, "drawn": Markup(example.html), "teachers": example.teachers}
            | family.card(data, example)
            for example in data.examples
        ],
    }
    page = _environment().get_template("page.html.j2")
    return page.render(shared | family.more(data)) + "\n"


@cache
def _environment() -> Environment:
    """One for all pages, so that templates are compiled once."""
    environment = Environment(
        loader=PackageLoader("mtbkd.app.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {how.__name__: how for how in (count, number, percent, significant)}
    return environment


def _flags(flags: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the table of flags; none where nobody can say what is right."""
    if any(numbers.get("right") is None for numbers in flags.values()):
        return []
    return [
        (
            "not flagged" if name == "none" else name,
            [count(numbers["n"]), percent(numbers["right"]), percent(numbers["expected"])],
        )
        for name, numbers in flags.items()
    ]


def _sources(
    by_source: dict[str, Any], columns: tuple[Column, ...]
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Headings and rows of the table of the student's scores on each source."""
    some = next(iter(by_source.values()), {})
    further = (
        ("set_coverage", "Sets hold the truth", percent, None),
        ("outside", "Flagged as outside", percent, None),
    )
    shown = [column for column in (*columns, *further) if is_number(some.get(column[0]))]
    rows = [
        (name, [count(one["n"]), *(_cell(one.get(key), how) for key, _, how, _ in shown)])
        for name, one in by_source.items()
    ]
    return ["Examples", *(heading for _, heading, *_ in shown)], rows


def _cell(value: Any, how: Callable[[Any], str]) -> str:
    """A score as it is written, or a dash."""
    return how(value) if is_number(value) else number(None)


def _rows(data: ReportData[Any], columns: tuple[Column, ...]) -> list[dict[str, Any]]:
    """The table of results: kind, name, and each cell's text and whether it is the best."""
    metrics = data.metrics
    named = [("teacher", n, m) for n, m in metrics.get("teachers", {}).items()]
    if metrics.get("teacher_pool"):
        named.append(("pool", "pool of teachers", metrics["teacher_pool"]))
    named += [("baseline", n, m) for n, m in metrics.get("baselines", {}).items()]
    size = {"parameters": metrics.get("cost", {}).get("student_parameters")}
    named.append(("student", "Bayesian student", size | data.student))
    if "few" in metrics:
        few = metrics["few"]
        named.append(("student", f"{few['draws']} draws of it", size | few))
    rows = [{"kind": kind, "name": name, "cells": []} for kind, name, _ in named]
    for key, _, how, pick in columns:
        values = [m.get(key) for _, _, m in named]
        known = [v for v in values if is_number(v)]
        best = how(pick(known)) if pick and len(known) > 1 else None
        for row, value in zip(rows, values, strict=True):
            text = _cell(value, how)
            row["cells"].append((text, text == best))
    return rows


def _figures(data: ReportData[Any], in_each: str) -> dict[str, str]:
    """The figures that every family has."""
    drawn = {}
    if len(data.teachers) > 1:
        for name, title, values in (
            ("weights", "Prior weight of each teacher", data.weights_by_class),
            ("taught", "Responsibility of each teacher", data.responsibilities_by_class),
        ):
            drawn[name] = figures_classes.shares(
                name, f"{title} {in_each}", values, data.teachers, data.classes
            )
        if data.trust is not None and data.trust.place is not None:
            drawn["trusted"] = figures_trust.trusted(data.trust, data.teachers)
    if data.defer is not None:
        drawn["defer"] = deferring.inline_defer(data.defer)
    if data.trace.size:
        drawn["trace"] = figures.trace(data.trace)
    return drawn


def _chain_rows(data: ReportData[Any]) -> list[tuple[int, list[str]]]:
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
