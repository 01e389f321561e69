"""Numbers that are none: found where they arise, so that nobody takes them for an answer."""

from __future__ import annotations

from torch import Tensor

from mtbkd.types import InputError

CORRECT_INPUTS = "Correct or leave out what is missing or too large."
SCALE_INPUTS = "Its inputs are too large for the network: scale them."


def all_finite(values: Tensor) -> bool:
    """Whether there is neither NaN nor infinity; looks twice only where the sum says so."""
    if not values.is_floating_point():
        return True
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def check_finite(values: Tensor, what: str, remedy: str, first: int = 0) -> None:
    """Refuse NaN and infinity.

    Args:
        values: Shape (example, ...).
        what: What they are, in the plural.
        remedy: What the user should do, a sentence.
        first: Number of the first example among all of them.

    Raises:
        InputError: Naming the first example at fault.
    """
    if not all_finite(values):
        rows = (~values.isfinite()).flatten(1).any(1).nonzero()[:, 0]
        raise InputError(
            f"Expected finite {what}, but got NaN or infinity for {len(rows)} of {len(values)} "
            f"examples, the first in place {first + int(rows[0])}, counted from 0. {remedy}"
        )
