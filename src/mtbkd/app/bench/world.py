"""What all methods of a comparison share: examples, teachers, a network, updates, the pool."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Recipe, Task
from mtbkd.app.run.scoring import teacher_scores
from mtbkd.app.run.stages import learned, network
from mtbkd.data import Dataset
from mtbkd.distillation.choose import choose_prior, choose_units, choose_weighting
from mtbkd.distillation.trials import Trials
from mtbkd.files import AGAIN, read_sealed, save_sealed
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.settings import Prior
from mtbkd.student.student import Student, make_student
from mtbkd.training import TrainingSet, behind, training_set
from mtbkd.types import InputError, quiet
from mtbkd.weights.rules import Weighting

_UNIFORM = Weighting("uniform")


@dataclass(frozen=True)
class World:
    """One task under one stress with one seed.

    Attributes:
        recipe: Builds the network.
        config: What every method has in common: the network, updates, chains, the seed.
        task: Its examples, after the stress.
        read: The same examples behind the network's frozen part.
        teachers: What they say on all examples, after the stress.
        reader: The network, whose frozen part makes of inputs what its head reads.
        student: The network, without its frozen part.
        weighting: How the pool weighs the teachers, as ours does.
        units: Units of real-valued targets.
        prior: What a teacher is worth; what is ``auto`` was chosen by modes on calibration labels.
        pool_seconds: CPU seconds that fitting the pool and choosing the prior took.
        out: The folder of this world.
    """

    recipe: Recipe
    config: RunConfig
    task: Task
    read: Task
    teachers: TeacherOutputs
    reader: Student
    student: Student
    weighting: Weighting
    units: Units | None
    prior: Prior
    pool_seconds: float
    out: Path

    @property
    def everything(self) -> Dataset:
        """All that is learned from in the end: training examples, and calibration ones too."""
        return learned(self.config, self.read)

    @property
    def held(self) -> Dataset:
        """Labelled calibration examples, as the head reads them."""
        calibration = self.read.calibration
        return calibration.subset(calibration.known.nonzero()[:, 0])

    def lesson(self, data: Dataset, weighting: Weighting | None = None) -> TrainingSet:
        """What examples teach under these weights; those of the pool, if none are given."""
        own = self.weighting if weighting is None else weighting
        return training_set(self.student, data, self.teachers, own, units=self.units)

    def lesson_of(self, teacher: int, data: Dataset) -> TrainingSet:
        """What one teacher alone teaches on examples."""
        return training_set(
            self.student, data, self.alone(teacher), _UNIFORM, units=self._unit_of(teacher)
        )

    def alone(self, teacher: int) -> TeacherOutputs:
        """What one teacher says."""
        all_, which = self.teachers, slice(teacher, teacher + 1)
        return replace(
            all_,
            names=all_.names[which],
            values=all_.values[which],
            mask=all_.mask[which],
            blocks=None if all_.blocks is None else all_.blocks[which],
            kept=None if all_.kept is None else all_.kept[which],
            totals=None if all_.totals is None else all_.totals[which],
        )

    def best_teacher(self) -> int:
        """The teacher with the best log score on the calibration labels."""
        held = self.held
        scores = teacher_scores(self.teachers.at(held.ids), held.labels, self.units)
        best = min(scores, key=lambda name: scores[name]["nll"] or 0.0)
        return self.teachers.names.index(best)

    def _unit_of(self, teacher: int) -> Units | None:
        own = self.units
        return own and replace(own, spread=own.spread[teacher : teacher + 1])


def make_world(
    recipe: Recipe, config: RunConfig, task: Task, teachers: TeacherOutputs, out: Path
) -> World:
    """Fit the pool once, and split the network as `mtbkd.distill` does.

    Raises:
        InputError: If the network cannot read the examples.
    """
    if not task.calibration.n_labelled:
        raise InputError(
            f"Expected calibration labels of {task.name} for rivals to be tuned on, but got none. "
            "Label some, or enlarge their share."
        )
    own = make_student(
        network(recipe, config, task.train.inputs, task.train.classes, task.train.family),
        sampled=config.student.sampled or "*",
        weight_scale=config.student.weight_scale,
        example=task.train.inputs[:2],
    )
    read = replace(
        task,
        train=behind(own, task.train, out),
        calibration=behind(own, task.calibration, out),
        test=behind(own, task.test, out),
        others={name: behind(own, other, out) for name, other in task.others.items()},
    )
    begun, pool, head = process_time(), out / "pool", replace(own, frozen=None)
    cost = pool / "seconds.json"
    units = choose_units(read.train, teachers, read.calibration, pool)
    weighting = choose_weighting(
        config.prior.weights, read.train, teachers, read.calibration, pool, units
    )
    trials = Trials(
        student=head,
        training=training_set(head, read.train, teachers, weighting, units=units),
        modes=config.modes(len(read.train)),
        calibration=read.calibration,
        units=units,
        seed=config.seed,
        out=pool,
        report=quiet,
    )
    prior = choose_prior(config.prior, trials)
    if not cost.exists():
        save_sealed(cost, {"cpu_seconds": round(process_time() - begun, 3)})
    return World(
        recipe=recipe,
        config=config,
        task=task,
        read=read,
        teachers=teachers,
        reader=own,
        student=head,
        weighting=weighting,
        units=units,
        prior=prior,
        pool_seconds=read_sealed(cost, AGAIN, "cpu_seconds")["cpu_seconds"],
        out=out,
    )
