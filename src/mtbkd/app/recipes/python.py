"""What was given in Python: the run directory holds examples and outputs, the network is yours."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Recipe, Task
from mtbkd.app.recipes.common import divided
from mtbkd.data import Dataset, make_dataset
from mtbkd.files import load_tensors, read_sealed, save_sealed, save_tensors
from mtbkd.inputs.tables import read_arrays, read_table
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.outputs.store import load_outputs
from mtbkd.types import InputError, Report, quiet

SPLITS = ("train", "calibration", "test")
_SHOWN = 5


def keep_split(out: Path, name: str, data: Dataset) -> None:
    """Write examples into a run directory."""
    folder = out / "data"
    save_tensors(folder / f"{name}.safetensors", {"inputs": data.inputs, "labels": data.labels})
    facts = {"ids": data.ids, "classes": data.classes, "family": data.family}
    save_sealed(folder / f"{name}.json", facts)


def read_split(out: Path, name: str) -> Dataset:
    """Read what `keep_split` wrote.

    Raises:
        InputError: If it is missing or was changed.
    """
    folder, then = out / "data", "Save the posterior again in Python."
    if not (folder / f"{name}.json").exists():
        what = "evaluate it with posterior.evaluate(test, teachers) and save it again"
        raise InputError(
            f"Expected {name} examples in {out}, which Python wrote, but there are none. "
            f"{what if name == 'test' else 'give them to mtbkd.distill and save it again'}."
        )
    tensors = load_tensors(folder / f"{name}.safetensors", then=then)
    facts = read_sealed(folder / f"{name}.json", then, "ids", "classes", "family")
    return Dataset(
        ids=tuple(facts["ids"]),
        inputs=tensors["inputs"],
        labels=tensors["labels"],
        classes=tuple(facts["classes"]),
        family=facts["family"],
    )


def examples(out: Path) -> Task:
    """The examples that a run directory holds; calibration and test may have no rows."""
    train = read_split(out, "train")
    calibration, test = (
        read_split(out, name) if (out / "data" / f"{name}.json").exists() else train.subset([])
        for name in SPLITS[1:]
    )
    return Task(
        name=out.resolve().name,
        train=train,
        calibration=calibration,
        test=test,
        teacher_data=out / "teachers",
        drawn=lambda row: _draw(test.inputs[row]),
    )


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """The examples that the run directory holds, none of the splits empty."""
    for name in SPLITS:
        read_split(folder.parent, name)
    return examples(folder.parent)


def teach(config: RunConfig, task: Task, report: Report) -> tuple[TeacherOutputs, dict[str, Any]]:
    """What the teachers said, which the run directory holds; it costs nothing again."""
    return load_outputs(task.teacher_data), {}


def network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """Nothing that a run directory holds is run, so it has no network.

    Raises:
        InputError: Always.
    """
    raise InputError(
        "Expected the network of a run that Python wrote, but a run directory holds none. Read it "
        "in Python with mtbkd.Posterior.load(folder, network), or name it with --network."
    )


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor]:
    """Read new inputs: an array of the shape that was learned from, or a table of its columns.

    Raises:
        InputError: If they have another shape.
    """
    shape = tuple(read_split(folder.parent, "train").inputs.shape[1:])
    if source.suffix in (".npy", ".npz"):
        arrays = read_arrays(source, "examples")
        ids = arrays.pop("ids", arrays.pop("id", None))
        values = next(iter(arrays.values()), np.empty(0))
    else:
        table = read_table(source, "examples")
        names = table.names
        if names[0] == "id":
            table, names = table.with_ids("id", "Add it."), names[1:]
        values, ids = table.matrix(names), table.ids or None
    if values.shape[1:] != shape and int(np.prod(values.shape[1:])) != int(np.prod(shape)):
        raise InputError(
            f"Expected examples of shape {shape} in {source}, as the student learned from, but got "
            f"{values.shape[1:]}. Give one row for each example."
        )
    data = make_dataset(
        torch.from_numpy(values).reshape(-1, *shape),
        classes=["any"],
        ids=ids,
        family="regression",
        name=str(source),
    )
    return data.ids, data.inputs


def _draw(inputs: Tensor) -> str:
    """The numbers of largest size."""
    values = inputs.flatten().float()
    places = values.abs().argsort(descending=True, stable=True)[:_SHOWN].tolist()
    lines = [f"<code>input {i} {float(values[i]):+.2f}</code>" for i in places]
    return "<br>".join([html.escape(f"shape {tuple(inputs.shape)}"), *lines])


RECIPE = Recipe(
    name="python",
    summary="What mtbkd.distill was given in Python.",
    needs="a folder that posterior.save wrote",
    defaults={"recipe": "python", "student": {"hidden": []}},
    load=load,
    teach=teach,
    network=network,
    read_as=read_as,
    before=divided("what the student reads"),
)
