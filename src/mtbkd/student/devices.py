"""Where tensors live."""

from __future__ import annotations

import torch

from mtbkd.types import InputError


def find_device(device: str, *, double: bool = False) -> torch.device:
    """The device of this name; ``auto`` is an accelerator if there is one, else the CPU.

    Args:
        device: As PyTorch names it, or ``auto``.
        double: Whether double precision is needed, so that ``auto`` may only be CUDA or the CPU.

    Raises:
        InputError: If it cannot be used here.
    """
    if device == "auto":
        there = torch.cuda.is_available() if double else torch.accelerator.is_available()
        found = torch.accelerator.current_accelerator() if there else None
        return found or torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"Expected a device of this machine, but got {device!r} "
            f"({str(error).splitlines()[0]}). Choose 'auto' or 'cpu'."
        ) from None
