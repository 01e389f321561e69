"""What the recipes on proteins share: locations, hand-made features as inputs, and a student."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.data import data_root
from mtbkd.app.data.deeploc2 import LOCATIONS
from mtbkd.app.recipes.base import mlp
from mtbkd.data import make_dataset
from mtbkd.files import load_tensors, save_tensors
from mtbkd.inputs.proteins.features import feature_names, sequence_features, standardisation
from mtbkd.inputs.proteins.reading import read_proteins
from mtbkd.types import InputError

_CLIP = 5.0
# How much a group of features counts, by the start of its name; chosen by cross-validation on the
# training proteins of the recipe deeploc.
_QUIET = ("composition_quarter", "profile", "motif")
_HALF_QUIET = ("membrane", "richest", "disorder", "charge1", "charge2", "charge5")


class Standardise(nn.Module):
    """Frozen first layer: features in standard deviations of the training proteins, clipped.

    Args:
        features: Those of training proteins, shape (protein, feature).
        loudness: How much each feature counts, shape (feature,); all alike if not given. Only
            ratios matter: together they have the size of standardised features.
    """

    mean: Tensor
    scale: Tensor
    loudness: Tensor

    def __init__(self, features: Tensor, loudness: Tensor | None = None) -> None:
        super().__init__()
        mean, scale = standardisation(features.numpy())
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("loudness", torch.ones(1) if loudness is None else loudness)
        if loudness is not None:
            size = self(features).square().sum(1).mean()
            self.loudness *= (features.shape[1] / size.clamp_min(1.0)).sqrt()

    def forward(self, features: Tensor) -> Tensor:
        """(protein, feature) to the same."""
        clipped = ((features - self.mean) * self.scale).clamp(-_CLIP, _CLIP)
        return clipped * self.loudness


def loudness() -> Tensor:
    """How much each hand-made feature counts, shape (feature,)."""
    return torch.tensor([
        0.4 if n.startswith(_QUIET) else 0.7 if n.startswith(_HALF_QUIET) else 1.0
        for n in feature_names()
    ])  # fmt: skip


def network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """The student on hand-made features: frozen standardisation, then a small network."""
    layers = mlp([example.shape[-1], *config.student.hidden, n_outputs])
    return nn.Sequential(Standardise(example, loudness()), *layers)


def cached_features(sequences: Sequence[str], folder: Path) -> Tensor:
    """Hand-made features of these sequences, from the folder if they were computed before."""
    digest = hashlib.sha256("\n".join(sequences).encode()).hexdigest()[:16]
    path = folder / f"sequences-{digest}.safetensors"
    if not path.exists():
        save_tensors(path, {"features": torch.from_numpy(sequence_features(sequences))})
    return load_tensors(path)["features"]


def read_new(
    path: Path, features: Callable[[Sequence[str]], ArrayLike | Tensor]
) -> tuple[tuple[str, ...], Tensor]:
    """Ids and features of new proteins; what was changed in their sequences is told in warnings.

    Raises:
        InputError: If the file does not hold proteins.
    """
    proteins = read_proteins(path)
    for note in proteins.notes:
        warnings.warn(note, stacklevel=2)
    inputs = features(proteins.sequences)
    data = make_dataset(inputs, classes=LOCATIONS, ids=proteins.ids, name=str(path))
    return data.ids, data.inputs


def read(path: Path) -> tuple[tuple[str, ...], Tensor]:
    """New proteins from FASTA, CSV or Parquet, as hand-made features."""
    return read_new(path, sequence_features)


def data_files(
    config: RunConfig, folder: str, names: Sequence[str], what: str, data_set: str
) -> Path:
    """The folder of a data set, under the one that `data_root` says, in which these files are.

    Raises:
        InputError: If any of them is not there.
    """
    place = data_root(config.data) / folder
    missing = [name for name in names if not (place / name).exists()]
    if missing:
        to = f" --to {config.data}" if config.data else ""
        raise InputError(
            f"Expected {what} in {place}, but {missing[0]} is missing ({len(missing)} such). Run "
            f"`mtbkd data get {data_set}{to}`; see docs/data.md."
        )
    return place
