"""Where a run of chains stands, on disk, so that a killed one goes on to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbkd.files import load_tensors, save_tensors
from mtbkd.inference.method import Probe
from mtbkd.inference.samples import segment_path
from mtbkd.types import Generators


class Checkpoint(NamedTuple):
    """Between two segments of draws.

    Attributes:
        state: The engine's state.
        probe: The step-size adaptation's state.
        totals: Sums over the updates after burn-in of what the engine tells, each (chain,).
        done: Steps done.
        n_segments: Segments of draws written.
    """

    state: Any
    probe: Probe
    totals: dict[str, Tensor]
    done: int
    n_segments: int


def save(folder: Path, at: Checkpoint, generators: Generators) -> None:
    """Write the checkpoint and the generators' states."""
    tensors = {f"state.{name}": value for name, value in at.state._asdict().items()}
    tensors |= {f"probe.{name}": value for name, value in at.probe._asdict().items()}
    tensors |= {f"total.{name}": value for name, value in at.totals.items()}
    tensors |= {f"generator.{c}": g.get_state() for c, g in enumerate(generators)}
    save_tensors(_path(folder), tensors | {"at": torch.tensor([at.done, at.n_segments])})


def restore(
    folder: Path, start: Checkpoint, generators: Generators
) -> tuple[Checkpoint, list[Tensor]]:
    """Read the last checkpoint and the draws before it, or stay at the start if any is missing.

    Args:
        folder: Where the draws lie.
        start: Where an undisturbed run starts; gives types and device.
        generators: Set to where they were.

    Raises:
        InputError: If a file was changed.
    """
    if not _path(folder).exists():
        return start, []
    tensors = load_tensors(_path(folder), device=str(start.probe.limits.device))
    done, n_segments = tensors["at"].tolist()
    paths = [segment_path(folder, index) for index in range(n_segments)]
    if not all(path.exists() for path in paths):
        return start, []
    segments = [load_tensors(path)["draws"] for path in paths]
    for chain, generator in enumerate(generators):
        generator.set_state(tensors[f"generator.{chain}"].cpu())
    fields = {name: tensors[f"state.{name}"] for name in start.state._fields}
    totals = {k.removeprefix("total."): v for k, v in tensors.items() if k.startswith("total.")}
    at = Checkpoint(
        type(start.state)(**fields),
        Probe(tensors["probe.direction"], tensors["probe.limits"]),
        totals,
        done,
        n_segments,
    )
    return at, segments


def _path(folder: Path) -> Path:
    return folder / "checkpoint.safetensors"
