"""What chains learn from: features once, teachers by id, units and weights, minibatches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.files import hash_tensor, load_tensors, save_rows
from mtbkd.observation import CATEGORICAL, OUTCOMES, Observation, Said
from mtbkd.observation.base import labelled
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.mixture import counted_concentration
from mtbkd.prior.settings import Prior
from mtbkd.student.augment import Augment
from mtbkd.student.student import Student
from mtbkd.types import Batch, BatchSource, Generators
from mtbkd.weights.rules import Weighting

_FEATURES = 2**13  # examples whose features are held while they are written
_MOVED = 2**26  # numbers that are moved to the device as a whole
_PIECE = 2**22  # numbers of teachers' outputs whose terms are worked out at once
_PREPARED = 2**28  # bytes of the mixture's terms that are prepared once, not batch by batch


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
        parts = (
            student.features(part, first=k * _FEATURES)
            for k, part in enumerate(inputs.split(_FEATURES))
        )
        save_rows(path, "features", len(inputs), parts)
    return load_tensors(path)["features"].to(student.prior_mean.device)


def behind(student: Student, data: Dataset, out: Path | None) -> Dataset:
    """The same examples as the student's head reads them."""
    if student.frozen is None:
        return data
    return replace(data, inputs=cached_features(student, data.inputs, out).cpu())


def training_set(
    student: Student,
    data: Dataset,
    teachers: TeacherOutputs,
    weighting: Weighting,
    out: Path | None = None,
    units: Units | None = None,
) -> TrainingSet:
    """Features once, teachers by id, weights: what the chains need, on the student's device.

    Where a label is known and weights were fitted to labels, it also tells which teacher is right
    there: ``w_k`` becomes ``w_k p_k(y)``, over the sum of these.
    """
    where = student.prior_mean.device
    outputs = teachers.at(data.ids)
    observation = outputs.observation
    values = outputs.values if units is None else units.values(outputs.values)
    features = cached_features(student, data.inputs, out)
    said = weighting.apply(values, outputs.mask, outputs.kept, observation, features)
    labels = data.labels if units is None else units.labels(data.labels)
    if weighting.stacked is not None:
        said = _judged(said, labels, data.known.nonzero()[:, 0], weighting.temperature, observation)
    temperature = weighting.temperature
    blocks = None if outputs.blocks is None else outputs.blocks.to(where)
    totals = None if outputs.totals is None else outputs.totals.to(where)
    return TrainingSet(
        features=features,
        labels=labels.to(where),
        values=_near(said.values, where),
        log_weights=said.log_weights.to(where),
        kept=None if said.kept is None else _near(said.kept, where),
        inside=None if said.inside is None else said.inside.to(where),
        nobody=None if said.nobody is None else said.nobody.to(where),
        temperature=None if temperature is None else temperature.to(where),
        observation=replace(outputs, blocks=blocks).observation,
        augment=student.augment,
        totals=totals,
        groups=outputs.groups,
    )


def _judged(
    said: Said, labels: Tensor, rows: Tensor, temperature: Tensor | None, observation: Observation
) -> Said:
    """The same with weights that know the labels of these rows."""
    some = said._replace(
        values=said.values[:, rows].float(),
        log_weights=said.log_weights[:, rows],
        kept=None if said.kept is None else said.kept[:, rows],
        inside=None if said.inside is None else said.inside[:, rows],
    )
    own = some.log_weights + observation.score(some, labels[rows], temperature).float()
    every, missing = own, labelled(OUTCOMES[observation.family], labels[rows]).logical_not()
    if said.nobody is not None:
        flat = said.nobody[rows] - math.log(observation.n_alike(some.values))
        every = torch.cat([own, flat.masked_fill(missing, -torch.inf)[None]])
    total = torch.logsumexp(every, 0)
    keep = missing | torch.isneginf(total)
    log_weights = said.log_weights.clone()
    log_weights[:, rows] = torch.where(keep, some.log_weights, own - total)
    nobody = said.nobody
    if nobody is not None:
        nobody = nobody.clone()
        nobody[rows] = torch.where(keep, nobody[rows], every[-1] - total)
    return said._replace(log_weights=log_weights, nobody=nobody)


