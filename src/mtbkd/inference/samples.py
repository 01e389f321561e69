"""Posterior draws: segments of stacked parameters, in memory or mapped from disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.files import save_json
from mtbkd.types import InputError


@dataclass(frozen=True)
class PosteriorSamples:
    """Draws of the student's sampled parameters, in their natural units.

    Attributes:
        segments: Each of shape (chain, draw, parameter), in the order drawn.
        names: Parameter names, in the order of their values.
        shapes: Parameter shapes.
    """

    segments: tuple[Tensor, ...]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def n_chains(self) -> int:
        """Number of chains."""
        return self.segments[0].shape[0]

    @property
    def n_draws(self) -> int:
        """Draws of each chain."""
        return sum(segment.shape[1] for segment in self.segments)

    def __iter__(self) -> Iterator[Tensor]:
        """Draws one by one over all chains, each of shape (chain, parameter)."""
        for segment in self.segments:
            yield from segment.unbind(1)


def segment_path(folder: Path, index: int) -> Path:
    """Where a segment of draws lies."""
    return folder / f"draws-{index:04d}.safetensors"


def save_manifest(folder: Path, samples: PosteriorSamples, details: dict[str, object]) -> None:
    """Close a folder of draws: what they are, how many, and how they were drawn."""
    manifest = {
        "names": samples.names,
        "shapes": samples.shapes,
        "segments": len(samples.segments),
        "chains": samples.n_chains,
        "draws": samples.n_draws,
        **details,
    }
    save_json(folder / "manifest.json", manifest)


def load_samples(folder: Path) -> PosteriorSamples:
    """Map the draws of a finished run.

    Raises:
        InputError: If the folder is incomplete.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        segments = tuple(
            load_file(str(segment_path(folder, i)))["draws"] for i in range(manifest["segments"])
        )
        shapes = tuple(tuple(shape) for shape in manifest["shapes"])
        names = tuple(manifest["names"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"Expected posterior draws in {folder}, but they are incomplete "
            f"({error}). Run the distillation to its end."
        ) from None
    size = sum(torch.Size(shape).numel() for shape in shapes)
    wrong = [s.shape for s in segments if s.dim() != 3 or s.shape[2] != size]
    if wrong:
        raise InputError(
            f"Expected draws of {size} parameters in {folder}, but got shape "
            f"{tuple(wrong[0])}. Run the distillation again."
        )
    return PosteriorSamples(segments, names, shapes)
