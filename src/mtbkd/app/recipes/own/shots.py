"""Labelled rows that language models are shown, and that the student therefore never sees."""

from __future__ import annotations

import numpy as np

from mtbkd.app.config.own import OwnConfig
from mtbkd.app.recipes.own.columns import prompt_columns
from mtbkd.app.recipes.own.readers import cells_of
from mtbkd.app.recipes.own.split import Split
from mtbkd.data import Dataset
from mtbkd.inputs.columns import Table
from mtbkd.observation import OUTCOMES
from mtbkd.teachers.language.prompt import Shot, choose_shots
from mtbkd.types import InputError


def withhold(
    own: OwnConfig, examples: Table, everyone: Dataset, split: Split, seed: int
) -> tuple[tuple[Shot, ...], Split]:
    """Take the rows that language models are shown out of those for training, by seed.

    They are one of each class in turn. A teacher that is shown fewer than another sees the first.

    Raises:
        InputError: If too few are labelled.
    """
    wanted = max((getattr(teacher, "examples", 0) for teacher in own.teachers.values()), default=0)
    if not wanted:
        return (), split
    train, *others = split.parts
    known = (everyone.labels >= 0).reshape(len(everyone), -1).all(1).numpy()
    labelled = train[known[train]]
    if len(labelled) <= wanted:
        raise InputError(
            f"Expected more than {wanted} labelled rows for training in {examples.path}, of which "
            f"language models are shown {wanted}, but got {len(labelled)}. Show fewer."
        )
    labels, names = everyone.labels.numpy(), everyone.classes
    if OUTCOMES[own.family].exclusive:
        says = [(names[int(labels[row])],) for row in labelled]
    else:
        says = [
            tuple(n for n, one in zip(names, labels[row], strict=True) if one) for row in labelled
        ]
        says = [said or ("",) for said in says]  # none is true, which is known
    order = np.random.default_rng([seed, len(labelled)]).permutation(len(labelled))
    chosen = choose_shots(says, order.tolist(), wanted)
    columns = {name: examples.words(name) for name in prompt_columns(own)}
    shots = tuple(Shot(cells_of(columns, int(labelled[k])), says[k]) for k in chosen)
    rest = train[~np.isin(train, labelled[chosen])]
    return shots, split._replace(parts=(rest, *others))
