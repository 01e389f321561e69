"""Which columns of your examples hold what: ids, labels, features and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtbkd.app.config.own import OwnConfig
from mtbkd.app.recipes.own.examples import OwnExamples, numeric_columns, read_examples
from mtbkd.types import MISSING_WORDS, InputError


def read_own(own: OwnConfig) -> OwnExamples:
    """The file of examples; labels, splits, groups and what is read as text stay text.

    Raises:
        InputError: If it cannot be read, or its ids are not what they should be.
    """
    text = [*text_columns(own), *(c for c in (own.split, own.group) if c is not None)]
    text += own.targets if own.family == "classification" else []
    return read_examples(Path(own.folder) / own.examples, own.id, text)


def text_columns(own: OwnConfig) -> list[str]:
    """The sequences first, then what teachers read as text."""
    reads = [t.reads for t in own.teachers.values() if isinstance(t.reads, str)]
    return list(dict.fromkeys([*([own.sequence] if own.sequence else []), *reads]))


def columns_of(examples: OwnExamples, own: OwnConfig, text: Sequence[str]) -> list[str]:
    """The numeric columns that the student reads.

    Raises:
        InputError: If there are none.
    """
    taken = {own.id, own.split, own.group, *own.targets, *text}
    found = own.features or [c for c in numeric_columns(examples.table) if c not in taken]
    if not found:
        raise InputError(
            f"Expected numeric columns for the student in {examples.path}, but got none. Add them, "
            "for instance the features of an encoder; of proteins, name the column of sequences "
            "with own.sequence."
        )
    return found


def labels_of(examples: OwnExamples, own: OwnConfig) -> Any:
    """Names of classes, or numbers of shape (example, label); "" or NaN where missing.

    Raises:
        InputError: With one message for each column that is not there or holds something else.
    """
    if own.family == "classification":
        return examples.words(own.targets[0])
    faults: list[str] = []
    columns = [collect(faults, lambda c=c: examples.numbers(c, missing=True)) for c in own.targets]
    if faults:
        raise InputError(*faults)
    return np.stack([column for column in columns if column is not None], 1)


def classes_of(own: OwnConfig, labels: Any) -> tuple[str, ...]:
    """The classes that are named, else those found, sorted; or the columns of labels."""
    if own.family != "classification":
        return tuple(own.targets)
    if own.classes is not None:
        return tuple(own.classes)
    found = {label for label in labels if label not in MISSING_WORDS}
    whole = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label) if whole else 0, label)))


def collect(faults: list[str], make: Callable[[], Any]) -> Any:
    """What this makes, or None, its faults added to the others."""
    try:
        return make()
    except InputError as error:
        faults += error.faults
        return None
