"""The tasks of the comparison, and a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtbkd.app.config.run import RunConfig, build_config, load_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Labelling, Recipe
from mtbkd.types import InputError

_UNKNOWN = 100.0  # CPU seconds, of a configuration that nothing is known of


@dataclass(frozen=True)
class BenchTask:
    """A task.

    Attributes:
        recipe: Its recipe.
        settings: What is set beside the recipe's defaults.
        seconds: CPU seconds of training ours, about, on one core of 2024.
        shape: Rows and columns of an image, where inputs are pixels in 0-1.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    seconds: float = _UNKNOWN
    shape: tuple[int, int] | None = None


TASKS: dict[str, BenchTask] = {
    "digits": BenchTask("digits", seconds=80, shape=(8, 8)),
    "two-sources": BenchTask("two-sources", seconds=80, shape=(8, 8)),
    "diabetes": BenchTask("diabetes", seconds=30),
    "synthetic": BenchTask("synthetic"),
    "overlay": BenchTask("overlay", seconds=300, shape=(8, 14)),
    "deeploc": BenchTask("deeploc", seconds=300),
    "deeploc-apart": BenchTask("deeploc", ("scenario=apart-0",), 300),
    "deeploc-multilabel": BenchTask("deeploc-multilabel", ("scenario=tiny",), 300),
    "news": BenchTask("news", seconds=300),
    "cifar10h": BenchTask("cifar10h", seconds=600),
}
"""By name. The first three need nothing, the last five public data (docs/data.md)."""


def is_own(name: str) -> bool:
    """Whether a task is a user's own configuration."""
    return name.endswith((".yaml", ".yml"))


def task_of(name: str) -> BenchTask:
    """The task of this name; of a configuration, what little is known of it.

    Raises:
        InputError: If there is none.
    """
    if is_own(name):
        return BenchTask("own")
    if name not in TASKS:
        raise InputError(
            f"Expected tasks among {', '.join(TASKS)}, or a configuration as my.yaml, but got "
            f"{name!r}. Correct it."
        )
    return TASKS[name]


def label_of(name: str) -> str:
    """What a task is called in folders and tables."""
    return Path(name).stem if is_own(name) else name


def config_of(name: str, seed: int, changes: Sequence[str]) -> tuple[Recipe, RunConfig, Labelling]:
    """The recipe, the configuration under a seed, and how its teachers are asked.

    Raises:
        InputError: If the configuration is wrong.
    """
    task = task_of(name)
    every = [*task.settings, "baselines=none", *changes, f"seed={seed}"]
    if is_own(name):
        config = load_config(Path(name), every).with_code(Path(name).parent)
        return find_recipe(config.recipe), config, Labelling(may_run_code=True)
    recipe = find_recipe(task.recipe)
    return recipe, build_config(recipe.defaults, every), Labelling()
