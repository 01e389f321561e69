"""What a budget spares a network whose steps are dear: trials of priors, and draws."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mtbkd.distillation.shares import Shares
from mtbkd.distillation.trials import Trials
from mtbkd.inference.settings import SamplerSettings
from mtbkd.student.components import COMPONENTS, Components
from mtbkd.student.student import Student, make_student
from mtbkd.weights.directions import few_columns

_HIDDEN, _WEIGHT_SCALE, _ROWS = 64, 2.0, 4096
_DRAWS = 20


def stand_in(trials: Trials) -> Trials:
    """The same trials of a small dense student, where the real one's chains go one by one.

    What the teachers are worth is a matter of teachers and labels more than of the network, and a
    convolutional network has time for a handful of short chains at best. The stand-in reads 48
    principal components of what the student reads, through one hidden layer.
    """
    student, training, held = trials.student, trials.training, trials.calibration
    features = training.features
    words = features.dtype != torch.uint8 and not features.is_floating_point()
    if not student.passage.in_turn or words or held is None:
        return trials
    step = -(-len(features) // _ROWS)
    leading = Components(few_columns(features[::step]).cpu(), COMPONENTS)

    def read(inputs: Tensor) -> Tensor:
        return torch.cat([leading(few_columns(part).cpu()) for part in inputs.split(_ROWS)])

    n_outputs = student.logits(torch.zeros_like(student.prior_mean), features[:1]).shape[-1]
    network = nn.Sequential(
        nn.Linear(COMPONENTS, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, n_outputs)
    )
    device = student.prior_mean.device
    return replace(
        trials,
        student=make_student(network, weight_scale=_WEIGHT_SCALE).to(device),
        training=replace(training, features=read(features).to(device), augment=None),
        calibration=replace(held, inputs=read(held.inputs)),
    )


def fewer_draws(sampler: SamplerSettings, student: Student, shares: Shares) -> SamplerSettings:
    """The same number of steps with 20 draws of each chain at most, where chains go one by one.

    Every answer costs one pass for each draw, and the chains of such a network move slowly. Fewer
    still where the shares say so.
    """
    draws = min(_DRAWS, sampler.draws) if student.passage.in_turn else sampler.draws
    draws = shares.draws(draws)
    thinning = max(1, sampler.thinning * sampler.draws // draws)
    return replace(sampler, draws=draws, thinning=thinning)
