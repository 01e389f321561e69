"""`mtbkd bench`, as the command line has it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mtbkd.app.asked import with_options

_MOST_JOBS = 1024


@dataclass(frozen=True)
class Which:
    """Which cells are wanted, as options."""

    configs: Annotated[
        list[Path] | None, typer.Argument(help="Configurations of your own, as my.yaml.")
    ] = None
    tasks: Annotated[str | None, typer.Option(help="Names, with commas between.")] = None
    methods: Annotated[str | None, typer.Option(help="Names, with commas between.")] = None
    stress: Annotated[str | None, typer.Option(help="Names, with commas between.")] = None
    seeds: Annotated[str | None, typer.Option(help="Such as 0-4 or 0,1,7.")] = None


@with_options(Which)
def bench(
    which: Which,
    out: Annotated[Path, typer.Option(help="The folder of the comparison.")] = Path("runs/bench"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Two small tasks, two seeds; the default.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="All tasks, all stress, five seeds.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes; as many as there are cores by default.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override in every task: map.epochs=50.")
    ] = None,
) -> None:
    """Compare every method on the same work: tables, paired differences, figures.

    The same command again goes on where a killed one stopped.
    """
    from mtbkd.app.bench.plan import Wanted, make_plan, read_numbers
    from mtbkd.app.bench.run import run_bench
    from mtbkd.app.console import Progress
    from mtbkd.types import outside, refuse

    both = ["Expected either --quick or --full, but got both. Leave one out."] * (quick and full)
    refuse(*both, *outside("--jobs", 1 if jobs is None else jobs, _MOST_JOBS, whole=True))
    named = (*map(str, which.configs or ()), *_split(which.tasks))
    wanted = Wanted(
        tasks=named or None,
        methods=_split(which.methods) or None,
        stress=_split(which.stress) or None,
        seeds=None if which.seeds is None else read_numbers(which.seeds),
        changes=tuple(overrides or ()),
        full=full,
    )
    plan = make_plan(wanted, out)
    with Progress() as progress:
        run_bench(plan, jobs or os.cpu_count() or 1, progress.tell, progress.report)


def _split(names: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())
