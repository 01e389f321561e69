"""What teachers do not tell apart: classes merged, unknown, or in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spaces:
    """The classes that each teacher tells apart, where that is not all of them.

    Attributes:
        blocks: As in `TeacherOutputs`, shape (teacher, class).
        unions: Positions of the classes of each set whose total probability some teacher speaks
            of: blocks of several classes, what a partial teacher knows, and the rest.
        known: Which set of ``unions`` each teacher knows; -1 for all classes.
        outside: Which set each teacher does not know; -1 for none.
        merged: For each teacher and union whether it is one of its blocks: its first class, or -1,
            shape (teacher, union).
    """

    blocks: Tensor
    unions: tuple[Tensor, ...]
    known: tuple[int, ...]
    outside: tuple[int, ...]
    merged: Tensor

    @property
    def sizes(self) -> Tensor:
        """Classes in the block that stands in each column, 0 where none does: (teacher, class)."""
        counts = torch.zeros_like(self.blocks)
        inside = self.blocks >= 0
        return counts.scatter_add_(1, self.blocks.clamp_min(0), inside.to(counts.dtype))


def find_spaces(blocks: Tensor) -> Spaces:
    """Work out which sets of classes the teachers speak of: (teacher, class) to `Spaces`."""
    sets: dict[tuple[int, ...], int] = {}

    def place(members: Tensor) -> int:
        return sets.setdefault(tuple(members.nonzero()[:, 0].tolist()), len(sets))

    known, outside, merged = [], [], []
    for own in blocks:
        partial = bool((own < 0).any())
        known.append(place(own >= 0) if partial else -1)
        outside.append(place(own < 0) if partial else -1)
        found = {}
        for first in own[own >= 0].unique().tolist():
            if (own == first).sum() > 1:
                found[place(own == first)] = first
        merged.append(found)
    table = torch.full((len(blocks), len(sets)), -1)
    for k, found in enumerate(merged):
        for union, first in found.items():
            table[k, union] = first
    unions = tuple(torch.tensor(members, device=blocks.device) for members in sets)
    return Spaces(blocks, unions, tuple(known), tuple(outside), table.to(blocks.device))


def extended(log_q: Tensor, unions: Sequence[Tensor]) -> Tensor:
    """Add the log probability of each union: (..., class) to (..., class and union)."""
    if not unions:
        return log_q
    sums = [torch.logsumexp(log_q[..., members], -1) for members in unions]
    return torch.cat([log_q, torch.stack(sums, -1)], -1)


def block_logits(log_probs: Tensor, softening: float | Tensor, spaces: Spaces) -> Tensor:
    """Log-probabilities of blocks, softened as if the classes of each were equally probable.

    Args:
        log_probs: Each block in the column of its first class, shape (teacher, example, class).
        softening: Divides them; one number, or a tensor that broadcasts.
        spaces: What the teachers tell apart.

    Returns:
        The same shape, not normalised, ``-inf`` in all other columns.
    """
    sizes = spaces.sizes.to(log_probs.dtype)[:, None]
    spread = sizes.clamp_min(1).log()
    logits = (log_probs - spread) / softening + spread
    return logits.masked_fill(sizes == 0, -torch.inf)
