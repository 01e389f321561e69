"""The command line: `mtbkd run`, its single stages, and predictions for new inputs."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from mtbkd.types import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil several teacher models into one small Bayesian student.",
)
recipes_app = typer.Typer(no_args_is_help=False, help="List the built-in recipes.")
app.add_typer(recipes_app, name="recipes")
data_app = typer.Typer(no_args_is_help=False, help="List and fetch public data.")
app.add_typer(data_app, name="data")

_NO_VERDICT = 3
_INTERRUPTED = 130  # what typer makes of Ctrl-C

Target = Annotated[str, typer.Argument(help="A recipe's name, a config file, or a run directory.")]
RunDir = Annotated[Path, typer.Argument(help="A run directory.")]
Out = Annotated[Path | None, typer.Option(help="The run directory; runs/NAME-SEED by default.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override: prior.concentration=5, prior=paper.")
]
Seed = Annotated[int | None, typer.Option(help="Of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def run(
    target: Target,
    out: Out = None,
    overrides: Sets = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Everything, end to end: teachers, student, baselines, evaluation, report.

    The same command again goes on where a killed run stopped.
    """
    from mtbkd.app.console import Progress, metrics_table
    from mtbkd.app.recipes.base import Labelling
    from mtbkd.app.run import commands as recipe_run

    config, folder, may_run_code = _asked(target, out, overrides, seed)
    with Progress() as progress:
        metrics = recipe_run.run(
            config,
            folder,
            say=progress.say,
            report=progress.report,
            labelling=Labelling(may_run_code, report=progress.report),
        )
    if as_json:
        print(json.dumps(metrics))
        return
    metrics_table(metrics)
    print(f"report: {folder / 'report.html'}")


@app.command()
def teach(
    target: Target,
    out: Out = None,
    overrides: Sets = None,
    seed: Seed = None,
    shard_rows: Annotated[int | None, typer.Option(help="Rows of a file of labels.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of one call of a teacher.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float16, of labels.")] = None,
    most_failures: Annotated[
        float | None, typer.Option(help="Share of rows that may fail.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Label with Ray.")] = False,
) -> None:
    """Train, read or ask the teachers and store what they say.

    The options of labelling are for the recipe own. The same command again goes on where a killed
    one stopped.
    """
    from mtbkd.app.console import Progress
    from mtbkd.app.recipes import find_recipe
    from mtbkd.app.recipes.base import Labelling
    from mtbkd.app.run import commands as recipe_run

    config, folder, may_run_code = _asked(target, out, overrides, seed)
    given = {
        "--shard-rows": shard_rows,
        "--batch-size": batch_size,
        "--dtype": dtype,
        "--most-failures": most_failures,
        "--ray": ray or None,
    }
    _check_labelling(given, find_recipe(config.recipe).label is not None, config.recipe)
    with Progress() as progress:
        labelling = Labelling(
            may_run_code,
            shard_rows,
            batch_size or 256,
            dtype,  # type: ignore[arg-type]
            0.01 if most_failures is None else most_failures,
            ray,
            progress.report,
            progress.line,
        )
        outputs = recipe_run.teach(config, folder, labelling)
    print(f"{len(outputs.names)} teachers on {len(outputs.ids)} examples: {folder / 'teachers'}")


@app.command()
def distill(target: Target, out: Out = None, overrides: Sets = None, seed: Seed = None) -> None:
    """Teach if need be, then sample the student's posterior."""
    from mtbkd.app.console import Progress
    from mtbkd.app.recipes.base import Labelling
    from mtbkd.app.run import commands as recipe_run

    config, folder, may_run_code = _asked(target, out, overrides, seed)
    with Progress() as progress:
        labelling = Labelling(may_run_code, report=progress.report)
        posterior = recipe_run.distill(config, folder, progress.report, labelling)
    n = posterior.samples.n_chains * posterior.samples.n_draws
    print(f"{n} draws of {posterior.student.n_parameters} parameters: {folder / 'samples'}")


@app.command()
def predict(
    run_dir: RunDir,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="New inputs, without labels.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Ends in .parquet, .csv or .jsonl; INPUT's name.predictions.parquet by default."
        ),
    ] = None,
) -> None:
    """Predict new inputs, with intervals, and with the cause where the answer is uncertain."""
    from mtbkd.app.console import Progress, answers_table
    from mtbkd.app.folder import check_place
    from mtbkd.app.run import commands as recipe_run
    from mtbkd.app.tables import check_suffix, prediction_table, write_table

    path = out or Path(f"{Path(source.name.removesuffix('.gz')).stem}.predictions.parquet")
    check_suffix(path)
    check_place(run_dir, source, path)
    with Progress() as progress:
        found = recipe_run.predict_run(run_dir, source, progress.report)
    write_table(path, prediction_table(found.ids, found.classes, found.predictive, found.causes))
    answers_table(found.ids, found.classes, found.predictive, found.causes)
    print(f"{len(found.ids)} predictions: {path}")


@app.command()
def evaluate(run_dir: RunDir, as_json: Json = False) -> None:
    """Judge a distilled run on its test set again."""
    from mtbkd.app.console import Progress, metrics_table
    from mtbkd.app.run import commands as recipe_run

    with Progress() as progress:
        metrics = recipe_run.evaluate_run(run_dir, progress.report)
    if as_json:
        print(json.dumps(metrics))
    else:
        metrics_table(metrics)


