"""Words, pairs of words and four letters in a row, as numbers of buckets.

Nothing here is a loop over texts: all characters of a block are one array, and a word's hash is a
polynomial of its characters, so that a block is hashed by a few dozen operations on arrays, several
times as fast as strings one by one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

BUCKETS = 2**20

_SHIFT = np.uint64(64 - 20)
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, as the others: modulo 2**64 nothing is lost
_MIX, _PAIR = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_POWERS = np.cumprod(np.full(2**12, _BASE, np.uint64))  # of longer words the rest is an anagram
_WINDOW = 4
_SIGN, _LETTER = 1, 2
_LAST = 0x34000  # no letter is beyond
_BLOCK_TEXTS, _BLOCK_LETTERS = 4096, 2**20


def blocks(texts: Sequence[str]) -> Iterator[slice]:
    """Rows that are hashed together: 4,096 texts or a million characters, but one text or more."""
    start, size = 0, 0
    for row, text in enumerate(texts):
        if row > start and (row - start == _BLOCK_TEXTS or size + len(text) > _BLOCK_LETTERS):
            yield slice(start, row)
            start, size = row, 0
        size += len(text)
    yield slice(start, len(texts))


def hashed(texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The n-grams of texts: which text each is in, and its bucket, each (n-gram,).

    Letters are compared in lower case and compatible form (NFKC). A word is letters and digits
    without a space in between; any other sign is a word of its own. Four letters in a row may
    start or end with what is between words.

    Args:
        texts: Without the character NUL.
    """
    joined = unicodedata.normalize("NFKC", "\0".join(["", *texts, ""])).lower()
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    kinds = _kinds()[np.minimum(codes, _LAST)]
    rows = np.cumsum(codes == 0, dtype=np.int32) - 1
    letter = kinds == _LETTER
    new = kinds == _SIGN
    new[1:] |= letter[1:] & ~letter[:-1]
    starts = np.flatnonzero(new)
    if not len(starts):
        return np.empty(0, np.int32), np.empty(0, np.int32)
    signs = (codes + np.uint32(1)).astype(np.uint64)
    place = np.arange(len(codes)) - np.repeat(
        np.concatenate([[0], starts]), np.diff(starts, prepend=0, append=len(codes))
    )
    powers = _POWERS[np.minimum(place, len(_POWERS) - 1)]
    words = np.add.reduceat(np.where(kinds > 0, signs * powers, np.uint64(0)), starts)
    its_row = rows[starts]
    same = its_row[1:] == its_row[:-1]
    pairs = words[:-1][same] * _PAIR + words[1:][same]
    inside = np.flatnonzero(letter[1:-2] & letter[2:-1])
    signs = np.where(letter, signs, np.uint64(0))
    windows = np.full(len(inside), _MIX)
    for offset in range(_WINDOW):
        windows = windows * _BASE + signs[inside + offset]
    return (
        np.concatenate([its_row, its_row[1:][same], rows[inside + 1]]),
        np.concatenate([_bucket(words), _bucket(pairs), _bucket(windows)]),
    )


def _bucket(hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
    """High bits, on which all low ones have worked (as in MurmurHash's last step)."""
    mixed = (hashes ^ (hashes >> np.uint64(32))) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _BASE
    return (mixed >> _SHIFT).astype(np.int32)


@cache
def _kinds() -> NDArray[np.uint8]:
    """What each character is: 2 a letter or digit, 1 a sign that is seen, 0 neither."""
    characters = map(chr, range(_LAST))
    kinds = [_LETTER if c.isalnum() else _SIGN * c.isprintable() for c in characters]
    found = np.array([*kinds, _SIGN], np.uint8)
    found[ord(" ")] = 0
    return found
