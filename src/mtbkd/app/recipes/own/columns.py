"""Which columns of your examples hold what: ids, labels, features and texts."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np

from mtbkd.app.config.language import Prompted, columns_read
from mtbkd.app.config.own import OwnConfig
from mtbkd.errors import collect
from mtbkd.inputs.columns import Table
from mtbkd.inputs.images.reading import read_images_table
from mtbkd.inputs.tables import read_table
from mtbkd.observation import OUTCOMES
from mtbkd.types import MISSING_WORDS, InputError, refuse

_WHOLE = re.compile(r"([+-]?\d+(\.0*)?)?")  # a whole number or nothing


def read_own(own: OwnConfig) -> tuple[Table, tuple[str, ...]]:
    """The file or folder of examples, with its ids, and notes on what was left out.

    Raises:
        InputError: If it cannot be read, or its ids are not what they should be.
    """
    path = Path(own.folder) / own.examples
    table, notes = (
        (read_table(path, "examples"), ())
        if own.image is None
        else read_images_table(path, own.image)
    )
    return table.with_ids(own.id, "Name it with own.id."), notes


def text_columns(own: OwnConfig) -> list[str]:
    """The sequences first, then what teachers read as text."""
    reads = [getattr(teacher, "reads", None) for teacher in own.teachers.values()]
    texts = [own.sequence, *(column for column in reads if isinstance(column, str))]
    return list(dict.fromkeys(column for column in (*texts, *prompt_columns(own)) if column))


def prompt_columns(own: OwnConfig) -> list[str]:
    """What the prompts of language models read."""
    exclusive = OUTCOMES[own.family].exclusive
    asked = [t for t in own.teachers.values() if isinstance(t, Prompted)]
    return list(dict.fromkeys(c for teacher in asked for c in columns_read(teacher, exclusive)))


def named_columns(own: OwnConfig) -> list[str]:
    """All columns that the configuration names, besides the ids."""
    reads = [getattr(teacher, "reads", None) or [] for teacher in own.teachers.values()]
    lists = [[column] if isinstance(column, str) else column for column in reads]
    others = (c for c in (own.split, own.group, own.source, own.sequence) if c)
    return [
        *own.targets,
        *(own.features or ()),
        *others,
        *itertools.chain(*lists),
        *prompt_columns(own),
    ]


def labels_of(examples: Table, own: OwnConfig) -> Any:
    """Names of classes, or numbers of shape (example, label); "" or NaN where missing.

    Raises:
        InputError: With one message for each column that is not there or holds something else.
    """
    if OUTCOMES[own.family].exclusive:
        return _class_names(examples, own)
    faults: list[str] = []
    columns = [collect(faults, lambda c=c: examples.numbers(c, missing=True)) for c in own.targets]
    refuse(*faults)
    return np.stack([column for column in columns if column is not None], 1)


def classes_of(own: OwnConfig, labels: Any) -> tuple[str, ...]:
    """The classes that are named, else those found, sorted; or the columns of labels."""
    if not OUTCOMES[own.family].exclusive:
        return tuple(own.targets)
    if own.classes is not None:
        return tuple(own.classes)
    found = sorted({label for label in labels if label})
    whole = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=int) if whole else found)


def _class_names(examples: Table, own: OwnConfig) -> list[str]:
    words = examples.words(own.targets[0])
    rows = [row for row, word in enumerate(words) if word and word in MISSING_WORDS]
    if rows and own.classes is None:
        raise InputError(
            f"Expected the name of a class in column {own.targets[0]!r} of {examples.path}, or "
            f"nothing where it is missing, but got {words[rows[0]]!r} for id "
            f"{examples.ids[rows[0]]!r} ({len(rows)} such). Empty the cells, or name it in "
            "own.classes."
        )
    whole = all(_WHOLE.fullmatch(word) for word in words)
    return [word.partition(".")[0] for word in words] if whole and own.classes is None else words
