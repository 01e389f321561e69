"""What a user's mistake raises; without torch, so that the command line answers at once."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 100


class InputError(ValueError):
    """What the user gave is wrong; ``faults`` holds one message for each fault.

    Each message reads "Expected *what*, but got *value*. *What to do.*" and names the id, class,
    key or file. The command line prints them without a traceback and exits with code 2.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names what is spelt most alike, with a space before it, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name[:_SHOWN], list(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """A value as a message quotes it: as Python writes it, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
