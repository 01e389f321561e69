"""Students that rivals train: under the better of two weight priors by calibration labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mtbkd.app.bench.world import World
from mtbkd.app.run.baselines import best_temperature, modes_as_samples, same_updates
from mtbkd.app.run.scoring_shared import Rival
from mtbkd.data import Dataset
from mtbkd.files import load_tensors, save_tensors
from mtbkd.inference import map as map_engine
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.modes import MapSettings, mode_scores, progress_of, starting_modes
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.prior.settings import Prior
from mtbkd.student.student import Student, widened
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.types import Batch, Progress, Report

_WIDENINGS = (1.0, 4.0)
_STREAM = 0

Lesson = Callable[[World, Dataset], TrainingSet]
"""What examples teach, as a rival sees it."""


class Search(Protocol):
    """How networks are trained; `mtbkd.inference.modes.starting_modes` is the usual way."""

    def __call__(
        self,
        student: Student,
        training: TrainingSet,
        prior: Prior,
        settings: MapSettings,
        *,
        n_chains: int,
        seed: int,
        path: Path | None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Positions, shape (chain, parameter), kept in the file at ``path``."""
        ...


@dataclass(frozen=True)
class Training:
    """How a rival's networks are trained.

    Attributes:
        lesson: What they learn from.
        networks: How many, whose answers are averaged.
        from_teachers: Whether teachers pull at all, or labels alone.
        search: How they are found.
        draws: From a trained network's position and what it learned from to what answers.
        temperature: Whether one is fitted to the calibration labels.
    """

    lesson: Lesson
    networks: int = 1
    from_teachers: bool = True
    search: Search = starting_modes
    draws: Callable[[Student, Tensor, TrainingSet, Prior, int], PosteriorSamples] | None = None
    temperature: bool = False


def trained_rival(world: World, how: Training, folder: Path, report: Report) -> Rival:
    """Train as our baselines are: same network, updates and choice of the weight prior.

    Where no training example has a label, and labels alone are learned from, the weight prior is
    the student's, and the calibration answers are of a fit that knows them.
    """
    prior = world.prior if how.from_teachers else replace(world.prior, power=0.0)
    trial, every = how.lesson(world, world.read.train), how.lesson(world, world.everything)
    held, n_train = world.held, len(world.read.train)
    labels = held.labels if world.units is None else world.units.labels(held.labels)

    def find(student: Student, training: TrainingSet, n_all: int, stage: str) -> PosteriorSamples:
        modes = how.search(
            student,
            training,
            prior,
            same_updates(world.config.modes(n_all), len(training), n_all),
            n_chains=how.networks,
            seed=world.config.seed,
            path=folder / f"{stage}.safetensors",
            progress=progress_of(report, stage),
        )
        scores[stage] = -math.inf
        if training is trial:
            told = mode_scores(student, modes, held.inputs, labels, training.observation)
            scores[stage] = float(told.mean())
        if how.draws is None:
            return modes_as_samples(student, modes)
        return how.draws(student, modes, training, prior, world.config.seed)

    scores: dict[str, float] = {}
    if not len(trial):
        samples = find(world.student, every, len(world.everything), "all")
        return Rival(world.student, samples, held=samples)
    found = {}
    for widening in _WIDENINGS:
        student, stage = widened(world.student, widening), f"prior-{widening:g}"
        found[stage] = student, find(student, trial, n_train, stage)
    student, samples = found[max(found, key=lambda stage: scores[stage])]
    rival = Rival(student, samples, held=samples)
    if how.temperature:
        temperature = best_temperature(rival, held, world.units)
        rival = rival._replace(temperature=temperature)
    if len(every) > len(trial):
        rival = rival._replace(samples=find(student, every, len(world.everything), "all"))
    return rival


Climb = Callable[[Tensor, Batch, Tensor], Tensor]
"""``(position, batch, rows)`` to gradients of what is climbed, shape (chain, parameter).

Rows are the places of the batch's examples in what is learned from, shape (chain, example).
"""


def climbed(
    student: Student,
    training: TrainingSet,
    prior: Prior,
    settings: MapSettings,
    climb: Callable[[Sequence[torch.Generator]], Climb],
    *,
    n_chains: int,
    seed: int,
    path: Path | None,
) -> Tensor:
    """Networks trained by Adam on another gradient than that of the log posterior, kept in a file.

    Steps, batches and the schedule are those of `mtbkd.inference.modes.find_modes`.
    """
    if path is not None and path.exists():
        return load_tensors(path)["modes"]
    generators = chain_generators(seed, _STREAM, n_chains, training.labels.device)
    batches, gradient = Minibatches(training, prior, generators), climb(generators)
    n_steps = settings.epochs * -(-len(training) // settings.batch_size)
    size = min(settings.batch_size, len(training))
    rows = torch.zeros(n_chains, size, dtype=torch.long)

    def ascend(position: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return torch.zeros(n_chains), gradient(position, batch, rows)

    engine = map_engine.build(ascend, learning_rate=settings.learning_rate, n_steps=n_steps)
    state = engine.init(student.initial_position(generators), generators)
    for _ in range(n_steps):
        rows = torch.stack([torch.randint(len(training), (size,), generator=g) for g in generators])
        state, _ = engine.update(state, batches.at(rows), generators)
    if path is not None:
        save_tensors(path, {"modes": state.position})
    return state.position
