"""Cells: one method on one task under one stress with one seed, each a small sealed file."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from mtbkd.app.bench.answers import Fitted
from mtbkd.app.bench.judging import judge, judge_elsewhere, judge_sets
from mtbkd.app.bench.methods import METHODS
from mtbkd.app.bench.methods.base import Method
from mtbkd.app.bench.stress import NONE, PLAIN_OUTPUTS, STRESSES, shifted
from mtbkd.app.bench.tasks import config_of, label_of, task_of
from mtbkd.app.bench.world import World, make_world
from mtbkd.app.folder import open_run
from mtbkd.app.run import stages
from mtbkd.app.run.costs import metered, training_seconds
from mtbkd.errors import need
from mtbkd.files import AGAIN, read_sealed, save_sealed
from mtbkd.types import InputError, Report, quiet

_TIMED = 128


@dataclass(frozen=True)
class Order:
    """One world, and the methods that are wanted in it.

    Attributes:
        task: A name, or a configuration of the user.
        stress: What is done to it.
        seed: Seed of everything random.
        methods: By name.
        changes: What is set beside the task's own settings, as ``key=value``.
        out: The folder of the comparison.
    """

    task: str
    stress: str
    seed: int
    methods: tuple[str, ...]
    changes: tuple[str, ...]
    out: Path

    @property
    def place(self) -> str:
        """Where its files lie, within the folder of worlds and that of cells."""
        return f"{label_of(self.task)}/{self.stress}/{self.seed}"

    def cell(self, method: str) -> Path:
        """The file of one method."""
        return self.out / "cells" / self.place / f"{method}.json"


def read_cell(path: Path) -> dict[str, Any]:
    """What `carry_out` wrote.

    Raises:
        InputError: If it was changed.
    """
    return read_sealed(path, AGAIN, "task", "stress", "seed", "method", "settings")


def settings_of(order: Order) -> str:
    """A hash of what a cell was made with."""
    _, config, _ = config_of(order.task, order.seed, order.changes)
    return hashlib.sha256(config.to_yaml().encode()).hexdigest()[:16]


def missing(order: Order) -> tuple[str, ...]:
    """Methods whose cells are still to be made.

    Raises:
        InputError: If one that is there was changed, or made with other settings.
    """
    digest, wanted = settings_of(order), []
    for method in order.methods:
        path = order.cell(method)
        if not path.exists():
            wanted.append(method)
        elif read_cell(path)["settings"] != digest:
            raise InputError(
                f"Expected cells of the same settings in {order.out}, but {path} was made with "
                "others. Choose another --out, or delete it."
            )
    return tuple(wanted)


def carry_out(order: Order, report: Report = quiet) -> list[str]:
    """Make the cells that are missing; returns what was left out, a sentence for each."""
    torch.set_num_threads(1)
    left_out, wanted = [], []
    for name in missing(order):
        needs = METHODS[name].needs
        try:
            if needs is not None:
                need(*needs)
            wanted.append(name)
        except InputError as error:
            left_out.append(f"{name} is left out. {error.faults[0]}")
    if not wanted:
        return left_out
    try:
        world = _world(order, report)
    except InputError as error:
        return [*left_out, *(f"{order.place} is left out. {fault}" for fault in error.faults)]
    digest = settings_of(order)
    for name in wanted:
        cell = {
            "task": label_of(order.task),
            "family": world.task.test.family,
            "stress": order.stress,
            "seed": order.seed,
            "method": name,
            "settings": digest,
        }
        save_sealed(order.cell(name), cell | _measured(METHODS[name], name, world, order, report))
    return left_out


def _world(order: Order, report: Report) -> World:
    out = order.out / "worlds" / order.place
    recipe, config, labelling = config_of(order.task, order.seed, order.changes)
    open_run(out, config)
    task = stages.load(recipe, config, out, report)
    teachers, _ = stages.teach(recipe, config, task, out, replace(labelling, report=report))
    gaps = teachers.blocks is not None or teachers.kept is not None
    if gaps and order.stress in PLAIN_OUTPUTS:
        raise InputError(
            f"Expected teachers that answer about every class for the stress {order.stress}, but "
            f"got others in {order.task}. Leave it out."
        )
    chance = torch.Generator().manual_seed(order.seed)
    task, teachers = STRESSES[order.stress](task, teachers, chance)
    return make_world(recipe, config, task, teachers, out)


def _measured(
    method: Method, name: str, world: World, order: Order, report: Report
) -> dict[str, Any]:
    """Scores and costs, or why there are none."""
    folder = world.out / "methods" / (method.folder or name)
    if world.task.test.family not in method.families:
        return {"refused": "It does not predict this."}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        begun = process_time()
        try:
            fitted = method.fit(world, folder, metered(folder, report))
        except InputError as error:
            return {"refused": " ".join(error.faults)}
        spent = max(process_time() - begun, sum(training_seconds(folder).values()))
        judged = dict(_judged(fitted, world, order))
    if fitted.cpu_seconds is not None:
        spent = fitted.cpu_seconds
    some = world.read.test.inputs[:_TIMED]
    begun = perf_counter()
    fitted.answer(some)
    milliseconds = 1000 * (perf_counter() - begun) / len(some)
    return {
        "judged": judged,
        "cost": {
            "cpu_seconds": round(spent + method.pool * world.pool_seconds, 3),
            "parameters": fitted.parameters,
            "multiply_adds": fitted.multiply_adds,
            "milliseconds": milliseconds,
        },
        "warnings": sorted({str(one.message) for one in told}),
    }


def _judged(fitted: Fitted, world: World, order: Order) -> Iterator[tuple[str, Any]]:
    """Scores by what is judged on: test examples first, then what has happened to them."""
    yield "test", judge(fitted, world, world.read.test) | judge_sets(fitted, world)
    if order.stress != NONE:
        return
    for name, numbers in judge_elsewhere(fitted, world).items():
        yield f"elsewhere: {name}", numbers
    for name, data in shifted(world.task.test, task_of(order.task).shape, order.seed).items():
        read = replace(data, inputs=world.reader.features(data.inputs).cpu())
        yield name, judge(fitted, world, read)
