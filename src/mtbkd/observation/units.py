"""Units of real-valued targets: the student works with numbers of mean 0 and variance 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtbkd.types import refuse

_FEWEST = 10
_LOG_MOST = 40.0  # of a variance in units of the targets, so that it has a reciprocal


@dataclass(frozen=True)
class Units:
    """How targets are standardised, and the variances of teachers that give none.

    Attributes:
        shift: Mean of the known labels, or of the teachers' means if there are none, (target,).
        scale: Their standard deviation, shape (target,).
        spread: Log variance that stands for a missing one, in units of ``scale``, shape (teacher,
            target).
    """

    shift: Tensor
    scale: Tensor
    spread: Tensor

    def labels(self, labels: Tensor) -> Tensor:
        """Labels in units of ``scale``, shape (example, target)."""
        return (labels - self.shift) / self.scale

    def values(self, values: Tensor) -> Tensor:
        """Teachers' means and log variances in units of ``scale``: (teacher, ..., target, 2)."""
        mean, log_variance = values.unbind(-1)
        spread = self.spread.view(len(self.spread), *[1] * (mean.dim() - 2), -1)
        own = log_variance - 2 * self.scale.log()
        own = torch.where(log_variance.isnan(), spread, own).clamp(-_LOG_MOST, _LOG_MOST)
        return torch.stack([(mean - self.shift) / self.scale, own], -1)

    def to(self, device: torch.device) -> Units:
        """The same on a device."""
        return Units(self.shift.to(device), self.scale.to(device), self.spread.to(device))


def find_units(
    names: tuple[str, ...], values: Tensor, mask: Tensor, labels: Tensor, targets: tuple[str, ...]
) -> Units:
    """Standardise by the known labels, and estimate variances that teachers do not give.

    A missing variance is the mean square of what the teacher is off by, where labels are known.

    Means and log variances are (teacher, example, target, 2), False of the mask says that a teacher
    says nothing, and labels, (example, target), are NaN where missing.

    Raises:
        InputError: If a target does not vary, or there are fewer than ten labels for a teacher
            without variances.
    """
    known = ~labels.isnan()
    mean, scale = _moments(labels[None], known[None])
    told, spread_told = _moments(values[..., 0], mask)
    few = known.sum(0) < 2
    mean, scale = torch.where(few, told, mean), torch.where(few, spread_told, scale)
    faults = [
        f"Expected labels of the target {name!r} that differ, but got the same everywhere. Leave "
        "the target out."
        for t, name in enumerate(targets)
        if not scale[t] > 0
    ]
    refuse(*faults)
    both = mask & known
    missing = (values[..., 1].isnan() & mask).any(1)  # (teacher, target)
    enough = both.sum(1)
    for k, t in (missing & (enough < _FEWEST)).nonzero().tolist():
        faults.append(
            f"Expected {_FEWEST} labels or more to estimate the variance of teacher {names[k]!r} "
            f"for {targets[t]!r}, but got {int(enough[k, t])}. Give its variances, or more labels."
        )
    refuse(*faults)
    off = torch.where(both, (values[..., 0] - labels) / scale, 0.0).square().sum(1)
    spread = (off / enough.clamp_min(1)).clamp_min(1e-6).log()
    return Units(mean, scale, spread.float())


def mixture(outputs: Tensor, units: Units | None) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of draws for numbers, in the targets' own units.

    Outputs are (..., example, mean and log variance).

    Returns:
        Two tensors of shape (..., example, target), float64.
    """
    mean, log_variance = outputs.double().chunk(2, -1)
    spread = (0.5 * log_variance).exp()
    if units is None:
        return mean, spread
    scale = units.scale.to(mean)
    return units.shift.to(mean) + scale * mean, scale * spread


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over (teacher, example), each of shape (target,).

    They are worked out in units of a power of two near the largest value, so that squares neither
    overflow nor vanish. A deviation that is none beside the values, or too small to divide by, is
    0.
    """
    count = mask.sum((0, 1))
    known = torch.where(mask, values, 0.0)
    largest = known.abs().amax((0, 1))
    unit = torch.where(largest > 0, largest.log2().floor().exp2(), 1.0)
    known = known / unit
    mean = known.sum((0, 1)) / count.clamp_min(1)
    gap = torch.where(mask, known - mean, 0.0)
    scale = unit * (gap.square().sum((0, 1)) / (count - 1).clamp_min(1)).sqrt()
    tiny = torch.finfo(scale.dtype).tiny
    return unit * mean, torch.where(scale > tiny, scale, 0.0)
