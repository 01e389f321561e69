"""Votes of teachers, put together as those of a crowd, then a student: Dawid-Skene, CROWDLAB."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.bench.methods.lessons import one_teacher
from mtbkd.app.bench.world import World
from mtbkd.data import Dataset
from mtbkd.errors import need
from mtbkd.training import TrainingSet
from mtbkd.weights.rules import Weighting

EXTRA = "bench"
_ITERATIONS, _FOLDS = 100, 5


def votes(world: World, data: Dataset) -> tuple[TrainingSet, Tensor]:
    """What examples teach; and each teacher's class, -1 of none, shape (teacher, example)."""
    training = world.lesson(data, Weighting("uniform"))
    said = training.said(slice(None))
    named = training.observation.complete(said, None).argmax(-1)
    return training, torch.where(torch.isneginf(said.log_weights), -1, named)


def dawid_skene(world: World, data: Dataset) -> TrainingSet:
    """Posterior of the class under each teacher's confusion matrix, by EM (Dawid & Skene 1979).

    As crowd-kit has it; the votes are all that it sees.
    """
    import pandas as pd

    crowd = need("crowdkit.aggregation", EXTRA)
    training, named = votes(world, data)
    teacher, example = (named >= 0).nonzero(as_tuple=True)
    table = pd.DataFrame(
        {
            "task": example.numpy(),
            "worker": teacher.numpy(),
            "label": named[teacher, example].numpy(),
        }
    )
    found = crowd.DawidSkene(n_iter=_ITERATIONS).fit_predict_proba(table)
    probs = np.full((len(data), len(data.classes)), 1 / len(data.classes))
    every = found.reindex(columns=range(len(data.classes)), fill_value=0.0).fillna(0.0)
    probs[every.index.to_numpy()] = every.to_numpy()
    return one_teacher(training, torch.from_numpy(probs).clamp_min(1e-7).log())


def crowdlab(world: World, data: Dataset) -> TrainingSet:
    """Consensus of votes and of a classifier, as labels (Goh et al. 2022, arXiv:2210.06812).

    As cleanlab has it; the classifier is a logistic regression on majority votes, out of fold.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    annotators = need("cleanlab.multiannotator", EXTRA)
    _, named = votes(world, data)
    table = named.T.double().numpy()
    table[table < 0] = np.nan
    spoken = np.flatnonzero(~np.isnan(table).all(1))
    majority = annotators.get_majority_vote_label(table[spoken], verbose=False)
    inputs = data.inputs[spoken].flatten(1).numpy()
    model = LogisticRegression(max_iter=1000)
    own = cross_val_predict(model, inputs, majority, cv=_FOLDS, method="predict_proba")
    probs = np.full((len(spoken), len(data.classes)), 1e-6)
    probs[:, np.unique(majority)] += own
    probs /= probs.sum(1, keepdims=True)
    told = annotators.get_label_quality_multiannotator(table[spoken], probs, verbose=False)
    labels = data.labels.clone()
    consensus = torch.from_numpy(told["label_quality"]["consensus_label"].to_numpy().copy())
    labels[spoken] = torch.where(data.known[spoken], labels[spoken], consensus.long())
    return world.lesson(replace(data, labels=labels))
