"""What a command that makes a run is asked for: its options, and the configuration they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Signature, signature
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any

import typer

from mtbkd.errors import InputError, shown

_MOST_ROWS = 10**9


Baselines = Annotated[
    str | None, typer.Option(help="none, fast (the strongest alone) or all, which is the default.")
]
More = Annotated[
    str | None, typer.Option(help="Go on with a finished run for so long, such as 5min.")
]
Network = Annotated[
    str | None,
    typer.Option(
        help="Run the network of your own that a run directory names, as module:function, from "
        "the working directory.",
    ),
]


@dataclass(frozen=True)
class Asked:
    """What a command that makes a run is asked for, as its options."""

    target: Annotated[
        str, typer.Argument(help="A recipe's name, a config file, or a run directory.")
    ]
    out: Annotated[
        Path | None, typer.Option(help="The run directory; runs/NAME-SEED by default.")
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override: prior.concentration=5, prior=paper."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None
    network: Network = None


def with_options(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose first parameter is this dataclass, with an option for each field."""

    def spread_over(command: Callable[..., None]) -> Callable[..., None]:
        fields = signature(kind, eval_str=True).parameters
        _, *others = signature(command, eval_str=True).parameters.values()
        options = [*fields.values(), *others]

        def spread(**given: Any) -> None:
            command(kind(**{name: given.pop(name) for name in fields}), **given)

        spread.__name__, spread.__doc__ = command.__name__, command.__doc__
        spread.__annotations__ = {option.name: option.annotation for option in options}
        spread.__signature__ = Signature(options)  # type: ignore[attr-defined]
        return spread

    return spread_over


makes_a_run = with_options(Asked)
"""A command whose first parameter is an `Asked`, with an option for each of its fields."""


def meant(asked: Asked, **settings: object) -> tuple[Any, Path, bool]:
    """The configuration and folder that a command means, and whether code it names may be run."""
    from mtbkd.app.config.run import build_config, load_config
    from mtbkd.app.folder import read_run
    from mtbkd.app.recipes import find_recipe
    from mtbkd.student.devices import find_device

    given = {"seed": asked.seed} | settings
    more = [f"{name}={value}" for name, value in given.items() if value is not None]
    changes = [*(asked.overrides or []), *more]
    path = Path(asked.target)
    if isfile(path / "config.yaml"):
        if changes or asked.out is not None:
            raise InputError(
                "Expected a run directory alone, to go on with it, but got changes "
                "too. Start a new run from the recipe or a config file."
            )
        return read_run(path, network=asked.network), path, False
    if path.suffix in (".yaml", ".yml"):
        config = load_config(path, changes)
        find_recipe(config.recipe)
    else:
        config = build_config(find_recipe(asked.target).defaults, changes)
    if asked.network is not None:
        raise InputError(
            "Expected --network with a run directory, but got it with a configuration, which names "
            "the network itself. Leave it out."
        )
    if not _is_stored(path):
        config = config.with_code(path.parent)
    find_device(config.device)
    name = path.stem if config.own else config.recipe
    return config, asked.out or Path("runs") / f"{name}-{config.seed}", not _is_stored(path)


def _is_stored(path: Path) -> bool:
    """Whether this file is the configuration that a run directory holds."""
    beside = ("teachers", "samples", "manifest.json", "examples.json")
    return path.name == "config.yaml" and any((path.parent / name).exists() for name in beside)


def check_labelling(given: dict[str, Any], labels: bool, recipe: str) -> None:
    """Refuse options of labelling that mean nothing, or come with a recipe that labels nothing."""
    if given and not labels:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(
            f"Expected {named} with the recipe own only, but got it with {recipe}, "
            "whose teachers are built in. Leave it out."
        )
    faults = [
        f"Expected --{name.replace('_', '-')} above 0 and at most {_MOST_ROWS:,}, but got "
        f"{given[name]}. Correct it."
        for name in ("shard_rows", "batch_size")
        if not 0 < given.get(name, 1) <= _MOST_ROWS
    ]
    if given.get("dtype", "float32") not in ("float32", "float16"):
        faults.append(
            f"Expected --dtype float32 or float16, but got {shown(given['dtype'])}. Choose one."
        )
    share = given.get("most_failures", 0)
    if not 0 <= share <= 1:
        faults.append(
            f"Expected --most-failures from 0 to 1, but got {share}. Give a share of the rows."
        )
    if faults:
        raise InputError(*faults)