@app.command()
def diagnose(
    run_dir: RunDir,
    reference: Annotated[str, typer.Option(help="The engine of the reference.")] = "hmc",
    factor: Annotated[float, typer.Option(help="Its steps over those of the run.")] = 10.0,
    seed: Annotated[int | None, typer.Option(help="Of the reference; the run's + 1000.")] = None,
    as_json: Json = False,
) -> None:
    """Judge a run's sampler: how far are its predictions from the converged posterior?

    Runs a long reference from other modes, and goes on where it was stopped. Exit code 3 if the
    reference has not converged, so that there is no verdict.
    """
    from mtbkd.app.console import Progress, reference_table
    from mtbkd.app.run.diagnose import diagnose_run

    _one_thread()
    with Progress() as progress:
        found = diagnose_run(
            run_dir, engine=reference, factor=factor, seed=seed, report=progress.report
        )
    if as_json:
        print(json.dumps(found))
    else:
        reference_table(found)
        print(f"figure: {run_dir / 'diagnose.svg'}")
    if not found["converged"]:
        sys.exit(_NO_VERDICT)


@app.command()
def report(run_dir: RunDir) -> None:
    """Draw the report of an evaluated run again."""
    from mtbkd.app.run import commands as recipe_run

    print(f"report: {recipe_run.report_run(run_dir)}")


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the built-in recipes with what each needs."""
    if context.invoked_subcommand is None:
        from mtbkd.app.recipes import RECIPES

        for recipe in RECIPES.values():
            print(f"{recipe.name:18} {recipe.summary}\n{'':18} needs {recipe.needs}")


@recipes_app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="A recipe.")],
    to: Annotated[Path | None, typer.Argument(help="A file; NAME.yaml by default.")] = None,
) -> None:
    """Write an editable configuration of a recipe."""
    from mtbkd.app.config.run import build_config
    from mtbkd.app.recipes import find_recipe
    from mtbkd.files import write_bytes

    path = to or Path(f"{name}.yaml")
    recipe = find_recipe(name)
    text = recipe.template or build_config(recipe.defaults).to_yaml()
    if path.exists():
        raise InputError(f"Expected a new file, but {path} exists. Choose another name.")
    write_bytes(path, f"# mtbkd run {path}\n{text}".encode())
    print(path)


@data_app.callback(invoke_without_command=True)
def data(context: typer.Context) -> None:
    """List public data: sizes, terms, and where it is or would be."""
    if context.invoked_subcommand is None:
        data_list()


@data_app.command("list")
def data_list(
    to: Annotated[Path | None, typer.Option(help="Where to look instead of the default.")] = None,
) -> None:
    """List public data: sizes, terms, and where it is or would be."""
    from mtbkd.app.data import listing

    print(listing(to))


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="A data set of `mtbkd data`.")],
    to: Annotated[
        Path | None,
        typer.Option(help="The folder of all data; $MTBKD_DATA or a folder of yours by default."),
    ] = None,
) -> None:
    """Fetch and check a data set, after printing its terms.

    The same command again goes on where it stopped, and fetches nothing that is there.
    """
    from mtbkd.app.console import Progress
    from mtbkd.app.data import get, terms

    print(terms(name), flush=True)
    with Progress() as progress:
        folder = get(name, to, say=lambda _: None, report=progress.report)
    print(f"checked: {folder}")


def main() -> None:
    """Entry point: a user's mistake ends with one message per fault and exit code 2."""
    warnings.showwarning = _show_warning
    try:
        app()
    except InputError as error:
        for fault in error.faults:
            print(f"mtbkd: {fault}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:
            raise
        print("mtbkd: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except Exception:
        traceback.print_exc()
        print("mtbkd: this is a bug; please report the lines above", file=sys.stderr)
        sys.exit(1)


def _asked(
    target: str, out: Path | None, overrides: list[str] | None, seed: int | None
) -> tuple[Any, Path, bool]:
    """The configuration and folder that a command means, and whether code it names may be run."""
    from mtbkd.app.config.run import build_config, load_config
    from mtbkd.app.folder import read_run
    from mtbkd.app.recipes import find_recipe

    _one_thread()
    changes = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    path = Path(target)
    if path.is_dir() and (path / "config.yaml").exists():
        if changes or out is not None:
            raise InputError(
                "Expected a run directory alone, to go on with it, but got changes "
                "too. Start a new run from the recipe or a config file."
            )
        return read_run(path), path, False
    if path.suffix in (".yaml", ".yml"):
        config = load_config(path, changes)
        find_recipe(config.recipe)
    else:
        config = build_config(find_recipe(target).defaults, changes)
    folder = out or Path("runs") / f"{path.stem if config.own else config.recipe}-{config.seed}"
    return config, folder, not _is_stored(path)


def _is_stored(path: Path) -> bool:
    """Whether this file is the configuration that a run directory holds."""
    beside = ("teachers", "samples", "manifest.json", "examples.json")
    return path.name == "config.yaml" and any((path.parent / name).exists() for name in beside)


def _check_labelling(given: dict[str, Any], labels: bool, recipe: str) -> None:
    from mtbkd.types import check_positive

    named = [key for key, value in given.items() if value is not None]
    if named and not labels:
        raise InputError(
            f"Expected {', '.join(named)} with the recipe own only, but got it with {recipe}, "
            "whose teachers are built in. Leave it out."
        )
    counts = {key: given[key] for key in ("--shard-rows", "--batch-size") if key in named}
    check_positive(**counts)
    if given["--dtype"] not in (None, "float32", "float16"):
        raise InputError(
            f"Expected --dtype float32 or float16, but got {given['--dtype']!r}. Choose one."
        )
    share = given["--most-failures"]
    if share is not None and not 0 <= share <= 1:
        raise InputError(
            f"Expected --most-failures from 0 to 1, but got {share}. Give a share of the rows."
        )


def _one_thread() -> None:
    """Small matrices gain nothing from threads, and sums differ with their number."""
    import torch

    torch.set_num_threads(1)


def _show_warning(message: Warning | str, *details: Any) -> None:
    print(f"mtbkd: {message}", file=sys.stderr)
