"""Principal components as the student's inputs: fewer, and easier for its chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

COMPONENTS = 48
"""How many, where they pay: measured on images of 784 pixels, see docs/departures.md."""
_WIDE = 64  # inputs up to which they are read as they are
_ROWS = 8192  # examples that the components are found on


class Components(nn.Module):
    """A fixed linear map to the leading principal components, all in one unit.

    Attributes:
        centre: Mean of the inputs, shape (feature,).
        axes: Directions, shape (feature, component), so long that the components' mean variance
            is 1.
    """

    centre: Tensor
    axes: Tensor

    def __init__(self, inputs: Tensor, n: int) -> None:
        super().__init__()
        centre, axes = _principal(inputs.flatten(1), n)
        self.register_buffer("centre", centre)
        self.register_buffer("axes", axes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of shape (example, ...) to (example, component)."""
        return (inputs.flatten(1) - self.centre) @ self.axes


def n_components(asked: int | str | None, n_features: int) -> int | None:
    """How many components are read; None for the inputs as they are.

    Args:
        asked: A number, ``auto``, or None.
        n_features: How many inputs there are.
    """
    if asked == "auto":
        return COMPONENTS if n_features > _WIDE else None
    return None if asked is None else min(int(asked), n_features)


def _principal(inputs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Centre and axes; of fewer examples than components, the axes left over are zero."""
    from sklearn.decomposition import PCA  # slow to import, and needed here alone

    rows = inputs[:: -(-len(inputs) // _ROWS)].double().cpu().numpy()
    found = min(n, *rows.shape)
    with np.errstate(divide="ignore", invalid="ignore"):  # where examples do not differ
        pca: Any = PCA(found, svd_solver="covariance_eigh").fit(rows)
    axes = np.zeros((rows.shape[1], n))
    unit = np.sqrt(max(float(pca.explained_variance_.clip(0).mean()), 1e-12))
    axes[:, :found] = pca.components_.T / unit
    return torch.from_numpy(pca.mean_).float(), torch.from_numpy(axes).float()
