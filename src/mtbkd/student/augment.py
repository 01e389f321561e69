"""Images as a network sees them while it learns: mirrored, or moved a little, by chance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtbkd.types import Batch, InputError

WORDS = ("flip", "crop")
_MARGIN = 8  # an image is moved by up to this part of its side


@dataclass(frozen=True)
class Augment:
    """What is done to images.

    Attributes:
        flip: Whether every second one is mirrored, left for right.
        crop: Whether they are moved up or down and left or right, by up to an eighth of the side,
            all distances alike; what then lies outside mirrors what is inside. That is the random
            crop of a padded image of He et al. 2016 (arXiv:1512.03385), 4 pixels of 32.
    """

    flip: bool
    crop: bool

    def draw(self, n: int, images: Tensor, generator: torch.Generator) -> Tensor:
        """Views of ``n`` images of this size: rows down, columns right, mirrored; int16, (n, 3)."""
        views = torch.zeros(n, 3, dtype=torch.int16, device=generator.device)
        if self.crop:
            for axis, side in enumerate(images.shape[-2:]):
                margin = side // _MARGIN
                views[:, axis].random_(-margin, margin + 1, generator=generator)
        if self.flip:
            views[:, 2].random_(0, 2, generator=generator)
        return views


def read_augment(text: str | None) -> Augment | None:
    """From words joined by ``+``, such as ``flip+crop``; None is none.

    Raises:
        InputError: If there is another word.
    """
    if text is None:
        return None
    words = text.split("+") if isinstance(text, str) else [repr(text)]
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        raise InputError(
            f"Expected augment as {' or '.join(WORDS)}, or both joined by +, but got {text!r}. "
            "Correct it, or leave it out."
        )
    return Augment("flip" in words, "crop" in words)


def check_augment(images: Tensor, *, whole: bool) -> None:
    """Refuse what cannot be augmented.

    Args:
        images: What the student reads.
        whole: Whether the network reads it at every step.

    Raises:
        InputError: If these are no images, or a part of the network runs once for each.
    """
    if images.dim() != 4:
        raise InputError(
            "Expected images of shape (example, channel, height, width) to augment, but the "
            f"student reads shape {tuple(images.shape)}. Remove augment, or let the student read "
            "pixels."
        )
    if not whole:
        raise InputError(
            "Expected a network whose first layers are sampled to augment its images, but its "
            "first part is frozen, so that its features are computed once for each image. Remove "
            "augment, or sample every parameter."
        )


def seen(batch: Batch) -> Tensor:
    """What the network reads of a batch: its inputs, or its images under their views."""
    return batch.inputs if batch.views is None else shown(batch.inputs, batch.views)


def shown(images: Tensor, views: Tensor) -> Tensor:
    """Images under their views: (..., channel, height, width) and (..., 3) to the former shape."""
    height, width = images.shape[-2:]
    down, right, mirrored = views.long().flatten(0, -2).unbind(-1)
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None] > 0, columns.flip(0), columns) + right[:, None]
    rows = torch.arange(height, device=images.device) + down[:, None]
    places = _inside(rows, height)[:, :, None] * width + _inside(columns, width)[:, None]
    flat = images.flatten(0, -4).flatten(2)
    found = flat.gather(2, places.flatten(1)[:, None].expand(flat.shape))
    return found.view(images.shape)


def _inside(places: Tensor, side: int) -> Tensor:
    """Places along a side, those beyond its ends mirrored there."""
    return side - 1 - (side - 1 - places.abs()).abs()
