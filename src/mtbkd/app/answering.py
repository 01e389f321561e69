"""Commands that answer: predictions, which of them are given alone, and the teachers' help."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mtbkd.app.asked import Network
from mtbkd.errors import InputError, shown

RunDir = Annotated[Path, typer.Argument(help="A run directory.")]
_SOURCE = typer.Argument(metavar="INPUT", help="New inputs, without labels.")


def predict(
    run_dir: RunDir,
    source: Annotated[Path, _SOURCE],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Ends in .parquet, .csv or .jsonl; INPUT's name.predictions.parquet by default."
        ),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="8: the few draws that the run chose in place of all.")
    ] = None,
    defer: Annotated[
        bool, typer.Option("--defer", help="Answer what `mtbkd defer` allows; the rest to --rest.")
    ] = False,
    rest: Annotated[Path, typer.Option(help="Where rows go that are to be asked.")] = Path(
        "ask.csv"
    ),
    network: Network = None,
) -> None:
    """Predict new inputs, with intervals, and with the cause where the answer is uncertain."""
    from mtbkd.app.console import Progress, answers_table
    from mtbkd.app.folder import check_place
    from mtbkd.app.run.new_inputs import predict_run
    from mtbkd.app.tables import check_suffix, prediction_tables, write_tables

    path = out or Path(f"{Path(source.name.removesuffix('.gz')).stem}.predictions.parquet")
    check_suffix(path)
    check_place(run_dir, source, path)
    if defer:
        _hand_over(run_dir, source, path, rest, draws, network)
        return
    with Progress() as progress:
        found = predict_run(run_dir, source, progress.report, draws, network=network)
    answered = (found.ids, found.classes, found.predictive, found.causes)
    write_tables(path, prediction_tables(*answered))
    answers_table(*answered)
    print(f"{len(found.ids)} predictions: {path}")


def defer(
    run_dir: RunDir,
    agree: Annotated[
        float | None, typer.Option(help="0.97: so often the teachers' pool says the same.")
    ] = None,
    accuracy: Annotated[float | None, typer.Option(help="0.95: so often it is right.")] = None,
    cost: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Prices of asking the teachers once, and of an error: cheapest in all."),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="The promise holds for each class that is said.")
    ] = False,
    network: Network = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find which answers the student may give alone, such that a promise holds.

    With 95 % confidence, from calibration examples that the student did not learn from.
    """
    from mtbkd.app.console import Progress
    from mtbkd.app.run.defer import defer_run
    from mtbkd.app.run.policy import FIGURE, Goal

    call, error = cost or (None, None)
    goal = Goal(agree=agree, accuracy=accuracy, call=call, error=error, per_class=per_class)
    with Progress() as progress:
        found = defer_run(run_dir, goal, progress.report, network=network)
    if as_json:
        print(json.dumps(found))
        return
    _told(found)
    print(f"figure: {run_dir / FIGURE}")


def ask(
    run_dir: RunDir,
    source: Annotated[Path, typer.Argument(metavar="ROWS", help="As `predict --defer` wrote it.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Ends in .parquet, .csv or .jsonl; ROWS' name.answers.parquet."),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: what a teacher says of these rows, instead of asking it."),
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="A teacher to leave out.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Your configuration of the run, if it names code that makes a teacher."),
    ] = None,
    network: Network = None,
) -> None:
    """Answer rows with the teachers, the student being one more voice.

    The same command again goes on where a killed one stopped, and asks nothing twice.
    """
    from mtbkd.app.config.run import load_config
    from mtbkd.app.console import Progress
    from mtbkd.app.folder import check_place
    from mtbkd.app.recipes.base import Labelling
    from mtbkd.app.run.asking import Asking, ask_run
    from mtbkd.app.tables import check_suffix, write_table

    path = out or Path(f"{Path(source.name.removesuffix('.gz')).stem}.answers.parquet")
    check_suffix(path)
    check_place(run_dir, source, path)
    own = None if config is None else load_config(config).with_code(config.parent)
    with Progress() as progress:
        labelling = Labelling(own is not None, report=progress.report, say=progress.line)
        asking = Asking(_tables(table or []), tuple(without or ()), own, labelling)
        found = ask_run(run_dir, source, asking, progress.report, network=network)
    write_table(path, found.table())
    spoke = sum(len(voices) > 1 for voices in found.by)
    print(f"{len(found.by)} answers, {spoke} of them with teachers: {path}")