def _near(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device if it is small; large ones stay where they are, and batches are moved."""
    return tensor.to(device) if tensor.numel() <= _MOVED else tensor


@dataclass(frozen=True)
class TrainingSet:
    """Everything the log posterior needs of the data.

    Tensors are on the student's device, or mapped from files, of which batches are then read.

    Attributes:
        features: Inputs of the student's head, shape (example, ...).
        labels: As in a `Dataset` of this family; for regression in units of 1.
        values: As in `TeacherOutputs`, shape (teacher, example, ...).
        log_weights: Log teacher weights, shape (teacher, example) or (teacher, example, column).
        kept: As in `TeacherOutputs`.
        inside: Probability that one of the classes that a partial teacher knows is true, shape
            (teacher, example).
        nobody: Log weight of trusting no teacher, shape (example,) or (example, column).
        temperature: Divides the teachers' log-probabilities, shape (teacher,); for regression it
            multiplies their variance.
        observation: How outputs meet labels and teachers.
        augment: What is done to images at each step.
        totals: As in `TeacherOutputs`, shape (teacher, example); and ``groups``, shape (teacher,).
    """

    features: Tensor
    labels: Tensor
    values: Tensor
    log_weights: Tensor
    kept: Tensor | None = None
    inside: Tensor | None = None
    nobody: Tensor | None = None
    temperature: Tensor | None = None
    observation: Observation = CATEGORICAL
    augment: Augment | None = None
    totals: Tensor | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def said(self, rows: Tensor | slice) -> Said:
        """What the teachers say on some examples, on the device, in single precision or better."""
        where = self.log_weights.device
        values = self.values[:, _on(self.values, rows)].to(where)
        return Said(
            values=values.float() if values.dtype == torch.float16 else values,
            log_weights=self.log_weights[:, rows],
            kept=None if self.kept is None else self.kept[:, _on(self.kept, rows)].to(where),
            inside=None if self.inside is None else self.inside[:, rows],
            nobody=None if self.nobody is None else self.nobody[rows],
        )

    def subset(self, rows: Tensor) -> TrainingSet:
        """The examples at these positions, or where this mask is true, in memory."""
        said = self.said(rows)
        return replace(
            self,
            features=self.features[_on(self.features, rows)],
            labels=self.labels[rows],
            values=self.values[:, _on(self.values, rows)],
            log_weights=said.log_weights,
            kept=said.kept,
            inside=said.inside,
            nobody=said.nobody,
            totals=None if self.totals is None else self.totals[:, rows],
        )


def _on(tensor: Tensor, rows: Tensor | slice) -> Tensor | slice:
    """Positions where the tensor is, so that it can be indexed with them."""
    return rows.to(tensor.device) if isinstance(rows, Tensor) else rows


def prior_terms(
    data: TrainingSet, prior: Prior, rows: Tensor | slice = slice(None), *, at: float | None = None
) -> Any:
    """What the mixture needs from the teachers on some examples.

    Args:
        data: With what the teachers say.
        prior: Its concentration and softening.
        rows: Which examples of the data.
        at: Another concentration, for the warm-up.
    """
    softening: float | Tensor = prior.softening
    if data.temperature is not None:
        softening = data.temperature * prior.softening
    concentration: Any = prior.concentration if at is None else at
    if data.totals is not None:
        power = float(torch.as_tensor(prior.power).max())
        concentration = counted_concentration(concentration, power, data.totals[:, rows])
    return data.observation.terms(data.said(rows), concentration, softening, prior.discount)


class Minibatches:
    """Draws examples for each chain with that chain's generator."""

    def __init__(self, data: TrainingSet, prior: Prior, generators: Generators) -> None:
        self.n_examples = len(data)
        self._data, self._prior, self._generators = data, prior, generators
        self._concentration = prior.concentration
        self._terms: Any = None
        self._fit = _size(prior_terms(data, prior, slice(0, 1))) * len(data) <= _PREPARED
        self.set_concentration(prior.concentration)

    def set_concentration(self, concentration: float) -> None:
        """Prepare the mixture's terms for this concentration, once if they fit into memory."""
        known = self._terms is not None and concentration == self._concentration
        self._concentration = concentration
        if self._fit and not known:
            self._terms = None  # makes room for the new ones
            self._terms = _prepared(self._data, self._prior, concentration)

    def __call__(self, size: int) -> BatchSource:
        """A batch with a leading chain axis; all examples, shared, if ``size`` covers them."""
        n = self.n_examples
        if size >= n:
            views = self._views(n)
            if self._terms is None:
                return _Mapped(n, self._shared, views)
            return self._shared(slice(None))._replace(views=views)
        device = self._data.labels.device
        return self.at(
            torch.stack(
                [torch.randint(n, (size,), generator=g, device=device) for g in self._generators]
            )
        )

    def at(self, index: Tensor) -> Batch:
        """The examples at these positions, shape (chain, example)."""
        n_chains, size = index.shape
        if self._terms is not None:
            terms = _each(self._terms, lambda part: part[:, index].movedim(1, 0))
        else:
            found = prior_terms(self._data, self._prior, index.flatten(), at=self._concentration)
            terms = _each(found, lambda part: part.unflatten(1, (n_chains, size)).movedim(1, 0))
        features = self._data.features
        features = features[_on(features, index)].to(index.device)
        return Batch(features, self._data.labels[index], terms, self._views(size))

    def _views(self, size: int) -> Tensor | None:
        """How so many images are seen, drawn by each chain, shape (chain, example, 3)."""
        augment, images = self._data.augment, self._data.features
        if augment is None:
            return None
        return torch.stack([augment.draw(size, images, g) for g in self._generators])

    def _shared(self, rows: slice) -> Batch:
        """Consecutive examples, the same for all chains."""
        data, n_chains = self._data, len(self._generators)
        if self._terms is not None:
            terms = _each(self._terms, lambda part: part[:, rows])
        else:
            terms = prior_terms(data, self._prior, rows, at=self._concentration)
        features = data.features[rows].to(data.labels.device)
        batch = Batch(features, data.labels[rows], terms)
        return batch.each(lambda part: part.expand(n_chains, *part.shape))


@dataclass(frozen=True)
class _Mapped:
    """All examples, of which rows are read when they are asked for."""

    n_examples: int
    read: Callable[[slice], Batch]
    views: Tensor | None

    def rows(self, rows: slice, /) -> Batch:
        views = None if self.views is None else self.views[:, rows]
        return self.read(rows)._replace(views=views)


def _prepared(data: TrainingSet, prior: Prior, concentration: float) -> Any:
    """The terms of all examples, worked out over some of them at a time."""
    n, step = len(data), max(1, _PIECE // data.values[:, 0].numel())
    if n <= step:
        return prior_terms(data, prior, at=concentration)
    found: Any = None
    for start in range(0, n, step):
        rows = slice(start, start + step)
        terms = prior_terms(data, prior, rows, at=concentration)
        if found is None:
            found = _each(terms, lambda part: part.new_empty(len(part), n, *part.shape[2:]))
        for whole, part in zip(found, terms, strict=True):
            whole[:, rows] = part
    return found


def _size(terms: Any) -> int:
    """Bytes of these terms."""
    return sum(part.numel() * part.element_size() for part in terms)


def _each(terms: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return type(terms)(*map(change, terms))
