"""Your examples, your teachers: a file of rows, and whatever can be asked about them."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtbkd.config import OwnConfig, RunConfig
from mtbkd.data import Dataset, make_dataset
from mtbkd.recipes.base import Labelling, Recipe, Task, mlp
from mtbkd.recipes.folder import read_json
from mtbkd.recipes.own_examples import Examples, numeric_columns, read_examples, split_rows
from mtbkd.recipes.own_teachers import label_all
from mtbkd.recipes.own_template import TEMPLATE
from mtbkd.samples import save_json
from mtbkd.types import InputError, Report, quiet

RECORD = "examples.json"
_SHOWN, _LETTERS = 5, 240


class Own(NamedTuple):
    """What teaching needs of the examples besides their ids.

    Attributes:
        record: As it is written to the run directory.
        rows: Of the file, in the order of the task's ids.
    """

    record: dict[str, Any]
    rows: NDArray[np.int64]


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Read, check, split and standardise the examples.

    Raises:
        InputError: With one message for each fault, or if the file is not the one that the run
            began with.
    """
    del report
    own = _section(config)
    path = Path(own.folder) / own.examples
    recorded = folder.parent / RECORD
    examples = _read(own)
    digest = _digest(path)
    if recorded.exists() and read_json(recorded)["sha256"] != digest:
        raise InputError(
            f"Expected {path} as it was when {folder.parent} began, but it was changed. Choose "
            "another --out, or delete it."
        )
    features = _features(examples, own)
    faults: list[str] = []
    inputs = _collect(faults, lambda: examples.matrix(features))
    labels = _collect(faults, lambda: _labels(examples, own))
    if inputs is None or labels is None:
        raise InputError(*faults)
    classes = _classes(own, labels)
    everyone = make_dataset(
        inputs,
        labels=labels,
        classes=classes,
        ids=examples.ids,
        family=own.family,
        name=f"data set {path}",
    )
    parts = split_rows(examples, own, everyone.known.numpy(), config.seed)
    mean, sd = _moments(everyone.inputs[torch.from_numpy(parts[0])])
    everyone.inputs.sub_(mean).div_(sd)
    train, calibration, test = (everyone.subset(rows) for rows in parts)
    record = {
        "sha256": digest,
        "family": own.family,
        "classes": list(classes),
        "features": features,
        "mean": mean.tolist(),
        "sd": sd.tolist(),
    }
    columns = _text_columns(own)[:1]
    texts = [examples.words(c) for c in columns]
    shown = [text[row] for text in texts for row in parts[2]]
    return Task(
        Path(own.examples).stem,
        train,
        calibration,
        test,
        Own(record, np.concatenate(parts)),
        lambda row: _draw(test, features, row, shown),
    )


def label(
    config: RunConfig, task: Task, folder: Path, labelling: Labelling
) -> dict[str, dict[str, float]]:
    """Ask every teacher about every example, and align what they say.

    Raises:
        InputError: If teachers or their outputs hold faults, all faults at once; or if code would
            have to be run that only a run directory names.
    """
    own, (record, rows) = _section(config), task.teacher_data

    def begin() -> None:
        save_json(folder.parent / RECORD, record)

    return label_all(
        own, _read(own), record["features"], rows, task.train.classes, folder, labelling, begin
    )


def network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """The student: standardised features to outputs."""
    return mlp([example.shape[-1], *config.student.hidden, n_outputs])


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor]:
    """Read new inputs by the names of their columns, and standardise them as the run does.

    Raises:
        InputError: If the file lacks a column, or holds something else than numbers.
    """
    del report
    record, own = read_json(folder.parent / RECORD), _section(config)
    examples = read_examples(source, own.id)
    lacking = [name for name in record["features"] if name not in examples.table.column_names]
    if lacking:
        raise InputError(
            f"Expected the columns {', '.join(record['features'][:8])}"
            f"{' …' if len(record['features']) > 8 else ''} in {source}, but "
            f"{', '.join(lacking[:8])} {'is' if len(lacking) == 1 else 'are'} missing. Add "
            f"{'it' if len(lacking) == 1 else 'them'}."
        )
    inputs = torch.from_numpy(examples.matrix(record["features"]))
    mean, sd = (torch.tensor(record[key], dtype=torch.float32) for key in ("mean", "sd"))
    return examples.ids, inputs.sub_(mean).div_(sd)