def _tables(given: list[str]) -> dict[str, Path]:
    """NAME=FILE as a mapping.

    Raises:
        InputError: If one is something else.
    """
    pairs = [one.rpartition("=") for one in given]
    for one, (name, _, file) in zip(given, pairs, strict=True):
        if not name or not file:
            raise InputError(
                f"Expected --table NAME=FILE, but got {shown(one)}. Name a teacher and its file."
            )
    return {name: Path(file) for name, _, file in pairs}


def _hand_over(
    run_dir: Path, source: Path, path: Path, rest: Path, draws: int | None, network: str | None
) -> None:
    """Answer what the policy of the run allows, and write the other rows down."""
    from mtbkd.app.console import Progress, answers_table
    from mtbkd.app.folder import check_place
    from mtbkd.app.run.asking import STUDENT, answered_alone, rows_to_ask
    from mtbkd.app.run.new_inputs import predict_run
    from mtbkd.app.run.policy import read_policy
    from mtbkd.app.tables import check_suffix, prediction_tables, write_table, write_tables

    read_policy(run_dir)
    check_suffix(rest)
    check_place(run_dir, source, rest)
    if path == rest:
        raise InputError(f"Expected --rest beside --out, but both are {path}. Change one.")
    with Progress() as progress:
        found = predict_run(run_dir, source, progress.report, draws, network=network)
    alone = answered_alone(run_dir, found)
    asked = rows_to_ask(source, run_dir, found.ids, ~alone)
    own = found.at(alone)
    if len(own.ids):
        answered = (own.ids, own.classes, own.predictive, own.causes)
        write_tables(path, _by(prediction_tables(*answered), STUDENT))
        answers_table(*answered)
        print(f"{len(own.ids)} of {len(found.ids)} rows answered alone: {path}")
    if not alone.all():
        write_table(rest, asked)
        print(f"{asked.num_rows} rows to be asked: {rest} (mtbkd ask {run_dir} {rest})")
    if found.causes.note:
        print("what `mtbkd defer` promised is for rows like the calibration rows")


def _by(tables: Iterator[Any], who: str) -> Iterator[Any]:
    """The same with a column that says who answers."""
    import pyarrow as pa

    for part in tables:
        yield part.append_column("by", pa.array([who] * part.num_rows))


def _told(found: dict[str, Any]) -> None:
    """What a policy promises, and what it does on calibration and test examples."""
    from rich.console import Console
    from rich.table import Table

    from mtbkd.app.report import promise

    goal = found["goal"]
    table = Table(title=promise(found), title_justify="left", title_style="bold")
    for name, where in (("", "left"), ("calibration", "right"), ("test", "right")):
        table.add_column(name, justify=where)  # type: ignore[arg-type]
    both = [found["calibration"], found["test"]]
    table.add_row("examples", *(f"{part['n']:,}" for part in both))
    for key, words in _ROWS:
        cells = ["–" if part[key] is None else f"{part[key]:.3f}" for part in both]
        table.add_row(words, *cells)
    if goal["call"] is not None:
        for key, words in _COSTS:
            table.add_row(words, *(f"{part['cost'][key]:.4g}" for part in both))
    Console().print(table)
    if found["calibration"]["alone"] == 0:
        print(
            "No answer may be given alone: there are too few calibration examples for this "
            "promise, or the student is wrong too often. Promise less, or label more."
        )


_ROWS = (
    ("alone", "share answered alone"),
    ("accuracy_alone", "accuracy there"),
    ("agreement_alone", "agreement with the pool there"),
    ("accuracy_system", "accuracy of the system (student, else teachers)"),
    ("accuracy_student", "accuracy of the student on all"),
    ("accuracy_asked", "accuracy if all were asked"),
    ("calls_saved", "calls saved"),
)
_COSTS = (
    ("system", "cost of an answer of the system"),
    ("student", "of the student"),
    ("asked", "if all were asked"),
)
