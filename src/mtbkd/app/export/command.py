"""`mtbkd export` and `mtbkd serve`, as the command line has them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mtbkd.app.asked import Network
from mtbkd.errors import need


def export(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path | None, typer.Option(help="A new folder; RUN.export by default.")] = None,
    draws: Annotated[int | None, typer.Option(help="So many in place of all.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store draws as float16.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Multiply whole numbers.")] = False,
    head_only: Annotated[
        bool, typer.Option("--head-only", help="Begin at the features that the student reads.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(help="Upload it to the hub as OWNER/NAME, for you alone.")
    ] = None,
    network: Network = None,
) -> None:
    """Write the student as one ONNX file, with a model card and a sealed manifest."""
    import torch

    from mtbkd.app.console import Progress
    from mtbkd.app.export.export import Wanted, export_run

    torch.set_num_threads(1)  # sums differ with their number
    folder = out or _beside(run_dir)
    wanted = Wanted(draws, half=half, int8=int8, head_only=head_only, network=network)
    with Progress() as progress:
        told = export_run(run_dir, folder, wanted, progress.report)
    checked = told["checked"]
    print(
        f"{told['draws']} draws as {told['stored']}, at most {checked['largest_difference']:.1e} "
        f"from the run on {checked['rows']:,} test examples; NLL {checked['nll']:.4f} nats, of the "
        f"run {checked['nll_of_the_run']:.4f}"
    )
    print(f"exported: {folder}")
    if push is not None:
        from mtbkd.app.export.hub import push_to_hub

        print(f"uploaded: {push_to_hub(folder, push)}")


def serve(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    host: Annotated[str, typer.Option(help="0.0.0.0 for all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where it is asked.")] = 8000,
    draws: Annotated[int | None, typer.Option(help="So many in place of all.")] = None,
    network: Network = None,
) -> None:
    """Answer requests, with a page to try it on; exports to RUN.export first, if need be.

    The server is `mtbkd-serve`, which needs that folder only, and no torch.
    """
    from mtbkd.app.export.export import check_current

    need("mtbkd_serve", "serve")
    folder = _beside(run_dir)
    if folder.exists():
        check_current(folder, run_dir, draws)
    else:
        export(run_dir, folder, draws, network=network)
    sys.stdout.flush()
    server = ["-m", "mtbkd_serve", str(folder), "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *server])  # signals reach it, and torch is gone


def _beside(run_dir: Path) -> Path:
    return run_dir.with_name(f"{run_dir.resolve().name}.export")
