"""Bytes as a network reads them: the first layer of one that sees pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ROWS = 2**12  # pictures that moments are taken of
_FLAT = 1 / 255  # least deviation: that of a channel which does not vary is taken for one


class Pixels(nn.Module):
    """Bytes to floats of mean 0 and deviation 1 in each channel, so that bytes can be kept.

    Attributes:
        mean: Shape (channel, 1, 1), in units of 255.
        scale: What differences from it are multiplied by, shape (channel, 1, 1).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures of shape (..., channel, height, width), bytes or floats from 0 to 255."""
        return (inputs.float() / 255 - self.mean) * self.scale


def pixels_like(pictures: Tensor) -> Pixels:
    """The layer that standardises pictures such as these.

    Args:
        pictures: Shape (example, channel, height, width), from 0 to 255. At most some thousands of
            them, evenly spaced, are looked at.
    """
    some = pictures[:: -(-len(pictures) // _ROWS)]
    n, total, square = 0, torch.zeros(some.shape[1]).double(), torch.zeros(some.shape[1]).double()
    for part in some.split(256):
        values = part.double().movedim(1, 0).flatten(1) / 255
        n += values.shape[1]
        total += values.sum(1)
        square += values.square().sum(1)
    mean = total / n
    spread = (square / n - mean.square()).clamp_min(0).sqrt().clamp_min(_FLAT)
    return Pixels(mean.float()[:, None, None], (1 / spread).float()[:, None, None])