def _section(config: RunConfig) -> OwnConfig:
    if config.own is None:
        raise InputError(
            "Expected the section `own`, but got none. Start from `mtbkd recipes copy own my.yaml`."
        )
    return config.own


def _text_columns(own: OwnConfig) -> list[str]:
    reads = [t.reads for t in own.teachers.values() if isinstance(t.reads, str)]
    return list(dict.fromkeys(reads))


def _read(own: OwnConfig) -> Examples:
    text = [*_text_columns(own), *([own.split] if own.split else [])]
    text += own.targets if own.family == "classification" else []
    return read_examples(Path(own.folder) / own.examples, own.id, text)


def _features(examples: Examples, own: OwnConfig) -> list[str]:
    taken = {own.id, own.split, *own.targets, *_text_columns(own)}
    found = own.features or [c for c in numeric_columns(examples.table) if c not in taken]
    if not found:
        raise InputError(
            f"Expected numeric columns for the student in {examples.path}, but got none. Add them, "
            "for instance the features of an encoder."
        )
    return found


def _labels(examples: Examples, own: OwnConfig) -> Any:
    if own.family == "classification":
        return examples.words(own.targets[0])
    faults: list[str] = []
    columns = [_collect(faults, lambda c=c: examples.numbers(c, missing=True)) for c in own.targets]
    if faults:
        raise InputError(*faults)
    return np.stack([column for column in columns if column is not None], 1)


def _classes(own: OwnConfig, labels: Any) -> tuple[str, ...]:
    if own.family != "classification":
        return tuple(own.targets)
    if own.classes is not None:
        return tuple(own.classes)
    found = {label for label in labels if label}
    whole = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=int if whole else str))


def _collect(faults: list[str], make: Callable[[], Any]) -> Any:
    """What this makes, or None, its faults added to the others."""
    try:
        return make()
    except InputError as error:
        faults += error.faults
        return None


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, 1 for one that never changes."""
    mean, sd = torch.zeros(inputs.shape[1]), torch.ones(inputs.shape[1])
    for i in range(inputs.shape[1] if len(inputs) else 0):
        column = inputs[:, i].double()
        mean[i] = column.mean()
        spread = column.std(correction=0)
        sd[i] = spread if spread > 1e-7 * column.abs().max() else 1.0
    return mean, sd


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _draw(test: Dataset, features: list[str], row: int, shown: list[str]) -> str:
    """The text that a teacher reads, if any does, and the most unusual features."""
    values = test.inputs[row].numpy()
    unusual = np.argsort(-np.abs(values), kind="stable")[:_SHOWN]
    lines = [f"<code>{html.escape(features[i])} {values[i]:+.1f} sd</code>" for i in unusual]
    if shown:
        text = shown[row]
        cut = text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"
        lines.insert(0, html.escape(cut))
    return "<br>".join(lines)


RECIPE = Recipe(
    name="own",
    summary="Your examples, your teachers. Classes, several labels or numbers.",
    needs="a configuration: mtbkd recipes copy own my.yaml",
    defaults={
        "recipe": "own",
        "prior": {"concentration": 1.0, "power": 10.0},
        "student": {"hidden": [32], "weight_scale": 2.0},
        "map": {"epochs": 60},
        "sampler": {"burn_in": 1000, "draws": 50, "thinning": 40, "batch_size": 500},
        "chains": 4,
    },
    load=load,
    network=network,
    read_as=read_as,
    label=label,
    template=TEMPLATE,
)
