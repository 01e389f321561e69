"""The training examples that are most like an example to the student."""

from __future__ import annotations

import torch
from torch import Tensor

from mtbkd.explain.outside import Seen

_ROWS = 1024


def nearest(seen: Seen, known: Seen, n: int) -> tuple[Tensor, Tensor]:
    """The nearest of the known examples in what the student's last layer reads.

    Args:
        seen: Examples, from `mtbkd.explain.outside.see`.
        known: Those to choose from.
        n: How many; all, if there are no more.

    Returns:
        Their positions, nearest first, and Euclidean distances, each (example, n).
    """
    n = min(n, len(known.hidden))
    parts = [
        torch.cdist(part, known.hidden.float()).topk(n, largest=False)
        for part in seen.hidden.float().split(_ROWS)
    ]
    return torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])
