"""What is confused with what, in words."""

from __future__ import annotations

import numpy as np

from mtbkd.app.report.by_class import largest, lost
from mtbkd.app.report.words import join
from mtbkd.types import Floats, Ints

FEWEST = 10
"""Examples that a class must have to be judged by itself."""


def confusion_sentences(counts: Ints, names: tuple[str, ...], most: int = 3) -> list[str]:
    """The largest confusions, and the classes that are taken for another rather than themselves.

    Args:
        counts: Shape (true, said).
        names: Names of the classes.
        most: How many of either are named.
    """
    found = [
        f"{names[c.true]} taken for {names[c.said]} ({c.n:,} of {counts[c.true].sum():,} examples)"
        for c in largest(counts, most)
    ]
    if not found:
        return ["Nothing is confused: every answer is right."]
    gone = sorted(lost(counts, FEWEST), key=lambda c: -c.n)
    sentences = [f"The largest confusion{'s are' if len(found) > 1 else ' is'} {join(found)}."]
    sentences += [
        f"{names[c.true]} is taken for {names[c.said]} more often than for itself ({c.n:,} against "
        f"{counts[c.true, c.true]:,} of {counts[c.true].sum():,} examples)."
        for c in gone[:most]
    ]
    return sentences


def spill_sentences(shares: Floats, names: tuple[str, ...], most: int = 3) -> list[str]:
    """Where most probability goes to a label that is not true.

    Args:
        shares: As `mtbkd.app.report.by_class.spill` gives them, shape (true, label).
        names: Names of the labels.
        most: How many pairs are named.
    """
    off = np.nan_to_num(shares)
    np.fill_diagonal(off, 0.0)
    pairs = [divmod(at, len(off)) for at in np.argsort(-off, axis=None, kind="stable")[:most]]
    found = [f"{names[i]} to {names[j]} ({off[i, j]:.2f} on average)" for i, j in pairs]
    return [f"Most probability spills over from {join(found)}."]
