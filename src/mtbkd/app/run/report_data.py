"""Gathers what a run left behind into its report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from mtbkd.app.config.run import RunConfig, build_config
from mtbkd.app.folder import POLICY
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Task
from mtbkd.app.report import FAMILIES, Example, Others, ReportData, Trust, render
from mtbkd.app.run.others import PARTS
from mtbkd.app.run.policy import read_record
from mtbkd.files import load_tensors, read_json, write_bytes
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.teachers.labelling.label import tally
from mtbkd.teachers.labelling.shards import failure_reasons, read_journal
from mtbkd.types import Floats

_SHOWN = 12
_REASONS = 5
_CHAINS = ("step_size", "distance_moved", "kinetic_temperature", "acceptance", "divergences")

Arrays = dict[str, Floats]


def write_report(config: RunConfig, task: Task, teachers: TeacherOutputs, out: Path) -> None:
    """Write ``report.html`` from the run's metrics, predictions and evaluation."""
    write_bytes(out / "report.html", render(report_data(config, task, teachers, out)).encode())


def report_data(
    config: RunConfig, task: Task, teachers: TeacherOutputs, out: Path
) -> ReportData[Any]:
    """What the report of an evaluated run shows."""
    metrics = read_json(out / "metrics.json")
    family, arrays = FAMILIES[task.test.family], _arrays(task, out)
    total = arrays["total"] / np.square(arrays.get("unit", 1.0))
    own = arrays | {"level": config.predict.level}
    return ReportData(
        title=task.name,
        asked=_flat(config.model_dump(mode="json")),
        command=_command(config),
        metrics=_with_costs(metrics),
        family=task.test.family,
        noun=task.noun or family.noun,
        classes=task.test.classes,
        labels=task.test.labels.numpy(),
        total=arrays["total"],
        aleatoric=arrays["aleatoric"],
        epistemic=arrays["epistemic"],
        disagreement=arrays["disagreement"],
        teachers=teachers.names,
        weights_by_class=arrays["weights_by_class"],
        responsibilities_by_class=arrays["responsibilities_by_class"],
        chains=_chains(metrics["diagnostics"], arrays),
        trace=arrays["trace"],
        examples=_most_uncertain(task, teachers, total),
        warnings=tuple(metrics["diagnostics"]["warnings"]),
        part=family.part(**{f.name: own.get(f.name) for f in fields(family.part)}),
        others={name: _other(name, arrays) for name in metrics["student"].get("others", {})},
        trust=_trust(arrays),
        defer=read_record(out) if (out / POLICY).exists() else None,
        unanswered=_unanswered(out),
    )


def _unanswered(out: Path) -> tuple[str, ...]:
    """A sentence on each teacher that left rows without an answer."""
    told = []
    for path in sorted((out / "teachers" / "labels").glob("*/journal.jsonl")):
        journal = read_journal(path.parent)
        reasons = failure_reasons(path.parent)
        if journal is None or not reasons:
            continue
        rows, failed = tally(journal)
        why = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(_REASONS))
        told.append(f"{journal.header['teacher']['name']}: {failed} of {rows} rows. {why}.")
    return tuple(told)


def _arrays(task: Task, out: Path) -> Arrays:
    """What the evaluation stored; classes have most of it in the table of predictions."""
    stored = load_tensors(out / "evaluation.safetensors")
    arrays = {name: tensor.numpy() for name, tensor in stored.items()}
    if "aleatoric" not in arrays:
        table = pq.read_table(out / "predictions.parquet")
        for name in ("total", "aleatoric", "epistemic", "second"):
            arrays[name] = table[name].to_numpy()
        arrays["disagreement"] = table["teacher_disagreement"].to_numpy()
        columns = [table[f"prob.{name}"].to_numpy() for name in task.test.classes]
        arrays["probs"] = np.column_stack(columns)
    if "total" not in arrays:  # variances, which add up
        arrays["total"] = arrays["aleatoric"] + arrays["epistemic"]
    return arrays


