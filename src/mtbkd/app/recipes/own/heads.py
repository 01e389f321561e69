"""Teachers that are trained here: heads on frozen protein language models, out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.app.config.own import OwnConfig, slug
from mtbkd.app.config.own_teachers import BackboneTeacher
from mtbkd.app.recipes.base import Labelling
from mtbkd.app.recipes.own.inputs import model_of
from mtbkd.data import Dataset
from mtbkd.errors import collect
from mtbkd.files import AGAIN, load_tensors, read_json, save_json, save_tensors
from mtbkd.inputs.cache import cache_root
from mtbkd.inputs.models import count_parameters
from mtbkd.inputs.proteins.backbone import Backbone, load_backbone
from mtbkd.inputs.proteins.embedding import embed
from mtbkd.outputs.aligned import TeacherTable, make_table
from mtbkd.teachers.folds import group_folds
from mtbkd.teachers.head_training import Training
from mtbkd.teachers.heads import cross_fitted
from mtbkd.types import InputError, refuse

_ANSWERS = "answers.safetensors"
# parts of a checkpoint that give no features
_UNUSED = ("decoder.", "lm_head.", "contact_head.", "pooler.")


@dataclass(frozen=True)
class LabelledProteins:
    """What heads are trained on, and asked about.

    Attributes:
        ids: Ids of all examples of the task, those for training first.
        sequences: Cleaned, one for each id.
        train: The examples for training.
        groups: The group of each example, shape (example,).
        together: Whether groups are a column of the user's; else they are equal sequences alone.
        seed: Seed of folds and heads.
    """

    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    train: Dataset
    groups: NDArray[np.int64]
    together: bool
    seed: int

    @property
    def taught(self) -> NDArray[np.int64]:
        """Positions of the training examples that have a label."""
        return np.flatnonzero(self.train.known.numpy())


def backbone_teachers(own: OwnConfig) -> dict[str, BackboneTeacher]:
    """The teachers that are trained here, by name."""
    return {n: each for n, each in own.teachers.items() if isinstance(each, BackboneTeacher)}


def find_backbones(own: OwnConfig, folder: Path) -> dict[str, Backbone]:
    """The models of all teachers that have not answered yet; none is read into memory.

    Raises:
        InputError: With one message for each fault.
    """
    found: dict[str, Backbone] = {}
    faults: list[str] = []
    for name, config in backbone_teachers(own).items():
        if answers_path(folder, name).exists():
            continue
        load = partial(
            load_backbone,
            model_of(own, config.backbone),
            device=config.device,
            precision=config.precision,
            limit=config.limit,
        )
        found[name] = collect(faults, load)
    refuse(*dict.fromkeys(faults))
    return found


def fold_faults(own: OwnConfig, proteins: LabelledProteins) -> list[str]:
    """One message for each teacher whose folds cannot be made."""
    n = len(np.unique(proteins.groups[proteins.taught]))
    what = "groups" if proteins.together else "different sequences"
    return [
        f"Expected labelled training examples of {config.folds} {what} or more for the folds of "
        f"teacher {name!r}, but got {n}. Label more, or lower its folds."
        for name, config in backbone_teachers(own).items()
        if n < config.folds
    ]


def answer(
    name: str,
    config: BackboneTeacher,
    backbone: Backbone | None,
    proteins: LabelledProteins,
    folder: Path,
    labelling: Labelling,
) -> tuple[TeacherTable, dict[str, float]]:
    """What the heads say of all examples, and what that costs; kept in the folder.

    A training example with a label is answered by the head that was trained without its fold, all
    others by the mean of all heads. Without a backbone it is what was kept.

    Raises:
        InputError: If the model cannot be asked, or what was kept is damaged.
    """
    path, train = answers_path(folder, name), proteins.train
    spent = path.parent.with_name(f"{path.parent.name}.json")
    shape = (len(proteins.ids), len(train.classes))
    if backbone is None:
        logits, cost = _kept(path, shape), read_json(spent) if spent.exists() else {}
        told = "answered before"
    else:
        features, cost = _features(name, config, backbone, proteins.sequences, labelling)
        logits = _out_of_fold(features, config.folds, proteins)
        width, (_, n) = features.shape[1], shape
        head = (width + 1) * Training.hidden + (Training.hidden + 1) * n
        cost["parameters"] = float(
            count_parameters(backbone.files, without=_UNUSED) + config.folds * head
        )
        save_json(spent, cost)
        save_tensors(path, {"logits": logits})
        told = f"{config.folds} heads trained on {len(proteins.taught)} examples"
    labelling.say(f"{name}: {len(proteins.ids)} rows answered out of fold, {told}: {path.parent}")
    table = make_table(
        name,
        logits,
        kind="logits",
        ids=proteins.ids,
        classes=train.classes,
        family=train.family,
    )
    return table, cost


def answers_path(folder: Path, name: str) -> Path:
    """Where the answers of a teacher are kept."""
    return folder / "labels" / slug(name) / _ANSWERS


def _features(
    name: str,
    config: BackboneTeacher,
    backbone: Backbone,
    sequences: Sequence[str],
    labelling: Labelling,
) -> tuple[Tensor, dict[str, float]]:
    """Through the cache; the cost is of those that were computed now."""
    start, kept, done = perf_counter(), 0, 0

    def report(stage: str, n: int, total: int) -> None:
        nonlocal kept, done
        del stage
        done = n
        if "loaded" not in vars(backbone):  # told first, of what the cache held
            kept = n
        labelling.report(f"features for {name}", n, total)

    features = embed(
        backbone, sequences, max_tokens=config.max_tokens, cache=cache_root(), report=report
    )
    computed = done - kept
    cost: dict[str, float] = (
        {"ms_per_example": 1000 * (perf_counter() - start) / computed} if computed else {}
    )
    return features, cost


def _out_of_fold(features: Tensor, n_folds: int, proteins: LabelledProteins) -> Tensor:
    """Logits, shape (example, output)."""
    train, taught = proteins.train, proteins.taught
    folds = torch.full((len(features),), -1)
    folds[taught] = group_folds(proteins.groups[taught].tolist(), n_folds, proteins.seed)
    n_more = len(features) - len(train)
    unknown = train.labels.new_full((n_more, *train.labels.shape[1:]), train.outcome.missing)
    return cross_fitted(
        features,
        torch.cat([train.labels, unknown]),
        folds=folds,
        family=train.family,
        n_outputs=len(train.classes),
        seed=proteins.seed,
        groups=torch.from_numpy(proteins.groups) if proteins.together else None,
    )


def _kept(path: Path, shape: tuple[int, int]) -> Tensor:
    logits = load_tensors(path)["logits"]
    if tuple(logits.shape) != shape:
        raise InputError(
            f"Expected answers of shape {shape} in {path}, but got {tuple(logits.shape)}. {AGAIN}"
        )
    return logits
