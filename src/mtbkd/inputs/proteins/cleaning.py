"""Sequences of letters as biologists write them, to residues; what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_KNOWN = 0.2
"""Share of a protein's residues that must not be X, B, Z or J."""

_SHORTEST_NUCLEOTIDES = 20
_NUCLEOTIDE_SHARE = 0.95
_EACH_BASE = 0.05
_NO_RESIDUE = re.compile(r"[^A-Za-z]")


@dataclass(frozen=True)
class Cleaned:
    """Sequences as read, cleaned.

    Attributes:
        sequences: In upper case, without spaces, gaps and stops at the end.
        notes: One sentence for each kind of change.
        faults: One message for each sequence, or kind, that is no protein.
    """

    sequences: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...]


def clean(ids: Sequence[str], sequences: Sequence[str], source: str) -> Cleaned:
    """Spaces and gaps go, lower case becomes upper, a stop at the end goes; the rest is judged.

    Residues are counted from 1 in the sequence without spaces and gaps. All 26 letters are
    residues: the 20 amino acids, U and O, and B, Z, J and X for those that are not known exactly.
    """
    faults: list[str] = []
    nucleotides: list[str] = []
    found: list[str] = []
    lower = gaps = stops = 0
    for name, written in zip(ids, sequences, strict=True):
        text = "".join(written.split())
        upper = text.upper() if text.isascii() else text
        lower += upper != text
        bare = upper.replace("-", "").replace(".", "")
        gaps += len(bare) != len(upper)
        residues = bare.rstrip("*")
        stops += len(residues) != len(bare)
        found.append(residues)
        if fault := _fault(name, residues, source):
            faults.append(fault)
        elif _looks_like_nucleotides(residues):
            nucleotides.append(name)
    if nucleotides:
        faults.insert(0, _nucleotide_fault(nucleotides, len(found), source))
    told = (
        (lower, "lower-case letters, read as upper case"),
        (gaps, "gaps ('-' or '.'), dropped"),
        (stops, "a stop codon '*' at the end, dropped"),
    )
    notes = tuple(f"{n} of {len(found)} sequences had {what}." for n, what in told if n)
    return Cleaned(tuple(found), notes, tuple(faults))


def shown(names: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + rest


def _fault(name: str, residues: str, source: str) -> str | None:
    """What is wrong with one protein."""
    if not residues:
        return (
            f"Expected residues in {source}, but the sequence of {name!r} is empty. Fill it in or "
            "remove it."
        )
    if odd := _NO_RESIDUE.search(residues):
        place = f"at residue {odd.start() + 1} of {name!r}"
        if odd[0] == "*":
            return (
                f"Expected proteins in {source}, but got an inner stop codon '*' {place}. "
                "Translate the right frame, or cut the sequence there."
            )
        return (
            f"Expected one-letter residues in {source}, but got {odd[0]!r} {place}. Remove it, or "
            "write X for what is not known."
        )
    vague = sum(map(residues.count, "XBZJ"))
    if len(residues) - vague < FEWEST_KNOWN * len(residues):
        return (
            f"Expected at least {FEWEST_KNOWN:.0%} known residues in {source}, but {vague} of the "
            f"{len(residues)} of {name!r} are X, B, Z or J. Remove this protein."
        )
    return None


def _looks_like_nucleotides(residues: str) -> bool:
    """Nearly only A, C, G, T, U and N, and each base often enough.

    Silk (GAGA...) or an antifreeze protein (AATAAT...) lacks at least one of the four.
    """
    if len(residues) < _SHORTEST_NUCLEOTIDES:
        return False
    a, c, g, t, u, n = map(residues.count, "ACGTUN")
    return a + c + g + t + u + n >= _NUCLEOTIDE_SHARE * len(residues) and min(
        a, c, g, t + u
    ) >= _EACH_BASE * len(residues)


def _nucleotide_fault(names: list[str], n: int, source: str) -> str:
    every = len(names) == n
    which = f"all {n} sequences" if every and n > 1 else f"the sequence of {shown(names)}"
    verb = "look" if every and n > 1 else "looks"
    if len(names) > 1 and not every:
        which, verb = f"{len(names)} of {n} sequences ({shown(names)})", "look"
    return (
        f"Expected proteins in {source}, but {which} {verb} like DNA or RNA. Translate to protein "
        "first."
    )
