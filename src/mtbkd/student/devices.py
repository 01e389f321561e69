"""Where tensors live, and by how many threads they are worked on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mtbkd.types import InputError

_LOCK = threading.Lock()
_outside: list[int] = []  # what was set before each of the blocks that run now


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, as small matrices are slower on several; then as it was.

    Blocks may run beside each other in threads of Python: each leaves what the first has found.
    """
    with _LOCK:
        now = torch.get_num_threads()  # asked in any case: a new thread of Python then has its own
        _outside.append(_outside[0] if _outside else now)
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _LOCK:
            torch.set_num_threads(_outside.pop())


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
