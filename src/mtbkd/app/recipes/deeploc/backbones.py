"""Protein subcellular localisation from nothing but proteins: teachers on large language models.

The proteins and splits of `mtbkd.app.recipes.deeploc.paper`. Each teacher is a head on a language
model's frozen features, and answers for training proteins with heads that have not seen them. The
student is a head on the features of a small language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mtbkd.app.config.run import BackbonesConfig, RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task, mlp
from mtbkd.app.recipes.deeploc.paper import VALIDATION, data_folder, read_paper
from mtbkd.app.recipes.deeploc.shared import LOCATIONS, Standardise, read_new
from mtbkd.data import make_dataset
from mtbkd.files import read_sealed, save_sealed
from mtbkd.inputs.cache import cache_root
from mtbkd.inputs.models import count_parameters, digest_of
from mtbkd.inputs.proteins.backbone import Backbone, load_backbone
from mtbkd.inputs.proteins.embedding import embed
from mtbkd.inputs.proteins.kind import draw
from mtbkd.outputs.aligned import TeacherOutputs, align, make_table
from mtbkd.teachers.head_training import Training
from mtbkd.teachers.heads import cross_fitted, random_folds
from mtbkd.types import InputError, Report, quiet

_RECORD = "backbone.json"


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Read the proteins, ask the student's language model once, and split by seed.

    What the teachers are made from is the sequence of each id.
    """
    paper = read_paper(data_folder(config, outputs=False))
    n_train, n = paper.n_train, len(paper.ids)
    everything = make_dataset(
        _embed(config, _student(config, folder), paper.sequences, report),
        labels=paper.labels,
        classes=LOCATIONS,
        ids=paper.ids,
        name="proteins",
    )
    order = np.random.default_rng(config.seed).permutation(n_train)
    n_validation = round(VALIDATION * n_train)
    return Task(
        name="deeploc-backbones",
        train=everything.subset(order[n_validation:]),
        calibration=everything.subset(order[:n_validation]),
        test=everything.subset(np.arange(n_train, n)),
        teacher_data=dict(zip(paper.ids, paper.sequences, strict=True)),
        drawn=lambda row: draw(paper.sequences[n_train + row]),
    )


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Train heads on the teachers' language models, crosswise, with the training proteins."""
    section = _section(config)
    sequences = [task.teacher_data[i] for i in task.ids]
    backbones = {
        name: load_backbone(source, device=config.device, precision=section.precision)
        for name, source in section.teachers.items()
    }
    n_train, n_rest = len(task.train), len(task.ids) - len(task.train)
    folds = torch.cat(
        [random_folds(n_train, section.folds, config.seed), torch.full((n_rest,), -1)]
    )
    labels = torch.cat([task.train.labels, torch.full((n_rest,), -1)])
    tables, costs = [], {}
    for name, backbone in backbones.items():
        features = _embed(config, backbone, sequences, report)
        training = Training()
        logits = cross_fitted(
            features,
            labels,
            folds=folds,
            family="classification",
            n_outputs=len(LOCATIONS),
            seed=config.seed,
            training=training,
        )
        tables.append(make_table(name, logits, kind="logits", ids=task.ids, classes=LOCATIONS))
        head = training.hidden * (backbone.width + len(LOCATIONS) + 1) + len(LOCATIONS)
        costs[name] = {"parameters": float(count_parameters(backbone.files) + head)}
    return align(tables, task.ids, LOCATIONS), costs


def network(config: RunConfig, example: Tensor, n_classes: int) -> nn.Module:
    """The student: frozen standardisation, then a small network."""
    layers = mlp([example.shape[-1], *config.student.hidden, n_classes])
    return nn.Sequential(Standardise(example), *layers)


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor]:
    """Read new proteins, and ask the student's language model about them.

    Raises:
        InputError: If the file holds no proteins, or the model is not the one of the run.
    """
    return read_new(source, lambda s: _embed(config, _student(config, folder), s, report))


def _student(config: RunConfig, folder: Path) -> Backbone:
    """The student's language model, which stays the same for a run."""
    section, path = _section(config), folder / _RECORD
    backbone = load_backbone(section.student, device=config.device, precision=section.precision)
    mine = {"digest": digest_of(backbone.files, cache_root() / "digests"), "limit": backbone.limit}
    if not path.exists():
        save_sealed(path, mine)
    elif read_sealed(path) != mine:
        raise InputError(
            f"Expected at {section.student!r} the language model that this run began with, but got "
            "another, of which the student knows nothing. Bring the first back, or begin a new run."
        )
    return backbone


def _embed(
    config: RunConfig, backbone: Backbone, sequences: Sequence[str], report: Report
) -> Tensor:
    tokens = _section(config).max_tokens
    return embed(backbone, sequences, max_tokens=tokens, cache=cache_root(), report=report)


def _section(config: RunConfig) -> BackbonesConfig:
    return cast(BackbonesConfig, config.backbones)  # a configuration of this recipe has it


RECIPE = Recipe(
    name="deeploc-backbones",
    summary="The same proteins from nothing: heads on ESM-2 650M and ProtT5 teach one on ESM-2 8M.",
    needs="the files of deeploc, the extra `proteins`, and three models of the Hugging Face hub",
    defaults={
        "recipe": "deeploc-backbones",
        "prior": {"concentration": 5.0, "power": 1.0, "discount": 0.0},
        "student": {"hidden": [128], "weight_scale": 1.5},
        "map": {"epochs": 30, "batch_size": 100, "learning_rate": 0.03},
        "sampler": {"burn_in": 1000, "draws": 20, "thinning": 50, "batch_size": 500},
        "backbones": {
            "teachers": {
                "ESM-2 650M": "facebook/esm2_t33_650M_UR50D",
                "ProtT5": "Rostlab/prot_t5_xl_half_uniref50-enc",
            },
            "student": "facebook/esm2_t6_8M_UR50D",
        },
    },
    load=load,
    teach=teach,
    network=network,
    read_as=read_as,
)
