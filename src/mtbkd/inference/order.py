"""In which order many examples are read: blocks of neighbours by chance, and rows within some."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mtbkd.types import Generators

LARGE = 2**28
"""Bytes of features above which blocks are shuffled."""
_BLOCK, _TOGETHER = 2**20, 64  # bytes of a block, and blocks whose rows are shuffled together


def shuffled(n_rows: int, row_bytes: int, size: int, generators: Generators) -> Iterator[Tensor]:
    """Batches of rows without end, each row once in every pass.

    The order of blocks is drawn for each pass, and the rows of 64 blocks in that order are
    shuffled together: a file is read in pieces of a megabyte, and examples that lie side by side in
    it, as those of one class may, do not come together.

    Args:
        n_rows: How many rows there are.
        row_bytes: Bytes of a row.
        size: Rows of a batch.
        generators: One for each chain, each of which has an order of its own.

    Yields:
        Rows, shape (chain, size).
    """
    block = max(1, _BLOCK // row_bytes)
    streams = [_batches(n_rows, block, size, generator) for generator in generators]
    while True:
        yield torch.stack([next(stream) for stream in streams])


def _batches(n_rows: int, block: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of one chain, shape (size,)."""
    device = generator.device
    waiting = torch.empty(0, dtype=torch.long, device=device)
    within = torch.arange(block, device=device)
    while True:
        blocks = torch.randperm(-(-n_rows // block), generator=generator, device=device)
        for some in blocks.split(_TOGETHER):
            rows = (some[:, None] * block + within).flatten()
            rows = rows[rows < n_rows]
            rows = rows[torch.randperm(len(rows), generator=generator, device=device)]
            waiting = torch.cat([waiting, rows])
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
