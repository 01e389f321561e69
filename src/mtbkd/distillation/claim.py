"""Whose a folder is: a hash of all that decides the answer, so that nothing else goes on there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.files import hash_tensor, read_sealed, save_sealed
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.student.student import Student
from mtbkd.types import InputError

_REQUEST = "request.json"


class _Part(NamedTuple):
    """Something that decides the answer: facts, whose ``repr`` says them, and tensors."""

    facts: object
    tensors: list[Tensor]


def claim(
    out: Path,
    settings: tuple[object, ...],
    student: Student,
    teachers: TeacherOutputs,
    splits: Mapping[str, Dataset],
) -> None:
    """Make the folder that of this distillation, or check that it is.

    Raises:
        InputError: If another network, other teachers, data or settings have written to it.
    """
    parts = {"settings": _Part(settings, []), "network": _network(student)}
    parts |= {"teachers": _teachers(teachers)}
    parts |= {name: _dataset(split) for name, split in splits.items()}
    asked: dict[str, Any] = {name: _digest(part) for name, part in parts.items()}
    asked["outputs"] = _outputs(student, splits["data"])
    path = out / _REQUEST
    if not path.exists():
        save_sealed(path, asked)
        return
    before = read_sealed(path)
    outputs = before.pop("outputs", []), asked.pop("outputs")
    differing = [name for name in asked | before if before.get(name) != asked.get(name)]
    if not differing and not np.allclose(*outputs, rtol=1e-4, atol=1e-5, equal_nan=True):
        differing = ["network"]
    if differing:
        raise InputError(
            f"Expected {out} to be new or a run of the same student, data and settings, but it "
            f"holds another; what differs: {', '.join(differing)}. Choose another folder or "
            "delete it."
        )


def _digest(part: _Part) -> str:
    shapes = [(tensor.dtype, tuple(tensor.shape)) for tensor in part.tensors]
    digest = hashlib.sha256(repr((part.facts, shapes)).encode())
    for tensor in part.tensors:
        hash_tensor(digest, tensor)
    return digest.hexdigest()


def _dataset(data: Dataset) -> _Part:
    return _Part((data.ids, data.classes, data.family), [data.inputs, data.labels])


def _teachers(said: TeacherOutputs) -> _Part:
    tensors = (said.values, said.mask, said.blocks, said.kept, said.totals)
    present = [tensor is not None for tensor in tensors]
    facts = (said.names, said.ids, said.classes, said.held_out, said.family, present)
    return _Part(facts, [tensor for tensor in tensors if tensor is not None])


def _network(student: Student) -> _Part:
    """Its modules and their settings, and every number that is not sampled."""
    facts: list[object] = [student.names, student.shapes]
    for module in (student.head, student.frozen):
        for name, inner in [] if module is None else module.named_modules(remove_duplicate=False):
            kind = type(inner)
            facts.append((name, kind.__module__, kind.__qualname__, inner.extra_repr()))
    fixed = student.fixed()
    tensors = [*fixed.values(), student.prior_mean, student.prior_scale]
    return _Part((facts, list(fixed)), tensors)


def _outputs(student: Student, data: Dataset) -> list[float]:
    """What the network makes of two examples somewhere: code says more than settings do."""
    chance = torch.Generator().manual_seed(0)
    where = student.prior_mean.device
    position = torch.randn(student.n_parameters, generator=chance).to(where)
    with torch.no_grad():
        found = student.logits(position, student.features(data.inputs[:2]))
    return found.double().flatten().tolist()
