"""Functions in a user's own file: found, called, and what they return checked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtbkd.types import InputError


def call_factory(target: str, folder: Path | None, what: str, *given: Any, **named: Any) -> Any:
    """Import ``module:function`` and call it.

    This runs code. It is called only with a string that stands in the configuration file that the
    user wrote and named on the command line, or that the user wrote there, never with one from a
    run directory, a store of outputs, a download or anything else that others may have written.

    Args:
        target: Module and function, as ``package.module:function``.
        folder: Where the module may be; modules in it are found during the call only.
        what: What it returns, for messages: "a teacher".
        *given: What the function is given.
        **named: The same by name.

    Raises:
        InputError: If there is no such function, or it fails.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise InputError(
            f"Expected a factory as 'module:function', but got {target!r}. Write both, with a "
            "colon between."
        )
    with nullcontext() if folder is None else _importable(folder):
        try:
            factory: Callable[..., Any] = importlib.import_module(module_name)  # type: ignore[assignment]
            for part in attribute.split("."):
                factory = getattr(factory, part)
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            raise InputError(
                f"Expected to import the factory {target!r}, but got "
                f"{type(error).__name__}: {error}. Correct its name or the module."
            ) from error
        try:
            return factory(*given, **named)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"Expected the factory {target!r} to return {what}, but got "
                f"{type(error).__name__}: {error}. Mend it, or correct its options."
            ) from error


def network_from(target: str, folder: Path, example: Tensor, n_outputs: int) -> nn.Module:
    """A user's own network: the function is given the shape of an example and ``n_outputs``.

    Weights that it makes at random are the same each time; the global random state is as before
    afterwards.

    Args:
        target: ``module:function``, see `call_factory`.
        folder: Where the module may be.
        example: Inputs, shape (example, ...).
        n_outputs: Numbers that the network has to return for each example.

    Raises:
        InputError: If there is no such function, or it fails, or returns no such network.
    """
    state = torch.get_rng_state()
    torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
    try:
        made = call_factory(target, folder, "a network", tuple(example.shape[1:]), n_outputs)
    finally:
        torch.set_rng_state(state)
    if not isinstance(made, nn.Module):
        raise InputError(
            f"Expected the factory {target!r} to return a torch.nn.Module, but got "
            f"{type(made).__name__}. Return the network."
        )
    one, made = example[:1], made.eval()
    try:
        with torch.inference_mode():
            try:
                found = made(one)
            except Exception:
                if one.is_floating_point():
                    raise
                found = made(one.float())  # as a student reads whole numbers then
            shape = tuple(found.shape)
    except Exception as error:  # whatever the user's network raises
        raise InputError(
            f"Expected the network of {target!r} to take {example.dtype} of shape "
            f"{tuple(one.shape)}, but got {type(error).__name__}: {error}. Mend it."
        ) from error
    if shape != (len(example[:1]), n_outputs):
        raise InputError(
            f"Expected the network of {target!r} to return shape {(1, n_outputs)} for one "
            f"example, but got {shape}. Give its last layer {n_outputs} outputs."
        )
    return made


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
