"""The command line: `mtbkd run`, its single stages, and predictions for new inputs."""

from __future__ import annotations

import atexit
import gc
import json
import sys
import traceback
import warnings
from os.path import lexists
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from mtbkd.app import answering
from mtbkd.app.asked import Asked, Baselines, More, Network, check_labelling, makes_a_run, meant
from mtbkd.app.bench.command import bench
from mtbkd.app.export.command import export, serve
from mtbkd.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil several teacher models into one small Bayesian student.",
)
recipes_app = typer.Typer(no_args_is_help=False, help="List the built-in recipes.")
app.add_typer(recipes_app, name="recipes")
data_app = typer.Typer(no_args_is_help=False, help="List and fetch public data.")
app.add_typer(data_app, name="data")

_NO_VERDICT = 3
_LONGEST, _END = 2000, 200
_INTERRUPTED = 130  # what typer makes of Ctrl-C

RunDir = answering.RunDir
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
@makes_a_run
def run(
    asked: Asked, baselines: Baselines = None, more: More = None, as_json: Json = False
) -> None:
    """Everything, end to end: teachers, student, baselines, evaluation, report.

    The same command goes on with a killed run; `--more 5min` with a finished one that has a budget.
    """
    begun = perf_counter()
    from mtbkd.app.console import Progress, metrics_table
    from mtbkd.app.recipes.base import Labelling
    from mtbkd.app.run import commands as recipe_run

    _one_thread()
    config, folder, may_run_code = meant(asked, baselines=baselines)
    with Progress() as progress:
        if config.budget is not None:
            progress.tell(
                f"a budget of {config.budget} in all: what teachers are worth, then chains until "
                f"they agree, for {recipe_run.stages.sampling_seconds(config):,.0f} s at most"
            )
        metrics = recipe_run.run(
            config,
            folder,
            say=progress.say,
            report=progress.report,
            labelling=Labelling(may_run_code, report=progress.report),
            more=more,
            begun=begun,
        )
    print(json.dumps(metrics)) if as_json else metrics_table(metrics)
    if not as_json:
        print(f"report: {folder / 'report.html'}")


@app.command()
@makes_a_run
def teach(
    asked: Asked,
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

    _one_thread()
    config, folder, may_run_code = meant(asked)
    given: dict[str, Any] = {
        "shard_rows": shard_rows,
        "batch_size": batch_size,
        "dtype": dtype,
        "most_failures": most_failures,
        "ray": ray or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    check_labelling(given, find_recipe(config.recipe).label is not None, config.recipe)
    with Progress() as progress:
        labelling = Labelling(may_run_code, **given, report=progress.report, say=progress.line)
        outputs = recipe_run.teach(config, folder, labelling)
    print(f"{len(outputs.names)} teachers on {len(outputs.ids)} examples: {folder / 'teachers'}")


@app.command()
@makes_a_run
def distill(asked: Asked) -> None:
    """Teach if need be, then sample the student's posterior."""
    from mtbkd.app.console import Progress
    from mtbkd.app.recipes.base import Labelling
    from mtbkd.app.run import commands as recipe_run

    _one_thread()
    config, folder, may_run_code = meant(asked)
    with Progress() as progress:
        labelling = Labelling(may_run_code, report=progress.report)
        posterior = recipe_run.distill(config, folder, progress.report, labelling)
    samples, n = posterior.samples, posterior.student.n_parameters
    print(f"{samples.n_chains * samples.n_draws} draws of {n} parameters: {folder / 'samples'}")


app.command()(answering.predict)
app.command()(answering.defer)
app.command()(answering.ask)


app.command()(export)
app.command()(bench)
app.command()(serve)


@app.command()
def doctor() -> None:
    """Say what is installed, what is broken, and what to do. Exit code 1 if anything is broken."""
    from mtbkd.app.doctor import examine

    found = examine()
    print(found.text)
    sys.exit(1 if found.broken else 0)


@app.command()
def evaluate(run_dir: RunDir, network: Network = None, as_json: Json = False) -> None:
    """Judge a distilled run on its test set again."""
    from mtbkd.app.console import Progress, metrics_table
    from mtbkd.app.run import commands as recipe_run

    with Progress() as progress:
        metrics = recipe_run.evaluate_run(run_dir, progress.report, network=network)
    print(json.dumps(metrics)) if as_json else metrics_table(metrics)


@app.command()
def diagnose(
    run_dir: RunDir,
    reference: Annotated[str, typer.Option(help="The engine of the reference.")] = "hmc",
    factor: Annotated[float, typer.Option(help="Its steps over those of the run.")] = 10.0,
    seed: Annotated[int | None, typer.Option(help="Of the reference; the run's + 1000.")] = None,
    network: Network = None,
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
            run_dir,
            engine=reference,
            factor=factor,
            seed=seed,
            network=network,
            report=progress.report,
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
        from mtbkd.app.recipes import RECIPES, find_recipe

        for recipe in map(find_recipe, RECIPES):
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
    if lexists(path):
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

    The same command again fetches nothing that is there.
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
    atexit.register(gc.freeze)  # else leaving walks all that torch has made, for 0.4 s
    try:
        app()
    except InputError as error:
        for fault in error.faults:
            print(f"mtbkd: {_cut(fault)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        told = f"{error.strerror or error}. Check the path and the space on its disk."
        used = error.filename or "a file"
        print(f"mtbkd: Expected to use {used}, but got: {told}", file=sys.stderr)
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


def _one_thread() -> None:
    """Small matrices gain nothing from threads, and sums differ with their number."""
    import torch

    torch.set_num_threads(1)


def _cut(message: str) -> str:
    """A message that quotes something very long, without its middle."""
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]} … {message[-_END:]}"


def _show_warning(message: Warning | str, *details: Any) -> None:
    print(f"mtbkd: {message}", file=sys.stderr)
