"""Where an example lies: the leading directions of what the student reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLUMNS = 1024
"""As many columns are compared as they are; more are summed into so many."""
_COMPONENTS = 8
_ROWS = 4096  # examples that the directions are found on
_PIECE = 2**22  # numbers that are made floats at once
_MANY = 2**24  # numbers whose places are found at once
_FARTHEST = 3.0  # standard deviations beyond which an example lies no farther


@dataclass(frozen=True)
class Directions:
    """Principal components of the student's inputs, in units of their standard deviation.

    Attributes:
        centre: Mean of the training examples' `few_columns`, shape (column,).
        axes: What an example's distance from the centre is multiplied by, shape (column,
            component).
    """

    centre: Tensor
    axes: Tensor

    def place(self, features: Tensor) -> Tensor:
        """Where examples lie, (example, ...) to (example, component).

        No farther than three standard deviations, so that trust learned near the training examples
        is not carried on without end.
        """
        rows = max(1, _MANY // max(1, features[:1].numel()))
        parts = [
            (few_columns(part).to(self.centre) - self.centre) @ self.axes
            for part in features.split(rows)
        ]
        return torch.cat(parts).clamp(-_FARTHEST, _FARTHEST)


def find_directions(features: Tensor) -> Directions | None:
    """The leading principal components of the training examples, labelled or not.

    Args:
        features: What the student reads behind its frozen part, shape (example, ...).

    Returns:
        None if the examples do not differ.
    """
    from sklearn.decomposition import PCA  # slow to import, and needed here alone

    step = -(-len(features) // _ROWS)
    rows = few_columns(features[::step]).double().cpu().numpy()
    largest = np.abs(rows).max(0, initial=0.0)
    unit = np.where(largest > 0, largest, 1.0)  # so that squares do not overflow
    n = min(_COMPONENTS, rows.shape[1], len(rows) - 1)
    scaled = rows / unit.max()
    if n < 1 or not (scaled.std(0) > 1e-9).any():
        return None
    found: Any = PCA(n, random_state=0).fit(scaled)
    spread = np.sqrt(found.explained_variance_)
    keep = spread > 1e-6 * spread[0]
    axes = found.components_[keep] / spread[keep, None] / unit.max()
    return Directions(
        centre=torch.from_numpy(found.mean_ * unit.max()).float(),
        axes=torch.from_numpy(axes.T.copy()).float(),
    )


def few_columns(features: Tensor) -> Tensor:
    """Whatever a student reads, as at most 1,024 floats for each example, far apart as before.

    Where there are more, each is added to a column by chance, or taken from it, so that distances
    and products stay what they were, give or take a few per cent (Charikar et al. 2002, the count
    sketch; Weinberger et al. 2009, arXiv:0902.2206).

    Args:
        features: Shape (example, ...), of any type.

    Returns:
        Shape (example, column).
    """
    flat = features.flatten(1)
    n = flat.shape[1]
    if n <= COLUMNS:
        return flat if flat.is_floating_point() else flat.float()
    where, sign = (part.to(flat.device) for part in sketch(n))
    found = torch.zeros(len(flat), COLUMNS, device=flat.device)
    rows = max(1, _PIECE // n)
    for into, part in zip(found.split(rows), flat.split(rows), strict=True):
        into.index_add_(1, where, part.float() * sign)
    return found


def sketch(n: int) -> tuple[Tensor, Tensor]:
    """To which column each of so many is added by `few_columns`, and its sign, both (column,)."""
    generator = torch.Generator().manual_seed(n)
    where = torch.randint(COLUMNS, (n,), generator=generator)
    return where, 2.0 * torch.randint(2, (n,), generator=generator) - 1
