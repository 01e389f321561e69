"""Teachers that a user's own code makes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.teachers.sklearn_estimator import from_sklearn
from mtbkd.teachers.torch_module import from_torch
from mtbkd.types import InputError


def from_factory(
    target: str,
    folder: Path | None = None,
    *,
    name: str | None = None,
    options: dict[str, Any] | None = None,
    **declared: Any,
) -> Teacher:
    """Import ``module:factory``, call it, and adapt what it returns.

    This runs code. It is called only with a string that stands in the configuration file that the
    user wrote and named on the command line, never with one from a run directory, a store of
    outputs, a download or anything else that others may have written.

    Args:
        target: Module and function, as ``package.module:function``.
        folder: Where the configuration file is; modules in it are found during the call only.
        name: What the teacher is called, if the factory does not return a `Teacher`.
        options: Passed to the factory by name.
        **declared: Passed to `adapt` if the factory does not return a `Teacher`.

    Raises:
        InputError: If there is no such function, or it fails, or returns no teacher.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise InputError(
            f"Expected a factory as 'module:function', but got {target!r}. Write both, with a "
            "colon between."
        )
    with nullcontext() if folder is None else _importable(folder):
        try:
            factory: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                factory = getattr(factory, part)
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            raise InputError(
                f"Expected to import the factory {target!r}, but got "
                f"{type(error).__name__}: {error}. Correct its name or the module."
            ) from error
        try:
            made = factory(**(options or {}))
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"Expected the factory {target!r} to return a teacher, but got "
                f"{type(error).__name__}: {error}. Mend it, or correct its options."
            ) from error
    if isinstance(made, Teacher):
        return made
    return adapt(name or attribute, made, **declared)


def adapt(name: str, thing: Any, **declared: Any) -> Teacher:
    """A teacher from a module, an estimator or a function.

    Args:
        name: What the teacher is called.
        thing: What to ask.
        **declared: As `from_torch`, `from_sklearn` or `from_callable` take it.

    Raises:
        InputError: If it is none of these, or if the declaration lacks something.
    """
    if isinstance(thing, nn.Module):
        make: Callable[..., Teacher] = from_torch
    elif hasattr(thing, "predict") and hasattr(thing, "fit"):
        make = from_sklearn
    elif callable(thing):
        make = from_callable
    else:
        raise InputError(
            f"Expected a module, an estimator or a function as teacher {name!r}, but got "
            f"{type(thing).__name__}. Return one of these, or a Teacher."
        )
    try:
        return make(name, thing, **declared)
    except TypeError as error:
        raise InputError(
            f"Expected a complete declaration of teacher {name!r}, but got: {error}. Give what "
            f"{make.__name__} takes."
        ) from None


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
