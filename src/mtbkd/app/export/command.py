"""`mtbkd export`, as the command line has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtbkd.app.asked import Network


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
    folder = out or run_dir.with_name(f"{run_dir.resolve().name}.export")
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
