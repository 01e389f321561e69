"""What comes before the chains: the prior's numbers and modes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mtbkd.files import load_tensors, save_tensors
from mtbkd.inference import map as map_engine
from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.observation import Observation
from mtbkd.prior.mixture import warmed_concentration
from mtbkd.prior.settings import Prior
from mtbkd.student.finite import all_finite
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import Student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.types import InputError, Progress, Report, outside, refuse

_BATCH = 1024


def starting_modes(
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
    """`find_modes`, kept in a file and read from there the next time; None keeps them nowhere."""
    if path is not None and path.exists():
        return load_tensors(path)["modes"].to(training.labels.device)
    found = find_modes(
        student,
        training,
        prior,
        settings,
        n_chains=n_chains,
        seed=seed,
        progress=progress,
    )
    if path is not None:
        save_tensors(path, {"modes": found})
    return found


def mode_score(
    student: Student, modes: Tensor, inputs: Tensor, labels: Tensor, observation: Observation
) -> float:
    """Mean log score of labels under the mixture of the students at some modes, in nats.

    Args:
        student: Its frozen part is run.
        modes: Shape (chain, parameter).
        inputs: Shape (example, ...).
        labels: As the observation reads them.
        observation: How the family's labels are read and scored.
    """
    draws, total = student.natural(modes), 0.0
    with torch.no_grad():
        for start in range(0, len(labels), _BATCH):
            rows = slice(start, start + _BATCH)
            outputs = student.logits_each(draws, student.features(inputs[rows])).double()
            own = labels[rows].to(outputs.device)
            each = observation.log_likelihood(outputs, own.expand(len(modes), *own.shape))
            total += float((torch.logsumexp(each, 0) - math.log(len(modes))).sum())
    return total / len(labels)


def progress_of(report: Report | None, stage: str) -> Progress | None:
    """The progress of one stage."""
    return None if report is None else lambda done, total: report(stage, done, total)


_MAP_STREAM = 0
_MOST_STEPS, _FEWEST_EPOCHS = 25_000, 3


@dataclass(frozen=True)
class MapSettings:
    """How modes are found: passes over the data, examples per step, Adam's learning rate."""

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 0.02

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        refuse(
            *outside("epochs", self.epochs, 1e7, whole=True),
            *outside("batch_size", self.batch_size, whole=True),
            *outside("learning_rate", self.learning_rate, 1e3),
        )


def within_steps(settings: MapSettings, n_examples: int) -> MapSettings:
    """The same with fewer epochs where these would be more than 25,000 steps; three at least."""
    steps = math.ceil(n_examples / settings.batch_size)
    most = max(_MOST_STEPS // steps, _FEWEST_EPOCHS)
    return replace(settings, epochs=min(settings.epochs, most))


def find_modes(
    student: Student,
    data: TrainingSet,
    prior: Prior,
    settings: MapSettings,
    *,
    n_chains: int,
    seed: int,
    progress: Progress | None = None,
) -> Tensor:
    """Find one mode for each chain, with the concentration warmed up from 1.

    Returns:
        Positions, shape (chain, parameter).

    Raises:
        InputError: If they are not finite.
    """
    generators = chain_generators(seed, _MAP_STREAM, n_chains, data.labels.device)
    batches = Minibatches(data, prior, generators)
    steps_per_epoch = -(-batches.n_examples // settings.batch_size)
    n_steps = settings.epochs * steps_per_epoch
    gradient = posterior_gradient(student, batches.n_examples, prior, data.observation)
    if student.passage.in_turn:
        gradient = in_parts(gradient, work=student.work)
    engine = map_engine.build(gradient, learning_rate=settings.learning_rate, n_steps=n_steps)
    state = engine.init(student.initial_position(generators), generators)
    for step in range(n_steps):
        if step % steps_per_epoch == 0:
            batches.set_concentration(warmed_concentration(step / n_steps, prior.concentration))
            if progress is not None:
                progress(step, n_steps)
        state, _ = engine.update(state, batches(settings.batch_size), generators)
    if progress is not None:
        progress(n_steps, n_steps)
    for chain, mode in enumerate(state.position):
        if not all_finite(mode):
            raise InputError(
                f"Expected finite modes, but the search for that of chain {chain} diverged. Lower "
                "map.learning_rate, prior.power or prior.concentration."
            )
    return state.position
