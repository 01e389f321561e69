"""What the student reads of your examples: numeric columns, or proteins as numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from mtbkd.app.config.own import OwnConfig
from mtbkd.files import load_tensors
from mtbkd.inputs.columns import Table
from mtbkd.inputs.proteins.backbone import Backbone, load_backbone
from mtbkd.inputs.proteins.cache import cache_root
from mtbkd.inputs.proteins.cleaning import clean, first_faults
from mtbkd.inputs.proteins.embedding import embed
from mtbkd.inputs.proteins.features import sequence_features, standardisation
from mtbkd.types import InputError, Report, quiet

CLIP = 5.0
"""Standard deviations within which numbers of sequences are kept."""
_COLUMNS = 64  # in double precision at once


class Encoded(NamedTuple):
    """Proteins as numbers.

    Attributes:
        inputs: Not standardised, shape (protein, feature).
        encoder: What made them, as it is recorded.
        path: Where they are kept in the run directory.
    """

    inputs: Tensor
    encoder: dict[str, Any]
    path: Path


def cleaned(examples: Table, column: str) -> tuple[Table, tuple[str, ...]]:
    """The same examples with clean sequences, and what was changed.

    Raises:
        InputError: With one message for each sequence, or kind, that is no protein.
    """
    found = clean(examples.ids, examples.words(column), str(examples.path))
    if found.faults:
        raise InputError(*first_faults(found.faults, str(examples.path)))
    place = examples.names.index(column)
    cells = examples.cells.set_column(place, column, [pa.array(found.sequences)])
    return replace(examples, cells=cells), found.notes


def model_of(own: OwnConfig, name: str) -> str:
    """A folder, which may be relative to that of the configuration, or an id on the hub."""
    place = Path(own.folder) / Path(name).expanduser()
    return str(place) if place.exists() or name.startswith((".", "~")) else name


def find_encoder(own: OwnConfig, device: str, recorded: dict[str, Any] | None) -> Backbone | None:
    """The student's protein language model, not yet in memory; None for hand-made features.

    ``recorded`` is how a run directory says that it was, if one does.

    Raises:
        InputError: If it is not there, or is not the one that the run began with.
    """
    name = own.student_encoder
    if name is None or name == "features":
        return None
    known = recorded or {}
    backbone = load_backbone(
        model_of(own, name),
        device=device,
        precision=known.get("precision", "auto"),
        limit=known.get("limit"),
    )
    if recorded is not None and _about(backbone)["key"] != known["key"]:
        raise InputError(
            f"Expected the encoder {name!r} as it was when the run began, but its files were "
            "changed. Restore them, or make a new run."
        )
    return backbone


def encode(
    sequences: Sequence[str],
    own: OwnConfig,
    device: str,
    folder: Path,
    recorded: dict[str, Any] | None,
    report: Report = quiet,
) -> Encoded:
    """Numbers of clean sequences, from the run's folder if it holds them. Nothing is written.

    Raises:
        InputError: If the encoder is not there, or does not fit what was recorded.
    """
    digest = hashlib.sha256("\n".join([str(own.student_encoder), *sequences]).encode())
    path = folder / f"sequences-{digest.hexdigest()[:16]}.safetensors"
    if recorded is not None and path.exists():
        try:
            return Encoded(load_tensors(path)["features"], recorded, path)
        except InputError:  # made again
            path.unlink()
    backbone = find_encoder(own, device, recorded)
    return Encoded(numbers(sequences, backbone, report), recorded or _about(backbone), path)


def numbers(sequences: Sequence[str], backbone: Backbone | None, report: Report = quiet) -> Tensor:
    """Features of proteins, hand-made if there is no backbone, shape (protein, feature)."""
    if backbone is None:
        return torch.from_numpy(sequence_features(sequences))
    return embed(backbone, sequences, cache=cache_root(), report=report)


def moments(inputs: Tensor, *, clipped: bool) -> dict[str, Any]:
    """Mean and standard deviation of each column of training examples, as they are recorded.

    A column that is mostly one value, as a pixel at the border is, would be blown up by its
    deviation, which is small since few examples differ: this is divided by the square root of the
    share of those that do, which leaves about the deviation of these.

    If ``clipped``, as numbers of sequences are, columns that never change are zero for all proteins
    to come, and others within `CLIP` standard deviations.
    """
    if clipped and len(inputs):
        mean, scale = standardisation(inputs.numpy())
        return {"mean": mean.tolist(), "scale": scale.tolist(), "clip": CLIP}
    if not len(inputs):
        return {"mean": [0.0] * inputs.shape[1], "sd": [1.0] * inputs.shape[1]}
    mean, sd = [], []
    for part in inputs.split(_COLUMNS, 1):
        columns = part.double()
        share = (columns != columns.median(0).values).double().mean(0)
        share = torch.where(share < 0.5, share.clamp_min(1e-12), 1.0)
        spread = columns.std(0, correction=0) / share.sqrt()
        least = (1e-7 * columns.abs().amax(0)).clamp_min(torch.finfo(inputs.dtype).tiny)
        sd += torch.where(spread > least, spread, 1.0).float().tolist()  # no less can be divided by
        mean += columns.mean(0).float().tolist()
    return {"mean": mean, "sd": sd}


def standardise(inputs: Tensor, record: dict[str, Any]) -> Tensor:
    """The inputs as a record of `moments` says; those of numeric columns are changed in place."""
    of = {k: torch.tensor(record[k]) for k in ("mean", "sd", "scale", "clip") if k in record}
    if "scale" in of:
        return ((inputs - of["mean"]) * of["scale"]).clamp(-of["clip"], of["clip"])
    return inputs.sub_(of["mean"]).div_(of["sd"])


def _about(backbone: Backbone | None) -> dict[str, Any]:
    if backbone is None:
        return {"kind": "features"}
    return {
        "kind": "backbone",
        "model": backbone.name,
        "precision": backbone.precision,
        "limit": backbone.limit,
        "key": backbone.key(cache_root() / "digests"),
    }
