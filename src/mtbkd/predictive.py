"""The posterior predictive: the student's outputs under each draw, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtbkd.inference.samples import PosteriorSamples
from mtbkd.inference.thinning import Aim, aim_at, choose, gram, settle
from mtbkd.observation import OUTCOMES
from mtbkd.observation.answers import Answer as Answer
from mtbkd.observation.answers import LabelPredictive as LabelPredictive
from mtbkd.observation.answers import NumberPredictive as NumberPredictive
from mtbkd.observation.answers import Predictive as Predictive
from mtbkd.observation.answers import credible_set as credible_set
from mtbkd.observation.answers import joined
from mtbkd.observation.units import Units
from mtbkd.observation.units import mixture as mixture
from mtbkd.student.finite import CORRECT_INPUTS, SCALE_INPUTS, all_finite, check_finite
from mtbkd.student.student import Student
from mtbkd.types import WHOLE, Family, InputError, outside, refuse

_SAMPLE_LONGER = "Distil again with more steps or a smaller step size, or scale the inputs."
_BUDGET = 2**24  # floats held at a time: draws times examples times classes
_COMPARED, _FEW, _BETWEEN, _CANDIDATES = 2048, 512, 1600, 1000


def predict(
    student: Student,
    samples: PosteriorSamples,
    inputs: Tensor,
    *,
    family: Family = "classification",
    units: Units | None = None,
    level: float = 0.9,
    point: Literal["mean", "mode"] = "mean",
) -> Answer:
    """Average the student over its posterior.

    Examples are taken in batches and draws one at a time, so memory does not grow with the
    number of examples, nor with the size of the student times the number of draws.

    Args:
        student: As it was trained.
        samples: Its posterior draws.
        inputs: Raw inputs of the student, shape (example, ...).
        family: What is predicted.
        units: Units of the targets, for regression.
        level: Posterior mass of the credible intervals, in (0, 1).
        point: ``mean`` over draws, or the paper's ``mode`` of each class's marginal density,
            renormalised (MT-BKD).

    Returns:
        `Predictive`, `LabelPredictive` or `NumberPredictive`, by the family.

    Raises:
        InputError: If inputs, draws or answers are not finite.
    """
    outcome = OUTCOMES[family]
    draws = (outputs.flatten(0, 1) for outputs in draw_outputs(student, samples, inputs))
    answer = joined([outcome.summarise(d, units=units, level=level, point=point) for d in draws])
    for part in vars(answer).values():
        if isinstance(part, np.ndarray):
            check_finite(torch.from_numpy(part), "answers", _SAMPLE_LONGER)
    return answer


def thin(
    student: Student,
    samples: PosteriorSamples,
    inputs: Tensor,
    n: int,
    *,
    family: Family = "classification",
) -> PosteriorSamples:
    """Few draws whose mean answer is near to that of all.

    They are chosen by what they say, one after the other, and then moved a little together, until
    their mean probabilities and their mean entropy are those of all draws, as far as that holds on
    inputs kept apart as well; see `mtbkd.inference.thinning`. They are compared on the inputs and
    on points between pairs of them. Of a network whose chains go one after the other, each pass of
    which is much work, they are chosen on fewer inputs, and stay where they are.

    Args:
        student: As it was trained.
        samples: Its posterior draws.
        inputs: Like those to be predicted, without labels, shape (example, ...); at most 2,048 of
            them, evenly spaced, are used.
        n: How many draws to keep.
        family: What is predicted.

    Returns:
        ``n`` chains of one draw each, or the samples as they are if they are not more.

    Raises:
        InputError: If there are no inputs, or anything is not finite.
    """
    refuse(*outside("n", n, 1e6, whole=True))
    if n >= samples.n_chains * samples.n_draws:
        return samples
    if not len(inputs):
        raise InputError(
            "Expected inputs to choose draws by, but got none. Give those of the training examples."
        )
    outcome, head = OUTCOMES[family], replace(student, frozen=None)
    quick = not student.passage.in_turn
    features = student.features(inputs[:: -(-len(inputs) // (_COMPARED if quick else _FEW))])
    apart = torch.zeros(len(features), dtype=torch.bool)
    if quick:
        features, apart = _between(features)
    skip = -(-samples.n_chains * samples.n_draws // _CANDIDATES)
    aims: list[Aim] = []
    products: Tensor | float = 0.0
    for outputs in draw_outputs(head, samples, features):
        draws = outputs.flatten(0, 1)
        cuts = outcome.cuts(draws)
        events = outcome.events(draws, cuts)
        aims.append(aim_at(events, cuts))
        products = products + gram(events[::skip], aims[-1])
    aim = Aim(*map(torch.cat, zip(*aims, strict=True)))
    places = choose(torch.as_tensor(products), n)
    few = samples.chosen([place * skip for place in places])
    if not quick:
        return few
    draws = few.segments[0][:, 0].to(features.device)
    moved = settle(head, draws, features, aim, outcome, apart)
    return replace(few, segments=(moved[:, None].cpu(),))


def _between(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features, then points up to half the way from one to another; every fifth is kept apart.

    There is nothing between two names, as whole numbers other than bytes are.

    Returns:
        Features, shape (example, ...), and whether they are kept apart, (example,), which those
        between two that are kept apart are as well.
    """
    generator = torch.Generator().manual_seed(0)
    kept = torch.arange(len(features), device=features.device) % 5 == 4
    if features.dtype in WHOLE and features.dtype != torch.uint8:
        return features, kept
    features = features if features.is_floating_point() else features.float()
    found, apart = [features], [kept]
    for group, n in ((~kept, 4 * _BETWEEN), (kept, _BETWEEN)):
        ours = features[group]
        if len(ours):
            pairs = torch.randint(len(ours), (2, n), generator=generator).to(ours.device)
            way = 0.5 * torch.rand(n, *[1] * (ours.dim() - 1), generator=generator).to(ours)
            found.append(torch.lerp(ours[pairs[0]], ours[pairs[1]], way))
            apart.append(kept.new_full((n,), fill_value=bool(group is kept)))
    return torch.cat(found), torch.cat(apart)