def _other(name: str, arrays: Arrays) -> Others:
    second = arrays.get(f"other.{name}.second")
    return Others(**{part: arrays[f"other.{name}.{part}"] for part in PARTS}, second=second)


def _trust(arrays: Arrays) -> Trust | None:
    own = {f.name: arrays[f"trust.{f.name}"] for f in fields(Trust) if f"trust.{f.name}" in arrays}
    return Trust(**own) if own else None


def _chains(diagnostics: dict[str, Any], arrays: Arrays) -> Arrays:
    chains = {name: np.array(diagnostics[name]) for name in _CHAINS if name in diagnostics}
    scores = {n: arrays[f"chain_{n}"] for n in ("accuracy", "rmse") if f"chain_{n}" in arrays}
    return chains | scores


def _most_uncertain(task: Task, teachers: TeacherOutputs, total: Floats) -> tuple[Example, ...]:
    """The test examples of largest total uncertainty, summed over columns, largest first."""
    outputs, says = teachers.at(task.test.ids), FAMILIES[task.test.family].teacher_says
    values, known = outputs.values.float().numpy(), outputs.mask.numpy()
    rows = np.argsort(-total.reshape(len(total), -1).sum(1), kind="stable")[:_SHOWN]

    def said(teacher: int, row: int) -> str:
        kept = [] if outputs.kept is None else outputs.kept[teacher, row].tolist()
        return says(task.test.classes, values[teacher, row], known[teacher, row], kept)

    return tuple(
        Example(
            id=task.test.ids[row],
            row=row,
            html=task.drawn(row),
            teachers={name: said(k, row) for k, name in enumerate(teachers.names)},
        )
        for row in rows.tolist()
    )


def _with_costs(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics with each row's parameters and milliseconds where the report's table wants them."""
    cost = metrics["cost"]
    sizes = cost["parameters"] | {"student": cost["student_parameters"]}

    def row(name: str, scores: dict[str, Any]) -> dict[str, Any]:
        found = {"parameters": sizes.get(name), "ms_per_example": cost["ms_per_example"].get(name)}
        return scores | {k: v for k, v in found.items() if v is not None}

    return metrics | {
        "teachers": {n: row(n, m) for n, m in metrics["teachers"].items()},
        "baselines": {
            n: m | {"parameters": cost["student_parameters"]}
            for n, m in metrics["baselines"].items()
        },
        "student": row("student", metrics["student"]),
    }


def _command(config: RunConfig) -> str:
    """The command that makes the run again: the recipe and what differs from its defaults."""
    if config.own is not None:
        return "mtbkd run my.yaml  # your configuration, which holds all that is listed here"
    usual = _settings(build_config(find_recipe(config.recipe).defaults))
    asked = _settings(config)
    changes = [
        f"--set {key}={shlex.quote(value)}"
        for key, value in asked.items()
        if value != usual[key] and key != "seed"
    ]
    return " ".join([f"mtbkd run {config.recipe} --seed {config.seed}", *changes])


def _settings(config: RunConfig) -> dict[str, str]:
    """All settings as ``--set`` takes them; teachers by name are one, as all are replaced."""
    values = config.model_dump(mode="json")
    if values["backbones"] is not None:
        values["backbones"]["teachers"] = tuple(values["backbones"]["teachers"].items())
    return _flat(values, _as_yaml)


def _as_yaml(value: Any) -> str:
    """On one line; pairs are a mapping."""
    value = dict(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _as_words(value: Any) -> str:
    return "–" if value is None else str(value)


def _flat(
    values: dict[str, Any], write: Callable[[Any], str] = _as_words, prefix: str = ""
) -> dict[str, str]:
    """Nested settings as ``a.b`` to text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, write, f"{prefix}{key}.")
        else:
            flat[prefix + key] = write(value)
    return flat
