"""What a comparison is asked for: its cells, and about how long they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mtbkd.app.bench.cells import Order, read_cell
from mtbkd.app.bench.methods import METHODS
from mtbkd.app.bench.stress import NONE, STRESSES
from mtbkd.app.bench.tasks import TASKS, label_of, task_of
from mtbkd.errors import did_you_mean, shown
from mtbkd.types import refuse

_STRESSED = "digits"
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        orders: Its worlds, each with the methods that are wanted there.
        out: Its folder.
    """

    orders: tuple[Order, ...]
    out: Path


@dataclass(frozen=True)
class Wanted:
    """What a user asks for; what is None is left to the size of the comparison.

    Attributes:
        tasks: Names, or configurations.
        methods: Names.
        stress: Names.
        seeds: Numbers.
        changes: Settings of every task, as ``key=value``.
        full: All tasks, under every stress where that is asked of one, with five seeds; else two
            small tasks with two seeds.
    """

    tasks: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    stress: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    changes: tuple[str, ...] = ()
    full: bool = False


def make_plan(wanted: Wanted, out: Path) -> Plan:
    """The cells that are asked for.

    Raises:
        InputError: With one message for each name that is not known.
    """
    methods, stress = wanted.methods or tuple(METHODS), wanted.stress
    faults = [
        *_unknown("methods", methods, METHODS),
        *_unknown("stress", stress or (), STRESSES),
    ]
    refuse(*faults)
    seeds = wanted.seeds or tuple(range(5 if wanted.full else 2))
    tasks = wanted.tasks or (tuple(TASKS) if wanted.full else ("digits", "diabetes"))
    labels = [label_of(task) for task in tasks]
    if len(set(labels)) < len(labels):
        refuse(
            f"Expected tasks of different names, but got {', '.join(labels)}. Rename a "
            "configuration, or leave one out."
        )
    if stress is None:
        hard = tuple(STRESSES) if wanted.full else (NONE,)
        pairs = [(t, s) for t in tasks for s in (hard if t == _STRESSED else (NONE,))]
    else:
        pairs = list(product(tasks, stress))
    for task in tasks:
        task_of(task)
    orders = [
        Order(task, own, seed, methods, wanted.changes, out)
        for seed, (task, own) in product(seeds, pairs)
    ]
    return Plan(tuple(orders), out)


def read_numbers(text: str) -> tuple[int, ...]:
    """Seeds, such as ``0,1,2`` or ``0-4``.

    Example:
        >>> read_numbers("0-2,7")
        (0, 1, 2, 7)
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            refuse(f"Expected --seeds as 0,1,2 or 0-4, but got {shown(text)}. Correct it.")
        found += range(int(first), int(last if dash else first) + 1)[:_MOST_SEEDS]
    return tuple(dict.fromkeys(found))


def seconds_left(orders: Iterable[Order]) -> float:
    """CPU seconds that the missing cells take, about.

    What a method took on a task before counts, if there is a cell of it; else what is known of the
    task on the machine that these numbers were measured on.
    """
    known: dict[tuple[str, str], float] = {}
    left: list[tuple[str, str]] = []
    for order in orders:
        for method in order.methods:
            pair, path = (order.task, method), order.cell(method)
            if path.exists():
                known[pair] = read_cell(path).get("cost", {}).get("cpu_seconds", 0.0)
            else:
                left.append(pair)
    return sum(
        known.get((task, name), task_of(task).seconds * METHODS[name].cost) for task, name in left
    )


def _unknown(what: str, given: Sequence[str], known: dict[str, object] | object) -> list[str]:
    names = list(known)  # type: ignore[call-overload]
    return [
        f"Expected {what} among {', '.join(names)}, but got {shown(one)}. Correct "
        f"it.{did_you_mean(one, names)}"
        for one in given
        if one not in names
    ]
