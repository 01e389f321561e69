"""What the command line shows: progress where there is a terminal, and the table of results."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from mtbkd.explain.causes import FLAGS, Causes
from mtbkd.predictive import Answer, LabelPredictive, NumberPredictive, Predictive

_SHOWN, _WIDE = 40, 140
_LIKELY, _UNLIKELY = 3, 0.1

_COLUMNS = {
    "classification": (
        ("accuracy", "accuracy"),
        ("nll", "NLL (nats)"),
        ("brier", "Brier"),
        ("ece", "ECE"),
    ),
    "multilabel": (
        ("accuracy", "accuracy of sets"),
        ("f1_micro", "micro F1"),
        ("f1_macro", "macro F1"),
        ("jaccard", "Jaccard"),
        ("nll", "NLL (nats per label)"),
        ("ece", "ECE"),
    ),
    "regression": (
        ("rmse", "RMSE"),
        ("nll", "NLL (nats)"),
        ("crps", "CRPS"),
        ("coverage_90", "90 % coverage"),
    ),
}
"""The columns of a family's scores: the key in ``metrics.json`` and the heading."""


_EVERY = 10.0  # seconds between two lines of a stage, where there are no bars

_BASELINES = "labels-only|averaged-KD|entropy-weighted-KD|[a-z]+-on-the-[a-z]+-pool"
_STAGES = {
    "modes": "finding modes",
    "sampling": "sampling the student",
    r"sampling, (round .+)": r"sampling the student, \1",
    "reference": "sampling the reference",
    "modes-without-calibration-labels": "finding modes without calibration labels",
    "evidence": "seeing how far teachers disagree",
    r"modes of fold (.+)": r"finding modes without fold \1",
    r"fold (.+)": r"sampling without fold \1",
    rf"({_BASELINES})-1": r"baseline \1",
    rf"({_BASELINES})-4": r"baseline \1, wider weights",
    rf"({_BASELINES})-all": r"baseline \1, on all labels",
}
_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_PRIOR = re.compile("prior" + 4 * f"-{_NUMBER}")


def in_words(stage: str) -> str:
    """What a stage does; one that is named by what it does stays as it is.

    Example:
        >>> in_words("prior-1-1-5-0")
        'trying power 5'
        >>> in_words("draws of prior-1-1-5-0")
        'trying power 5, by its draws'
        >>> in_words("labels-only-4")
        'baseline labels only, wider weights'
    """
    if prior := _PRIOR.fullmatch(stage):
        names = ("concentration", "softening", "power", "discount")
        usual = ("1", "1", None, "0")
        parts = zip(names, prior.groups(), usual, strict=True)
        return "trying " + ", ".join(f"{n} {value}" for n, value, plain in parts if value != plain)
    if stage.startswith("draws of "):
        return f"{in_words(stage.removeprefix('draws of '))}, by its draws"
    for pattern, words in _STAGES.items():
        if found := re.fullmatch(pattern, stage):
            told = found.expand(words)
            return told.replace("-", " ") if told.startswith("baseline") else told
    return stage


