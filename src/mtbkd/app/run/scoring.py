"""Scores of students, teachers and pools on labelled examples, whatever is predicted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtbkd.explain.influence import disagreement, spread_of_means
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.metrics import label_scores, number_scores, scores
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import draw_outputs, mixture
from mtbkd.student.student import Student
from mtbkd.training import observation_of
from mtbkd.types import Family, Floats
from mtbkd.weights.rules import Weighting, pool_log_probs
from mtbkd.weights.units import Units

Scores = dict[str, float | None]


def unit_of(units: Units | None) -> Floats | None:
    """What errors are counted in: each target's own unit if there is one, else its spread."""
    if units is None or len(units.scale) == 1:
        return None
    return units.scale.double().numpy()


def draws_of_numbers(
    student: Student, samples: PosteriorSamples, inputs: Tensor, units: Units | None
) -> tuple[Floats, Floats]:
    """Means and standard deviations under each draw, each (draw, example, target)."""
    parts = [
        torch.stack(mixture(outputs.flatten(0, 1), units)).cpu()
        for outputs in draw_outputs(student, samples, inputs)
    ]
    means, spreads = torch.cat(parts, 2).numpy()
    return means, spreads


def draw_scores(
    student: Student,
    samples: PosteriorSamples,
    inputs: Tensor,
    labels: Tensor,
    family: Family,
    units: Units | None = None,
) -> dict[str, float]:
    """Scores of the mean prediction of all draws, or of their mixture for numbers."""
    known = labels.numpy()
    if family == "regression":
        means, spreads = draws_of_numbers(student, samples, inputs, units)
        return number_scores(means, spreads, known, unit=unit_of(units))
    mean = mean_probs(student, samples, inputs, family)
    return label_scores(mean, known) if family == "multilabel" else scores(mean, known)


def mean_probs(
    student: Student, samples: PosteriorSamples, inputs: Tensor, family: Family
) -> Floats:
    """Probabilities of classes, or of yes for each label, averaged over all draws."""
    parts = []
    for outputs in draw_outputs(student, samples, inputs):
        draws = outputs.flatten(0, 1)
        probs = torch.sigmoid(draws) if family == "multilabel" else torch.softmax(draws, -1)
        parts.append(probs.double().mean(0).cpu())
    return torch.cat(parts).numpy()


def teacher_scores(
    outputs: TeacherOutputs, labels: Tensor, units: Units | None
) -> dict[str, Scores]:
    """Scores of each teacher by itself, where it says something; nothing for one that is silent.

    A teacher's classes that it does not tell apart, or does not know, are equally probable to it.
    """
    observation, _ = observation_of(outputs)
    values = _in_units(outputs, units)
    said = Weighting("uniform").apply(values, outputs.mask, outputs.kept, observation)
    complete, found = observation.complete(said, None), {}
    for k, name in enumerate(outputs.names):
        mask, own = outputs.mask[k], labels
        if not mask.any():
            continue
        if outputs.family == "classification":
            found[name] = scores(_probs(complete[k][mask]), own[mask].numpy())
            continue
        own = torch.where(mask, labels, torch.nan).numpy()
        if outputs.family == "multilabel":
            found[name] = label_scores(_probs(complete[k][..., 1]), own)
        else:
            means, spreads = mixture(torch.cat(complete[k].unbind(-1), -1), units)
            found[name] = number_scores(
                means.numpy()[None], spreads.numpy()[None], own, unit=unit_of(units)
            )
    return found


def pool_of(
    outputs: TeacherOutputs, weighting: Weighting, units: Units | None
) -> tuple[dict[str, Tensor], Tensor]:
    """The teachers' weighted pool, and how much the teachers disagree.

    Returns:
        ``probs`` (example, class or label), flat where no teacher says anything, or ``means``,
        ``sds`` and ``weights`` (teacher, example, target); and the weighted Jensen-Shannon
        divergence in nats, (example,) or (example, label), or the weighted variance of means,
        (example, target).
    """
    observation, _ = observation_of(outputs)
    values = _in_units(outputs, units)
    said = weighting.apply(values, outputs.mask, outputs.kept, observation)
    complete = observation.complete(said, weighting.temperature)
    if outputs.family == "regression":
        means, spreads = mixture(torch.cat(complete.unbind(-1), -1), units)
        apart = spread_of_means(said.log_weights, complete)
        apart = apart if units is None else apart * units.scale
        silent = torch.isneginf(said.log_weights).all(0)
        even = torch.full_like(said.log_weights, 1 / len(outputs.names))
        weights = torch.where(silent, even, said.log_weights.exp()).double()
        return {"means": means, "sds": spreads, "weights": weights}, apart.double().square()
    heard = outputs.mask.any(0)
    pool = pool_log_probs(said.log_weights, complete, said.nobody).exp().double()
    pool = torch.where(heard.unsqueeze(-1), pool, 1 / pool.shape[-1])
    trusted = torch.log_softmax(said.log_weights.masked_fill(~heard, 0.0), 0)
    quarrel = torch.where(heard, disagreement(trusted, complete), 0.0).double()
    return {"probs": pool[..., 1] if outputs.family == "multilabel" else pool}, quarrel


def pool_scores(
    pool: dict[str, Tensor], mask: Tensor, labels: Tensor, units: Units | None
) -> dict[str, float]:
    """Scores of `pool_of`, where any teacher says something.

    Args:
        pool: As `pool_of` gives it.
        mask: Of the teachers' outputs.
        labels: Of the examples.
        units: Of regression.
    """
    heard = mask.any(0)
    if "means" in pool:
        means, spreads, weights = (pool[name].numpy() for name in ("means", "sds", "weights"))
        known = torch.where(heard, labels, torch.nan).numpy()
        return number_scores(means, spreads, known, weights, unit=unit_of(units))
    probs = pool["probs"]
    if labels.is_floating_point():
        known = torch.where(heard, labels, torch.nan)
        return label_scores(torch.where(heard, probs, 0.5).numpy(), known.numpy())
    return scores(probs[heard].numpy(), labels[heard].numpy())


def _in_units(outputs: TeacherOutputs, units: Units | None) -> Tensor:
    values = outputs.values.float()
    return values if units is None else units.values(values)


def _probs(log_probs: Tensor) -> Floats:
    return np.exp(log_probs.double().numpy())
