"""Which language models like some labels too much, and their answers without that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mtbkd.data import Dataset
from mtbkd.files import read_sealed, save_sealed
from mtbkd.observation.base import labelled
from mtbkd.outputs.aligned import TeacherTable
from mtbkd.teachers.language.bias import gain, label_bias, without_bias

BIAS = "label_bias.json"
_FEWEST = 10  # labels that tell whether it helps

Tables = Mapping[str, TeacherTable]


def find_bias(
    tables: Tables,
    names: Collection[str],
    train: Dataset,
    calibration: Dataset,
    say: Callable[[str], None],
) -> dict[str, list[float] | list[list[float]]]:
    """The bias of each of these teachers whose removal helps the held-out score of the labels.

    It is the mean over training rows, whatever their labels. Of several labels each is judged by
    itself. Counts are left as they are.

    Args:
        tables: What all teachers say.
        names: Those that are language models.
        train: Examples for training.
        calibration: Further labelled ones.
        say: Told one line for each teacher.
    """
    found = {}
    for name in names:
        table = tables[name]
        if table.totals is not None:
            continue
        place = {key: row for row, key in enumerate(table.ids)}
        rows = torch.tensor([place[key] for key in train.ids if key in place])
        columns = [table.classes.index(c) for c in train.classes]
        bias = label_bias(table.values[rows])
        judged = [
            (d, [i for i, key in enumerate(d.ids) if key in place]) for d in (train, calibration)
        ]
        labels = torch.cat([d.labels[some] for d, some in judged])
        said = torch.cat([table.values[[place[d.ids[i]] for i in some]] for d, some in judged])
        if table.outcome.exclusive:
            known = labelled(table.outcome, labels)
            told = torch.tensor(columns)[labels[known].long()]
            gains = [gain(said[known], told, bias)] if known.sum() >= _FEWEST else [0.0]
            keep = gains[0] > 0
            bias = bias if keep else torch.zeros_like(bias)
        else:
            known = labelled(table.outcome, labels)
            gains = []
            for label, column in enumerate(columns):
                own = known[:, label]
                pair = said[own, column], labels[own, label].long()
                gains.append(gain(*pair, bias[column]) if own.sum() >= _FEWEST else 0.0)
                if gains[-1] <= 0:
                    bias[column] = 0.0
        if max(gains) > 0:
            found[name] = bias.tolist()
            best = sum(max(one, 0.0) for one in gains) / len(gains)
            say(f"{name}: label bias removed, {best:.3f} nats better on held-out labels")
    return found


def mend(
    tables: Tables,
    names: Collection[str],
    train: Dataset,
    calibration: Dataset,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, TeacherTable]:
    """The tables without what `find_bias` finds, which is written to the folder."""
    found = find_bias(tables, names, train, calibration, say)
    if names:
        save_sealed(folder / BIAS, found)
    return _without(tables, found)


def mended(tables: Tables, names: Collection[str], folder: Path) -> dict[str, TeacherTable]:
    """The tables without the bias that was found when the run was made.

    Raises:
        InputError: If what was found is missing or was changed.
    """
    return _without(tables, read_sealed(folder / BIAS) if names else {})


def _without(tables: Tables, found: Mapping[str, list]) -> dict[str, TeacherTable]:
    def one(name: str, table: TeacherTable) -> TeacherTable:
        if name not in found:
            return table
        bias: Tensor = torch.tensor(found[name], dtype=torch.float64)
        return replace(table, values=without_bias(table.values, bias))

    return {name: one(name, table) for name, table in tables.items()}