class Progress:
    """Progress on standard error: bars on a terminal, else a line of a long stage now and then."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, stage: str) -> None:
        """Name the stage that starts."""
        if not self._bars.disable:
            self._bars.console.print(f"[dim]{stage}[/dim]")

    def tell(self, text: str) -> None:
        """Say beforehand what will be done."""
        self._bars.console.print(f"mtbkd: {text}", markup=False, highlight=False, soft_wrap=True)

    def report(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage, or write a line if the last is ten seconds old."""
        now = perf_counter()
        start, before = self._begun.setdefault(stage, (now, done))
        pace = (done - before) / (now - start) if done > before and now > start else 0.0
        if self._bars.disable:
            if now - self._told.setdefault(stage, start) >= _EVERY:
                self._told[stage] = now
                left = f", {_time((total - done) / pace)} left" if pace else ""
                told = f"{in_words(stage)}: {done / max(total, 1):.0%}{left}"
                print(f"mtbkd: {told}", file=sys.stderr, flush=True)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(in_words(stage), total=total, rate="")
        self._bars.update(self._tasks[stage], completed=done, rate=f"{pace:,.0f}/s" if pace else "")

    def line(self, text: str) -> None:
        """Print a result above the bars."""
        if self._bars.disable:
            print(text)
        else:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _time(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def metrics_table(metrics: dict[str, Any]) -> None:
    """Print everyone's scores in ``metrics.json``, those of its family, and the warnings."""
    columns = _COLUMNS[metrics.get("family", "classification")]
    if "spread_correlation" in metrics["student"]:
        columns += (("spread_correlation", "doubts as people do"),)
    title = (
        f"{metrics['task']}: {metrics['n_train']} training examples, {metrics['n_labelled']} of "
        f"them labelled; {metrics['n_test']} test examples"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", overflow="fold")
    for _, name in columns:
        table.add_column(name, justify="right", min_width=5)
    rows = [
        *((f"teacher: {n}", m) for n, m in metrics["teachers"].items()),
        ("pool of teachers", metrics["teacher_pool"]),
        *((f"baseline: {n}", m) for n, m in metrics["baselines"].items()),
        ("Bayesian student", metrics["student"]),
    ]
    if "few" in metrics:
        rows.append((f"{metrics['few']['draws']} draws of it", metrics["few"]))
    for name, scores in rows:
        style = "bold green" if name == "Bayesian student" else None
        values = (_three_digits(scores.get(key)) for key, _ in columns)
        table.add_row(name, *values, style=style)
    if "by_source" in metrics:
        table.add_section()
        for name, scores in metrics["by_source"].items():
            values = (_three_digits(scores.get(key)) for key, _ in columns)
            table.add_row(f"on source: {name} ({scores['n']})", *values)
    console = _console()
    console.print(table)
    for warning in metrics["diagnostics"]["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {warning}")


def _three_digits(value: float | None) -> str:
    """Large numbers without decimals; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def answers_table(
    ids: tuple[str, ...], classes: tuple[str, ...], predictive: Answer, causes: Causes
) -> None:
    """Print the first answers for people, how many are uncertain, and what is told of all."""
    console = _console()
    level, answer = f"{100 * predictive.level:.0f} % interval", _ANSWERS[type(predictive)]
    table = Table(box=None, pad_edge=False)
    for name in ("id", f"answer ({level})", "uncertain:"):
        table.add_column(name, overflow="fold")
    for row, key in enumerate(ids[:_SHOWN]):
        table.add_row(key, answer(classes, predictive, causes, row), causes.flags[row])
    console.print(table, markup=False, highlight=False)
    if len(ids) > _SHOWN:
        print(f"… {len(ids) - _SHOWN:,} more in the file")
    counts = {flag: causes.flags.count(flag) for flag in FLAGS}
    told = ", ".join(f"{n:,} {flag}" for flag, n in counts.items() if n)
    print(f"uncertain: {sum(counts.values()):,} of {len(ids):,}" + (f" ({told})" if told else ""))
    if causes.note:
        console.print(causes.note, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    """As wide as the terminal, or wide where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def _number(names: tuple[str, ...], said: NumberPredictive, causes: Causes, row: int) -> str:
    """The numbers."""
    del causes
    each = zip(names, said.mean[row], said.lower[row], said.upper[row], strict=True)
    return "; ".join(f"{c} {mean:.4g} [{low:.4g}, {high:.4g}]" for c, mean, low, high in each)


def _class(names: tuple[str, ...], said: Predictive, causes: Causes, row: int) -> str:
    """The most probable classes."""
    del causes
    probs = said.probs[row]
    first, *others = (-probs).argsort(kind="stable")[:_LIKELY]
    shown = [first, *(i for i in others if probs[i] >= _UNLIKELY)]
    return "; ".join(_probability(names, said, row, i) for i in shown)


def _label(names: tuple[str, ...], said: LabelPredictive, causes: Causes, row: int) -> str:
    """The labels that are answered with yes, or the most probable one."""
    order = (-said.probs[row]).argsort(kind="stable")
    yes = said.probs[row] >= 0.5 if causes.labels is None else causes.labels[row]
    each = [_probability(names, said, row, i) for i in order if yes[i]]
    return "; ".join(each) or f"none; most likely {_probability(names, said, row, order[0])}"


def _probability(
    names: tuple[str, ...], said: Predictive | LabelPredictive, row: int, column: int
) -> str:
    prob, low, high = (part[row, column] for part in (said.probs, said.lower, said.upper))
    return f"{names[column]} {prob:.2f} [{low:.2f}, {high:.2f}]"


_ANSWERS: dict[type, Callable[[tuple[str, ...], Any, Causes, int], str]] = {
    Predictive: _class,
    LabelPredictive: _label,
    NumberPredictive: _number,
}
"""How the answer about one example is written, for each family."""


def reference_table(found: dict[str, Any]) -> None:
    """Print how a run compares with its reference, and the verdict."""
    title = (
        f"{found['run_engine']}, {found['run_steps']:,} steps, against {found['reference']}, "
        f"{found['steps']:,} steps"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    for name, justify in (("", "left"), ("agreement", "right"), ("total variation", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, key in (("run", ""), ("its modes", "modes_"), ("halves of the reference", "halves_")):
        values = found[f"{key}agreement"], found[f"{key}total_variation"]
        cells = ["-" if v is None else f"{v:.{d}f}" for v, d in zip(values, (3, 4), strict=True)]
        table.add_row(name, *cells)
    console = Console()
    console.print(table)
    if found["rhat_99"] is not None:
        print(
            f"reference: R-hat {found['rhat_99']:.4f} (99 % of {found['n_functions']} test "
            f"probabilities below), ESS {found['ess']:.0f} (95 % above)"
        )
    print(found["verdict"])
