"""Gathers what a run left behind into its report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from mtbkd.config import RunConfig, build_config
from mtbkd.outputs import TeacherOutputs
from mtbkd.recipes import find_recipe
from mtbkd.recipes.base import Task
from mtbkd.recipes.folder import read_json
from mtbkd.report import Example, ReportData, render

_SHOWN = 12


def write_report(config: RunConfig, task: Task, teachers: TeacherOutputs, out: Path) -> None:
    """Write ``report.html`` from the run's metrics, predictions and evaluation."""
    metrics = read_json(out / "metrics.json")
    table = pq.read_table(out / "predictions.parquet")
    stored = load_file(out / "evaluation.safetensors")
    classes = task.test.classes
    numbers = {name: table[name].to_numpy() for name in ("total", "aleatoric", "epistemic")}
    diagnostics = metrics["diagnostics"]
    chains = {
        name: np.array(diagnostics[name])
        for name in (
            "step_size",
            "distance_moved",
            "kinetic_temperature",
            "acceptance",
            "divergences",
        )
        if name in diagnostics
    }
    data = ReportData(
        title=task.name,
        asked=_flat(config.model_dump(mode="json")),
        command=_command(config),
        metrics=_with_costs(metrics),
        classes=classes,
        labels=task.test.labels.numpy(),
        probs=np.column_stack([table[f"prob.{c}"].to_numpy() for c in classes]),
        pool_probs=stored["pool_probs"],
        disagreement=table["teacher_disagreement"].to_numpy(),
        teachers=teachers.names,
        weights_by_class=stored["weights_by_class"],
        responsibilities_by_class=stored["responsibilities_by_class"],
        chains=chains | {"accuracy": stored["chain_accuracy"]},
        trace=stored["trace"],
        examples=_most_uncertain(task, teachers, table),
        warnings=tuple(diagnostics["warnings"]),
        **numbers,
    )
    partial = out / ".report.html.partial"
    partial.write_text(render(data), encoding="utf-8")
    partial.rename(out / "report.html")


def _most_uncertain(task: Task, teachers: TeacherOutputs, table: pa.Table) -> tuple[Example, ...]:
    """The test examples of largest total uncertainty, most uncertain first."""
    classes, outputs = task.test.classes, teachers.at(task.test.ids)
    rows = np.argsort(-table["total"].to_numpy(), kind="stable")[:_SHOWN]
    examples = []
    for row in rows.tolist():
        said = {}
        for k, name in enumerate(teachers.names):
            probs = outputs.values[k, row].exp()
            top = int(probs.argmax())
            said[name] = f"{classes[top]} ({float(probs[top]):.2f})"
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
    usual = _flat(build_config(find_recipe(config.recipe).defaults).model_dump(mode="json"))
    asked = _flat(config.model_dump(mode="json"))
    changes = [
        f"--set {key}={shlex.quote(value)}"
        for key, value in asked.items()
        if value != usual[key] and key != "seed"
    ]
    return " ".join([f"mtbkd run {config.recipe} --seed {config.seed}", *changes])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``a.b`` to text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = "–" if value is None else str(value)
    return flat
