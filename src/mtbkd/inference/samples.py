"""Posterior draws: segments of stacked parameters, in memory or mapped from disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtbkd.files import load_tensors, read_sealed, save_sealed, sha256_of
from mtbkd.types import InputError

MAKE_AGAIN = "Delete it and run the distillation again, which makes what is missing."
"""What to do about a file that is not as it was written."""


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

    def chosen(self, places: Sequence[int]) -> PosteriorSamples:
        """Some draws, each as a chain of one; places count them chain by chain."""
        every = list(self)
        draws = [every[place % self.n_draws][place // self.n_draws] for place in places]
        return replace(self, segments=(torch.stack(draws)[:, None],))

    def __iter__(self) -> Iterator[Tensor]:
        """Draws one by one over all chains, each of shape (chain, parameter)."""
        for segment in self.segments:
            yield from segment.unbind(1)


def segment_path(folder: Path, index: int) -> Path:
    """Where a segment of draws lies."""
    return folder / f"draws-{index:04d}.safetensors"


def draws_folder(folder: Path, *, instead: bool) -> Path:
    """Where draws lie, or those that answer in place of chains that go on."""
    return folder / "laplace" if instead else folder


def save_manifest(
    folder: Path,
    samples: PosteriorSamples,
    details: dict[str, Any],
    beside: Sequence[str],
    *,
    instead: bool = False,
) -> None:
    """Close a folder of draws: what they are, how they were drawn, and the hash of every file.

    Args:
        folder: Where the draws lie.
        samples: What lies there.
        details: How they were drawn.
        beside: Files next to the folder that belong to the draws.
        instead: As in `draws_folder`.
    """
    drawn = draws_folder(folder, instead=instead)
    files = [segment_path(drawn, index) for index in range(len(samples.segments))]
    files += [folder.parent / name for name in beside]
    manifest = {
        "names": samples.names,
        "shapes": samples.shapes,
        "segments": len(samples.segments),
        "chains": samples.n_chains,
        "draws": samples.n_draws,
        "instead": instead,
        **details,
        "sha256": {p.relative_to(folder.parent).as_posix(): sha256_of(p) for p in files},
    }
    save_sealed(folder / "manifest.json", manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `save_manifest` wrote.

    Raises:
        InputError: If the distillation was not finished, or the manifest was changed.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise InputError(
            f"Expected posterior draws in {folder}, but they are incomplete: {path} is missing. "
            "Run the distillation to its end."
        )
    return read_sealed(path, MAKE_AGAIN, "segments", "plan", "sha256")


def load_samples(folder: Path) -> PosteriorSamples:
    """Map the draws of a finished run after checking each byte.

    Raises:
        InputError: If the folder is incomplete, or a file was changed.
    """
    manifest = read_manifest(folder)
    segments, faults = [], []
    drawn = draws_folder(folder, instead=manifest.get("instead", False))
    for index in range(manifest["segments"]):
        path = segment_path(drawn, index)
        digest = manifest["sha256"][path.relative_to(folder.parent).as_posix()]
        try:
            segments.append(load_tensors(path, digest, then=MAKE_AGAIN)["draws"])
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(*faults)
    shapes = tuple(tuple(shape) for shape in manifest["shapes"])
    size = sum(torch.Size(shape).numel() for shape in shapes)
    wrong = [s.shape for s in segments if s.dim() != 3 or s.shape[2] != size]
    if wrong:
        raise InputError(
            f"Expected draws of {size} parameters in {folder}, but got shape "
            f"{tuple(wrong[0])}. Run the distillation again."
        )
    return PosteriorSamples(tuple(segments), tuple(manifest["names"]), shapes)
