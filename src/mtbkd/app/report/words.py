"""How numbers and lists are written in a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

MISSING = "–"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number: not missing, not NaN, not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def percent(share: Any, digits: int = 1) -> str:
    r"""A share in per cent, its unit not broken off, or an en dash.

    Example:
        >>> percent(0.958)
        '95.8\xa0%'
    """
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%" if is_number(share) else MISSING


def number(value: Any, digits: int = 3) -> str:
    """A number with so many decimals, or an en dash.

    Example:
        >>> number(0.12345), number(None), number(float("nan"))
        ('0.123', '–', '–')
    """
    return f"{value:.{digits}f}" if is_number(value) else MISSING


def significant(value: Any, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent while that is short.

    Example:
        >>> significant(0.0002878), significant(57428.5), significant(2.0)
        ('0.000288', '57,400', '2.00')
    """
    if not is_number(value):
        return MISSING
    if value == 0:
        return "0"
    place = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, place):,.{min(max(place, 0), 7)}f}"


def count(value: Any) -> str:
    """A whole number with thousands separated, or an en dash.

    Example:
        >>> count(41290)
        '41,290'
    """
    return f"{int(value):,}" if is_number(value) else MISSING


def join(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    Example:
        >>> join(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def plural(noun: str) -> str:
    """More than one of it.

    Example:
        >>> plural("location"), plural("class"), plural("category")
        ('locations', 'classes', 'categories')
    """
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def shorten(text: str, length: int) -> str:
    """The text, or its start with an ellipsis.

    Example:
        >>> shorten("Endoplasmic reticulum", 12)
        'Endoplasmic…'
    """
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
