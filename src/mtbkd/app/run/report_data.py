"""Gathers what a run left behind into its report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from torch import Tensor

from mtbkd.app.config.run import RunConfig, build_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Task
from mtbkd.app.report import (
    Example,
    LabelReportData,
    NumberReportData,
    Others,
    ReportData,
    Shown,
    render,
)
from mtbkd.app.run.others import PARTS
from mtbkd.files import load_tensors, read_json, write_bytes
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.types import Floats

_SHOWN = 12

Arrays = dict[str, Floats]


def write_report(config: RunConfig, task: Task, teachers: TeacherOutputs, out: Path) -> None:
    """Write ``report.html`` from the run's metrics, predictions and evaluation."""
    metrics = read_json(out / "metrics.json")
    arrays = load_tensors(out / "evaluation.safetensors")
    stored = {name: array.numpy() for name, array in arrays.items()}
    shared: dict[str, Any] = {
        "title": task.name,
        "asked": _flat(config.model_dump(mode="json")),
        "command": _command(config),
        "metrics": _with_costs(metrics),
        "classes": task.test.classes,
        "labels": task.test.labels.numpy(),
        "teachers": teachers.names,
        "weights_by_class": stored["weights_by_class"],
        "responsibilities_by_class": stored["responsibilities_by_class"],
        "chains": _chains(metrics["diagnostics"], stored),
        "trace": stored["trace"],
        "warnings": tuple(metrics["diagnostics"]["warnings"]),
    }
    if task.test.family != "regression":
        shared["others"] = {name: _other(name, stored) for name in _told_apart(metrics)}
        if task.noun is not None:
            shared["noun"] = task.noun
    make = {"multilabel": _of_labels, "regression": _of_numbers}.get(task.test.family, _of_classes)
    page = render(make(shared, task, teachers, stored, out))
    write_bytes(out / "report.html", page.encode())


def _told_apart(metrics: dict[str, Any]) -> list[str]:
    """What inputs beside the test set are called; none in runs that were made without them."""
    return list(metrics["student"].get("others", {}))


def _other(name: str, stored: Arrays) -> Others:
    second = stored.get(f"other.{name}.second")
    return Others(**{part: stored[f"other.{name}.{part}"] for part in PARTS}, second=second)


def _chains(diagnostics: dict[str, Any], stored: Arrays) -> Arrays:
    names = (
        "step_size",
        "distance_moved",
        "kinetic_temperature",
        "acceptance",
        "divergences",
    )
    chains = {name: np.array(diagnostics[name]) for name in names if name in diagnostics}
    own = {n: stored[f"chain_{n}"] for n in ("accuracy", "rmse") if f"chain_{n}" in stored}
    return chains | own


def _of_classes(
    shared: dict[str, Any], task: Task, teachers: TeacherOutputs, stored: Arrays, out: Path
) -> ReportData:
    table = pq.read_table(out / "predictions.parquet")
    return ReportData(
        **shared,
        probs=np.column_stack([table[f"prob.{c}"].to_numpy() for c in task.test.classes]),
        pool_probs=stored["pool_probs"],
        disagreement=table["teacher_disagreement"].to_numpy(),
        second=table["second"].to_numpy(),
        examples=_most_uncertain(task, teachers, table),
        **{name: table[name].to_numpy() for name in ("total", "aleatoric", "epistemic")},
    )


def _of_labels(
    shared: dict[str, Any], task: Task, teachers: TeacherOutputs, stored: Arrays, out: Path
) -> LabelReportData:
    del out
    names = ("probs", "pool_probs", "total", "aleatoric", "epistemic", "disagreement")

    def said(values: Tensor, mask: Tensor) -> str:
        probs = values[:, 1].exp()
        rows = [i for i in probs.argsort(descending=True).tolist() if mask[i] and probs[i] >= 0.5]
        spoken = ", ".join(f"{task.test.classes[i]} ({float(probs[i]):.2f})" for i in rows)
        return spoken or ("none" if mask.any() else "nothing")

    examples = _examples(task, teachers, stored["total"].sum(1), said)
    arrays: dict[str, Any] = {n: stored[n] for n in names}
    return LabelReportData(**shared, **arrays, examples=examples)


def _of_numbers(
    shared: dict[str, Any], task: Task, teachers: TeacherOutputs, stored: Arrays, out: Path
) -> NumberReportData:
    del out
    names = ("unit", "mean", "aleatoric", "epistemic", "lower", "upper", "log_density", "pit")

    def said(values: Tensor, mask: Tensor) -> str:
        parts = []
        for t in range(len(mask)):
            mean, log_variance = values[t].tolist()
            spread = "" if math.isnan(log_variance) else f" ± {math.exp(log_variance / 2):.3g}"
            parts.append(f"{mean:.3g}{spread}" if mask[t] else "nothing")
        return ", ".join(parts)

    arrays: dict[str, Any] = {n: stored[n] for n in names}
    total = (stored["aleatoric"] + stored["epistemic"]) / np.square(stored["unit"])
    return NumberReportData(
        **shared,
        **arrays,
        level=float(shared["asked"]["predict.level"]),
        pool_pit=stored["pool_pit"],
        disagreement=stored["disagreement"],
        examples=_examples(task, teachers, total.sum(1), said),
    )


def _examples(
    task: Task, teachers: TeacherOutputs, total: Floats, said: Callable[[Tensor, Tensor], str]
) -> tuple[Shown, ...]:
    """The test examples of largest total uncertainty, most uncertain first."""
    outputs = teachers.at(task.test.ids)
    return tuple(
        Shown(
            task.test.ids[row],
            row,
            task.drawn(row),
            {
                name: said(outputs.values[k, row].float(), outputs.mask[k, row])
                for k, name in enumerate(teachers.names)
            },
        )
        for row in np.argsort(-total, kind="stable")[:_SHOWN].tolist()
    )


def _most_uncertain(task: Task, teachers: TeacherOutputs, table: pa.Table) -> tuple[Example, ...]:
    """The test examples of largest total uncertainty, most uncertain first."""
    classes, outputs = task.test.classes, teachers.at(task.test.ids)
    rows = np.argsort(-table["total"].to_numpy(), kind="stable")[:_SHOWN]
    examples = []
    for row in rows.tolist():
        said = {}
        for k, name in enumerate(teachers.names):
            probs = outputs.values[k, row].float().exp()
            top = int(probs.argmax())
            known = outputs.kept[k, row].tolist() if outputs.kept is not None else []
            answer = (
                "another" if known and top == len(known) else classes[(known or range(10**9))[top]]
            )
            said[name] = (
                f"{answer} ({float(probs[top]):.2f})" if outputs.mask[k, row] else "nothing"
            )
        record = table.slice(row, 1).to_pylist()[0]
        examples.append(
            Example(
                id=record["id"],
                label=record["label"],
                prediction=record["prediction"],
                probability=record["probability"],
                total=record["total"],
                aleatoric=record["aleatoric"],
                epistemic=record["epistemic"],
                credible_set=tuple(record["credible_set"]),
                html=task.drawn(row),
                teachers=said,
            )
        )
    return tuple(examples)


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
