"""What a frozen model makes of rows: computed once, kept by content, shared between runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtbkd.inputs.cache import keep, recall, share, tidy
from mtbkd.types import InputError, Report, quiet

_KEPT_ROWS, _KEPT_SECONDS = 2048, 60.0  # what is lost at most when a run is killed


@dataclass(frozen=True)
class FeaturesOf:
    """A frozen model and the rows that it is asked about.

    Attributes:
        name: What messages call the model.
        width: Numbers in the features of a row.
        key: What features depend on besides the row, as a name of a folder; it is given a folder
            where digests of large files are remembered.
        about: The same in words, for those who tidy up the cache; has the ``precision``.
        compute: Features of the rows at these positions, in batches of any order: positions, and
            features of shape (row, width).
    """

    name: str
    width: int
    key: Callable[[Path], str]
    about: dict[str, Any]
    compute: Callable[[list[int]], Iterator[tuple[list[int], Tensor]]]


def through_cache(
    features: FeaturesOf, keys: Sequence[bytes], cache: Path | None, report: Report = quiet
) -> Tensor:
    """Features of all rows; rows of the same key are computed once.

    Args:
        features: The model; it is not asked if all features are kept.
        keys: A hash of the content of each row, 32 bytes.
        cache: A folder where features are kept, see `mtbkd.inputs.cache`; None keeps none.
        report: Called after every batch.

    Returns:
        float32, shape (row, width).

    Raises:
        InputError: If features are not finite or cannot be kept.
    """
    first: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    own = list(first)
    place = {key: i for i, key in enumerate(own)}
    folder = None
    if cache is None:
        found = torch.zeros(len(own), features.width)
        known = torch.zeros(len(own), dtype=torch.bool)
    else:
        folder = cache / "features" / features.key(cache / "digests")
        tidy(folder)
        found, known = recall(folder, own, features.width)
    missing = (~known).nonzero().flatten().tolist()
    stage, total = f"features of {features.name}", len(own)
    if len(missing) < total:
        report(stage, total - len(missing), total)
    if missing:
        if folder is not None and not (folder / "about.json").exists():
            about = json.dumps(features.about, indent=1) + "\n"
            share(folder / "about.json", about.encode())
        done, pending, last = total - len(missing), [], time.monotonic()
        with _all_cores():
            for batch, values in features.compute([first[own[i]] for i in missing]):
                if not values.isfinite().all():
                    raise InputError(
                        f"Expected finite features from the model {features.name!r}, but got NaN "
                        f"or infinity in {features.about['precision']}. Set its precision to "
                        "float32."
                    )
                rows = [place[keys[row]] for row in batch]
                found[rows] = values
                pending += rows
                done += len(rows)
                late = time.monotonic() - last > _KEPT_SECONDS
                if folder is not None and (len(pending) >= _KEPT_ROWS or late or done == total):
                    keep(folder, [own[row] for row in pending], found[pending])
                    pending, last = [], time.monotonic()
                report(stage, done, total)
    return found[torch.tensor([place[key] for key in keys], dtype=torch.int64)]


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Rows of so many tokens in batches of similar length, the longest first.

    A batch is filled up to its longest row, to ``max_tokens`` at most; a longer row is alone.

    >>> list(batches([2, 9, 3, 3], 6))
    [[1], [2, 3], [0]]
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@contextmanager
def _all_cores() -> Iterator[None]:
    """As many threads as there are cores, or as ``$OMP_NUM_THREADS`` says, for large matrices."""
    before = torch.get_num_threads()
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(os.cpu_count() or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
