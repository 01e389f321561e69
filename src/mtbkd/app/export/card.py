"""The model card: what the student is, how well it does, and when not to trust it."""

from __future__ import annotations

from typing import Any

import yaml

from mtbkd.app.config.run import RunConfig
from mtbkd.app.data.datasets import DATASETS
from mtbkd.app.report import ReportData, Verdict, verdict
from mtbkd.app.report.words import is_number, significant
from mtbkd.explain.causes import AMBIGUOUS, DISPUTED, KNOWN, OUTSIDE

_PIPELINES = {3: "image-classification", 1: "tabular-classification"}
_SHOWN = ("accuracy", "f1_micro", "f1_macro", "exact", "rmse", "nll", "ece", "crps", "coverage_90")
_FLAGS = {
    OUTSIDE: "the input is unlike the training examples; do not use the answer",
    DISPUTED: "on inputs answered alike the teachers contradict one another",
    KNOWN: "its teachers would answer this better; ask one of them",
    AMBIGUOUS: "nobody it learned from knows better",
}


def card(told: dict[str, Any], config: RunConfig, judged: ReportData[Any] | None) -> str:
    """The text of ``README.md``, with the hub's header.

    Args:
        told: The content of ``config.json``.
        config: That of the run.
        judged: What its report shows; None if it was not evaluated.
    """
    metrics = {} if judged is None else judged.metrics
    found = None if judged is None else verdict(judged)
    parts = [
        f"# {told['task']}, a Bayesian student",
        _about(told, metrics),
        _measured(metrics),
        _for_whom(found),
        _use(told),
        _origin(told, config),
    ]
    return f"---\n{_header(told, metrics)}---\n\n" + "\n\n".join(parts) + "\n"


def _header(told: dict[str, Any], metrics: dict[str, Any]) -> str:
    """The hub's metadata, as YAML."""
    student = metrics.get("student", {})
    pipeline = _PIPELINES.get(len(told["inputs"]["shape"]))
    if "mean" in [output["name"] for output in told["outputs"]]:
        pipeline = "tabular-regression"
    results = [
        {"type": name, "value": round(student[name], 4), "name": name}
        for name in _SHOWN
        if is_number(student.get(name))
    ]
    head: dict[str, Any] = {
        "license": "other",
        "license_name": "unstated",
        "library_name": "mtbkd",
        **({"pipeline_tag": pipeline} if pipeline else {}),
        "tags": ["knowledge-distillation", "bayesian", "uncertainty", "calibration", "onnx"],
    }
    if results:
        task = {"type": pipeline or "other"}
        data = {"type": told["task"], "name": told["task"]}
        one = {"task": task, "dataset": data, "metrics": results}
        head["model-index"] = [{"name": told["task"], "results": [one]}]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True)


def _about(told: dict[str, Any], metrics: dict[str, Any]) -> str:
    columns = ", ".join(told["classes"][:20]) + (" and more" if len(told["classes"]) > 20 else "")
    lines = [
        f"It predicts ({told['family']}): {columns}. It answers with the mean of "
        f"{told['draws']} draws from the posterior of a small network, at the temperature "
        f"{told['temperature']:.3g}. {told['summary']}"
    ]
    teachers = metrics.get("teachers", {})
    if teachers:
        lines.append(
            f"It was taught by {len(teachers)} teachers ({', '.join(teachers)}) on "
            f"{metrics['n_train']:,} examples, {metrics['n_labelled']:,} of them with labels."
        )
    return "\n\n".join(["## What it is", *lines])


def _measured(metrics: dict[str, Any]) -> str:
    if not metrics:
        return "## How good it is\n\nIt was not evaluated: nobody knows."
    student, teachers = metrics["student"], metrics["teachers"]
    names = [name for name in _SHOWN if is_number(student.get(name))]
    rows = {"**this student**": student, **teachers, "teachers pooled": metrics["teacher_pool"]}
    table = [
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {who} | "
            + " | ".join(significant(s[n]) if is_number(s.get(n)) else "" for n in names)
            + " |"
            for who, s in rows.items()
        ),
    ]
    told = f"On {metrics['n_test']:,} test examples that decided nothing; NLL in nats:"
    return "\n".join(["## How good it is", "", told, "", *table])


def _for_whom(found: Verdict | None) -> str:
    lines = ["## For whom, and when not to trust it", ""]
    if found is not None:
        lines += [found.headline, "", *(f"- {s}" for s in found.sentences), ""]
    lines += [
        "It is for inputs like those that it was tested on. It says itself, as `flag`, when not to "
        "rely on an answer:",
        "",
        *(f"- `{i}` *{name}*: {meaning}." for i, (name, meaning) in enumerate(_FLAGS.items())),
        "- `-1`: none of these.",
    ]
    return "\n".join(lines)


def _use(told: dict[str, Any]) -> str:
    shape = ", ".join(["example", *map(str, told["inputs"]["shape"])])
    outputs = ", ".join(f"`{output['name']}`" for output in told["outputs"])
    checked = told["checked"]
    lines = [
        "## How to use it",
        "",
        f"`model.onnx` reads {told['inputs']['what']}: `inputs`, {told['inputs']['dtype']}, shape "
        f"({shape}). It returns {outputs}. `lower` and `upper` are the ends of intervals of "
        f"{100 * told['level']:g} %; uncertainties of classes and labels are in nats, of numbers "
        "variances.",
        "",
        "```python",
        "from mtbkd.app.export.loading import load_exported",
        "",
        'student = load_exported("FOLDER")  # refuses a file that was changed',
        "answer = student.predict(inputs)",
        "```",
        "",
        f"Draws are stored as {told['stored']}. On {checked['rows']:,} test examples its answers "
        f"are at most {checked['largest_difference']:.1e} away from those of the run, and its NLL "
        f"is {checked['nll']:.4f} nats, where that of the run is {checked['nll_of_the_run']:.4f}.",
    ]
    return "\n".join(lines)


def _origin(told: dict[str, Any], config: RunConfig) -> str:
    known = DATASETS.get(config.recipe) or DATASETS.get(config.recipe.partition("-")[0])
    terms = f" Terms of the data: {known.terms}" if known is not None else ""
    lines = [
        "## Licence and data",
        "",
        "Nobody has stated a licence for this student. What its data and its teachers may be used "
        f"for limits what it may be used for; correct the header when you know.{terms}",
        "",
        f"Made by mtbkd {told['mtbkd']} (Apache-2.0) with the recipe `{config.recipe}`, seed "
        f"{config.seed}. Method: MT-BKD, arXiv:2605.27967, and beyond it.",
    ]
    return "\n".join(lines)
