"""What a user's mistake raises; without torch, so that the command line answers at once."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

_SHOWN = 100


class InputError(ValueError):
    """What the user gave is wrong; ``faults`` holds one message for each fault.

    Each message reads "Expected *what*, but got *value*. *What to do.*" and names the id, class,
    key or file. The command line prints them without a traceback and exits with code 2.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def collect(faults: list[str], make: Callable[[], Any]) -> Any:
    """What this makes, or None, its faults added to the others."""
    try:
        return make()
    except InputError as error:
        faults += error.faults
        return None


def need(module: str, extra: str) -> ModuleType:
    """Import an optional library.

    Raises:
        InputError: If it is not installed, naming the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"Expected {module} to be installed, but got: {error}. Run: "
            f"pip install 'mtbkd[{extra}]'"
        ) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names what is spelt most alike, with a space before it, or nothing."""
    from difflib import get_close_matches

    folded = {one.casefold(): one for one in known}
    near = get_close_matches(name[:_SHOWN].casefold(), folded, 1)
    return f" Did you mean {folded[near[0]]!r}?" if near else ""


def shown(value: object) -> str:
    """A value as a message quotes it: as Python writes it, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
