"""What the student reads of your examples: which kind of input it is, its encoder, its scale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.app.config.own import OwnConfig
from mtbkd.app.recipes.own.columns import text_columns
from mtbkd.files import load_tensors
from mtbkd.inputs.images.kind import images
from mtbkd.inputs.kind import Encoder, InputKind, Rows, Scaling
from mtbkd.inputs.numbers import numbers
from mtbkd.inputs.proteins.features import standardisation
from mtbkd.inputs.proteins.kind import proteins
from mtbkd.inputs.texts.kind import texts
from mtbkd.types import InputError, Report, quiet

CLIP = 5.0
"""Standard deviations within which numbers of encoders are kept."""
FITTED = "fitted.safetensors"
_COLUMNS = 64  # in double precision at once


class Read(NamedTuple):
    """What the student reads of the examples.

    Attributes:
        inputs: Not standardised, shape (example, ...).
        encoder: What made numbers of them, as it is recorded; None if nothing did.
        path: A file of the run directory; None if the inputs are made from the examples again.
        kept: What is kept there: the inputs, or what is needed to make them.
    """

    inputs: Tensor
    encoder: dict[str, Any] | None = None
    path: Path | None = None
    kept: Mapping[str, Tensor] = {}


def kind_of(own: OwnConfig, record: dict[str, Any] | None) -> InputKind:
    """What kind of input the examples are, as a run directory recorded it if there is one."""
    known = record or {}
    if own.reads == "proteins":
        return proteins(own.id, str(own.sequence))
    if own.reads == "images":
        size = known.get("size", own.size)
        return images(
            own.id,
            str(own.image),
            size=None if size is None else (size[0], size[1]),
            channels=known.get("channels"),
        )
    if own.reads == "texts":
        return texts(own.id, str(own.text))
    others = (own.id, own.split, own.group, own.source, *own.targets, *text_columns(own))
    return numbers(own.id, known.get("features", own.features), [c for c in others if c])


def model_of(own: OwnConfig, name: str) -> str:
    """A folder, which may be relative to that of the configuration, or an id on the hub."""
    place = Path(own.folder) / Path(name).expanduser()
    return str(place) if place.exists() or name.startswith((".", "~")) else name


def find_encoder(
    kind: InputKind, own: OwnConfig, device: str, recorded: dict[str, Any] | None
) -> Encoder | None:
    """The student's frozen model, not yet in memory; None if it has none.

    ``recorded`` is how a run directory says that it was, if one does.

    Raises:
        InputError: If it is not there, or is not the one that the run began with.
    """
    name = own.student_encoder
    if name is None or kind.find_encoder is None:
        return None
    encoder = kind.find_encoder(model_of(own, name), device, recorded)
    if recorded is not None and encoder.about["key"] != recorded["key"]:
        raise InputError(
            f"Expected the encoder {name!r} as it was when the run began, but its files were "
            "changed. Restore them, or make a new run."
        )
    return encoder


def read_inputs(
    kind: InputKind,
    rows: Rows,
    own: OwnConfig,
    device: str,
    place: tuple[Path, str],
    record: dict[str, Any] | None,
    report: Report = quiet,
) -> Read:
    """What the student reads, from the run's folder if it holds it. Nothing is written.

    Args:
        kind: What kind of input the rows are.
        rows: All examples.
        own: With the encoder.
        device: Where that runs.
        place: The run's folder of features, and the hash of the file of examples.
        record: What the run directory says of its examples, if it has begun.
        report: Called with the progress of the encoder.

    Raises:
        InputError: If a row cannot be read, or the encoder is not there or does not fit the record.
    """
    known = record or {}
    if kind.scaling == "columns":
        return Read(kind.tensor(rows.values))
    folder, sha256 = place
    told = json.dumps([own.encoder, rows.about, sha256])
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    path = folder / f"{kind.name}-{name}.safetensors"
    if record is not None and path.exists():
        try:
            return _kept(load_tensors(path)["features"], known.get("encoder"), path)
        except InputError:  # made again
            path.unlink()
    encoder = find_encoder(kind, own, device, known.get("encoder"))
    if encoder is not None:
        about = known.get("encoder") or encoder.about
        return _kept(encoder.encode(rows.values, report), about, path)
    about = {"kind": "features"} if kind.scaling == "clipped" else None
    return _kept(kind.tensor(rows.values), about, path)


def _kept(inputs: Tensor, encoder: dict[str, Any] | None, path: Path) -> Read:
    return Read(inputs, encoder, path, {"features": inputs})


def has_fitting(kind: InputKind, own: OwnConfig) -> bool:
    """Whether something has to be learned from training rows before the student can read any."""
    return kind.fitting is not None and own.student_encoder is None


def fit_inputs(
    kind: InputKind, rows: Rows, train: NDArray[np.int64], seed: int, folder: Path
) -> Read:
    """What the student reads, once what is needed for it is learned from the rows for training.

    That is taken from the run's folder if it holds it. Nothing is written.

    Raises:
        InputError: If there is nothing to learn from.
    """
    path, kept = folder / FITTED, None
    if path.exists():
        try:
            kept = load_tensors(path)
        except InputError:  # made again
            path.unlink()
    if kept is None and kind.fitting is not None:
        kept = kind.fitting.fit(kind.ask(rows.values, train), seed)
    return Read(fitted(kind, kept or {}).tensor(rows.values), None, path, kept or {})


def fitted(kind: InputKind, kept: dict[str, Tensor]) -> InputKind:
    """The same with what was learned from training rows, so that it reads any."""
    if kind.fitting is None:
        return kind
    return replace(kind, tensor=partial(kind.fitting.tensor, kept))


def scaling_of(kind: InputKind, own: OwnConfig) -> Scaling:
    """How the student's inputs are put in standard deviations."""
    return "clipped" if own.student_encoder is not None else kind.scaling


def moments(inputs: Tensor, scaling: Scaling) -> dict[str, Any]:
    """Mean and standard deviation of each column of training examples, as they are recorded.

    A column that is mostly one value, as a pixel at the border is, would be blown up by its
    deviation, which is small since few examples differ: this is divided by the square root of the
    share of those that do, which leaves about the deviation of these.

    If ``clipped``, as numbers of encoders are, columns that never change are zero for all proteins
    to come, and others within `CLIP` standard deviations.
    """
    if scaling == "none":
        return {}
    if scaling == "clipped" and len(inputs):
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
    if "mean" not in record:
        return inputs
    of = {k: torch.tensor(record[k]) for k in ("mean", "sd", "scale", "clip") if k in record}
    if "scale" in of:
        return ((inputs - of["mean"]) * of["scale"]).clamp(-of["clip"], of["clip"])
    return inputs.sub_(of["mean"]).div_(of["sd"])