def draw_outputs(student: Student, samples: PosteriorSamples, inputs: Tensor) -> Iterator[Tensor]:
    """The student's outputs under each draw, at its temperature, batch of examples by batch.

    Yields:
        Tensors of shape (chain, draw, example, output).

    Raises:
        InputError: If inputs, draws or outputs are not finite.
    """
    if not all(map(all_finite, samples.segments)):
        raise InputError(
            "Expected finite draws of the posterior, but got NaN or infinity. Distil again, with "
            "a lower prior.power or weight_scale."
        )
    device = student.prior_mean.device
    first = 0
    for batch in _batches(student, samples, inputs):
        check_finite(batch, "inputs", CORRECT_INPUTS, first)
        features = student.features(batch.to(device), first=first)
        with torch.no_grad():
            outputs = torch.stack(
                [student.logits_each(draw.to(device), features) for draw in samples], dim=1
            )
        outputs = outputs / student.temperature
        check_finite(outputs.movedim(2, 0), "outputs of the student", SCALE_INPUTS, first)
        yield outputs
        first += len(batch)


def draw_probs(student: Student, samples: PosteriorSamples, inputs: Tensor) -> Iterator[Tensor]:
    """Class probabilities under each draw, batch of examples by batch.

    Yields:
        Tensors of shape (chain, draw, example, class).
    """
    for outputs in draw_outputs(student, samples, inputs):
        yield torch.softmax(outputs, -1)


def _batches(student: Student, samples: PosteriorSamples, inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        first = student.features(inputs[:1].to(student.prior_mean.device))
        draw = samples.segments[0][0, 0].to(first.device)
        n_classes = student.logits_at(draw, first).shape[-1]
    per_example = samples.n_chains * samples.n_draws * n_classes
    fit = max(1, min(4096, _BUDGET // per_example))
    return inputs.split(1 << (fit.bit_length() - 1))  # so that blocks of rows give the same bytes
