"""The training examples that new ones are compared with, and what was said of them."""

from __future__ import annotations

from pathlib import Path

import torch

from mtbkd.app.config.run import RunConfig
from mtbkd.app.export.loading import EXAMPLES, NAMES
from mtbkd.app.recipes.base import Before, Task
from mtbkd.app.run.scoring import said_by_each
from mtbkd.explain.causes import compared_rows
from mtbkd.files import save_json, save_tensors
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import TeacherOutputs


def write_examples(
    folder: Path,
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    before: Before,
    units: Units | None,
) -> None:
    """Write the examples that `nearest` of the graph counts, at most 2,000, in its order.

    Args:
        folder: The exported folder.
        config: That of the run, whose seed chose them.
        task: Its data, as the graph reads them.
        teachers: What they say.
        before: What is done to them first; undone here.
        units: Those of real-valued targets.
    """
    some = task.train.subset(compared_rows(len(task.train), config.seed))
    said = torch.from_numpy(said_by_each(teachers.at(some.ids), units))
    tensors = {"said": said.float(), "labels": some.labels}
    if before.raw:
        tensors["inputs"] = before.undone(some.inputs)
    save_tensors(folder / EXAMPLES, tensors)
    save_json(folder / NAMES, {"ids": list(some.ids), "teachers": list(teachers.names)})
