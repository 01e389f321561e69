"""Teachers that a user's own code makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from mtbkd.student.factory import call_factory
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

    This runs code, of which `mtbkd.student.factory.call_factory` tells.

    Args:
        target: Module and function, as ``package.module:function``.
        folder: Where the configuration file is; modules in it are found during the call only.
        name: What the teacher is called, if the factory does not return a `Teacher`.
        options: Passed to the factory by name.
        **declared: Passed to `adapt` if the factory does not return a `Teacher`.

    Raises:
        InputError: If there is no such function, or it fails, or returns no teacher.
    """
    made = call_factory(target, folder, "a teacher", **(options or {}))
    if isinstance(made, Teacher):
        return made
    return adapt(name or target.partition(":")[2], made, **declared)


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
