"""Which of your examples are for training, calibration and test; groups stay together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.own import OwnConfig
from mtbkd.inputs.columns import Table
from mtbkd.teachers.folds import group_folds
from mtbkd.types import InputError, refuse

RowIndices = NDArray[np.int64]

SPLITS = ("train", "calibration", "test")
_SHARES = (0.6, 0.2)  # of the labelled examples, for training and for calibration
_FIFTHS = (3, 4)  # the first three of five folds are for training, the fourth for calibration


class Split(NamedTuple):
    """Rows of the file.

    Attributes:
        parts: Rows of training, calibration and test, in the order of the file.
        notes: What the user should know, in sentences.
    """

    parts: tuple[RowIndices, RowIndices, RowIndices]
    notes: tuple[str, ...] = ()


def groups_of(examples: Table, own: OwnConfig) -> RowIndices | None:
    """A number for each example, the same for those that stay together.

    These are the examples of one cell of the column of groups, and proteins of the same clean
    sequence that have no such cell. All others are alone.

    Returns:
        Shape (example,); None if there is neither a column of groups nor one of sequences.
    """
    if own.group is None and own.sequence is None:
        return None
    alone = examples.ids if own.sequence is None else examples.words(own.sequence)
    cells = [""] * len(alone) if own.group is None else examples.words(own.group)
    codes: dict[tuple[str, bool], int] = {}
    keys = [(cell, True) if cell else (one, False) for cell, one in zip(cells, alone, strict=True)]
    return np.array([codes.setdefault(key, len(codes)) for key in keys], np.int64)


def split_rows(
    examples: Table,
    own: OwnConfig,
    known: NDArray[np.bool_],
    groups: RowIndices | None,
    seed: int,
) -> Split:
    """Rows of training, calibration and test.

    Without a column of splits, the labelled examples are shuffled by seed; 60 % of them are for
    training, with all that have no label, 20 % for calibration and 20 % for the test. Where there
    are groups, these are shuffled, and examples without a label are left out if their group is for
    calibration or test.

    Raises:
        InputError: If a cell says something else, a label of calibration or test is missing, or
            there are too few groups.
    """
    if own.split is not None:
        return _given(examples, own, own.split, known, groups)
    if groups is not None:
        return _by_groups(examples, own, known, groups, seed)
    labelled = np.flatnonzero(known)
    mixed = np.random.default_rng([seed, 0]).permutation(labelled)
    ends = np.cumsum([round(share * len(mixed)) for share in _SHARES])
    train, calibration, test = (np.sort(part) for part in np.split(mixed, ends))
    return Split((np.sort(np.r_[train, np.flatnonzero(~known)]), calibration, test))


def _by_groups(
    examples: Table, own: OwnConfig, known: NDArray[np.bool_], groups: RowIndices, seed: int
) -> Split:
    n = len(np.unique(groups[known]))
    if n < 5:
        what = f"groups in column {own.group!r}" if own.group else "different sequences"
        raise InputError(
            f"Expected labelled examples of five {what} or more in {examples.path}, to split them, "
            f"but got {n}. Make smaller groups, or name a column of splits with own.split."
        )
    labelled = np.flatnonzero(known)
    folds = group_folds(groups[labelled].tolist(), 5, seed).numpy()
    place = np.digitize(folds, _FIFTHS)
    train, calibration, test = (labelled[place == i] for i in range(3))
    held = np.isin(groups, groups[np.r_[calibration, test]])
    rest = np.flatnonzero(~known & ~held)
    n_left = int((~known & held).sum())
    notes = (
        (
            f"{n_left} examples without a label are left out, as they share a "
            f"{'group' if own.group else 'sequence'} with examples of calibration or test.",
        )
        if n_left
        else ()
    )
    return Split((np.sort(np.r_[train, rest]), calibration, test), notes)


def _given(
    examples: Table,
    own: OwnConfig,
    column: str,
    known: NDArray[np.bool_],
    groups: RowIndices | None,
) -> Split:
    words = np.array(examples.words(column))
    faults = []
    strange = ~np.isin(words, SPLITS)
    if strange.any():
        row = int(strange.argmax())
        faults.append(
            f"Expected {', '.join(SPLITS)} in column {column!r} of {examples.path}, but got "
            f"{str(words[row])!r} for id {examples.ids[row]!r} ({strange.sum()} such). Correct it."
        )
    for name in SPLITS[1:]:
        lacking = (words == name) & ~known
        if lacking.any():
            row = int(lacking.argmax())
            faults.append(
                f"Expected a label of every example of the split {name} in {examples.path}, but "
                f"got none for id {examples.ids[row]!r} ({lacking.sum()} such). Add it, or move "
                "the example to train."
            )
    refuse(*faults)
    notes = ()
    if groups is not None:
        inside = groups[words == SPLITS[0]]
        shared = int((np.isin(groups, inside) & (words != SPLITS[0])).sum())
        what = "group" if own.group else "sequence"
        if shared:
            notes = (
                f"{shared} examples of calibration and test share a {what} with examples of "
                f"training in column {column!r}: scores will be too good.",
            )
    train, calibration, test = (np.flatnonzero(words == name) for name in SPLITS)
    return Split((train, calibration, test), notes)
