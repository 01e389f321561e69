"""What chains learn from: features once, teachers by id, units and weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.inference.batches import TrainingSet
from mtbkd.observation import BINARY, GAUSSIAN, Observation, categorical, top
from mtbkd.outputs import TeacherOutputs
from mtbkd.prior import Spaces, find_spaces
from mtbkd.samples import save_json, save_tensors
from mtbkd.settings import Rule
from mtbkd.store import hash_tensor, save_rows
from mtbkd.student import Student
from mtbkd.types import InputError
from mtbkd.units import Units, find_units
from mtbkd.weights import Stacked, Weighting, fit_stacked

_FEWEST_LABELS = 20
_FEATURES = 2**13  # examples whose features are held while they are written
_MOVED = 2**26  # numbers that are moved to the device as a whole


def cached_features(student: Student, inputs: Tensor, out: Path | None) -> Tensor:
    """The student's frozen features, computed once for each run directory.

    Args:
        student: Its frozen part is what costs.
        inputs: Shape (example, ...).
        out: A run directory, or None to keep nothing.
    """
    if student.frozen is None or out is None:
        return student.features(inputs)
    digest = hashlib.sha256()
    hash_tensor(digest, inputs)
    for name, value in student.fixed().items():
        digest.update(name.encode())
        hash_tensor(digest, value)
    path = out / "features" / f"frozen-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        parts = (student.features(part) for part in inputs.split(_FEATURES))
        save_rows(path, "features", len(inputs), parts)
    return load_file(str(path))["features"].to(student.prior_mean.device)


def observation_of(teachers: TeacherOutputs) -> tuple[Observation, Spaces | None]:
    """How outputs of these teachers' family are looked at, and what the teachers tell apart."""
    if teachers.family == "multilabel":
        return BINARY, None
    if teachers.family == "regression":
        return GAUSSIAN, None
    if teachers.kept is not None:
        return top(len(teachers.classes)), None
    spaces = None if teachers.blocks is None else find_spaces(teachers.blocks.long())
    return categorical(spaces), spaces


def nobody(data: Dataset) -> TeacherOutputs:
    """No teacher at all: one that says nothing about any example."""
    n, c = len(data), len(data.classes)
    shape = (1, n, c) if data.family == "classification" else (1, n, c, 2)
    mask = torch.zeros(1, 1, dtype=torch.bool).expand(1, n)
    if data.family != "classification":
        mask = mask[..., None].expand(1, n, c)
    values = torch.zeros(1, 1).view([1] * len(shape)).expand(shape)
    return TeacherOutputs(("nobody",), values, mask, data.ids, data.classes, True, data.family)


def training_set(
    student: Student,
    data: Dataset,
    teachers: TeacherOutputs,
    weighting: Weighting,
    out: Path | None = None,
    units: Units | None = None,
) -> TrainingSet:
    """Features once, teachers by id, weights: what the chains need, on the student's device."""
    where = student.prior_mean.device
    outputs = teachers.at(data.ids)
    observation, _ = observation_of(teachers)
    values = outputs.values
    if units is not None:
        values = units.values(values)
    said = weighting.apply(values, outputs.mask, outputs.kept, observation)
    labels = data.labels if units is None else units.labels(data.labels)
    temperature = weighting.temperature
    return TrainingSet(
        cached_features(student, data.inputs, out),
        labels.to(where),
        _near(said.values, where),
        said.log_weights.to(where),
        None if said.kept is None else _near(said.kept, where),
        None if said.inside is None else said.inside.to(where),
        None if said.nobody is None else said.nobody.to(where),
        None if temperature is None else temperature.to(where),
        observation,
    )


def _near(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device if it is small; large ones stay where they are, and batches are moved."""
    return tensor.to(device) if tensor.numel() <= _MOVED else tensor


def choose_units(
    data: Dataset, teachers: TeacherOutputs, calibration: Dataset | None, out: Path | None
) -> Units | None:
    """Units of real-valued targets, found or read back; None for the other families."""
    if data.family != "regression":
        return None
    path = None if out is None else out / "units.safetensors"
    if path is not None and path.exists():
        return Units(**load_file(str(path)))
    held, labels = _labelled(data, teachers, calibration)
    outputs = held if len(labels) else teachers
    labels = labels if len(labels) else torch.full_like(outputs.values[0, ..., 0], torch.nan)
    found = find_units(teachers.names, outputs.values, outputs.mask, labels, data.classes)
    if path is not None:
        save_tensors(path, asdict(found))
    return found


def choose_weighting(
    rule: Rule,
    data: Dataset,
    teachers: TeacherOutputs,
    calibration: Dataset | None,
    out: Path | None,
    units: Units | None = None,
) -> Weighting:
    """Choose and fit the rule, or read the fit back."""
    path = None if out is None else out / "weights.json"
    if path is not None and path.exists():
        return read_weighting(path)
    held, labels = _labelled(data, teachers, calibration)
    if rule == "stacked" and not teachers.held_out:
        raise InputError(
            "Expected labels that no teacher was trained on for prior.weights=stacked, but "
            "the teachers were trained on these examples. Use "
            "prior.weights=entropy, or give outputs on held-out examples."
        )
    if rule == "stacked" and len(labels) < _FEWEST_LABELS:
        raise InputError(
            f"Expected {_FEWEST_LABELS} held-out labels or more for "
            f"prior.weights=stacked, but got {len(labels)}. Use "
            "prior.weights=entropy, or label more examples."
        )
    if rule == "auto":
        enough = teachers.held_out and len(labels) >= _FEWEST_LABELS
        rule = "stacked" if enough else "entropy"
    weighting = Weighting(rule)
    if rule == "stacked":
        observation, spaces = observation_of(teachers)
        values = held.values if units is None else units.values(held.values)
        labels = labels if units is None else units.labels(labels)
        weighting = Weighting(
            rule,
            fit_stacked(
                values, held.mask, labels, kept=held.kept, observation=observation, spaces=spaces
            ),
        )
    if path is not None:
        stored: dict[str, Any] = {"rule": weighting.rule, "teachers": teachers.names}
        if weighting.stacked is not None:
            for name, value in asdict(weighting.stacked).items():
                if value is not None:
                    stored[name] = value.tolist() if isinstance(value, Tensor) else value
        save_json(path, stored)
    return weighting


def _labelled(
    data: Dataset, teachers: TeacherOutputs, calibration: Dataset | None
) -> tuple[TeacherOutputs, Tensor]:
    """What the teachers say on all labelled examples, and their labels."""
    parts = [d for d in (data, calibration) if d is not None]
    known = [d.known.nonzero()[:, 0] for d in parts]
    ids = [d.ids[i] for d, rows in zip(parts, known, strict=True) for i in rows.tolist()]
    labels = torch.cat([d.labels[rows] for d, rows in zip(parts, known, strict=True)])
    return teachers.at(ids), labels


def read_weighting(path: Path) -> Weighting:
    """Read back what `choose_weighting` wrote."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["rule"] != "stacked":
        return Weighting(stored["rule"])
    fit = Stacked(
        torch.tensor(stored["intercept"]),
        torch.tensor(stored["slope"]),
        torch.tensor(stored["temperature"]),
        stored["scale"],
        torch.tensor(stored["nobody"]) if "nobody" in stored else None,
        torch.tensor(stored["gate"]) if "gate" in stored else None,
    )
    return Weighting("stacked", fit)
