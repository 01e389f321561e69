"""Rows dealt into folds, at random or with groups kept together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.types import InputError


def random_folds(n: int, k: int, seed: int) -> Tensor:
    """Folds of nearly equal size, at random: (n,), each in ``0 .. k - 1``.

    Raises:
        InputError: If there are fewer than two folds, or more folds than rows.
    """
    return group_folds(range(n), k, seed)


def group_folds(groups: Sequence[Any], k: int, seed: int) -> Tensor:
    """Folds that keep groups together, such as homologous proteins.

    Groups are dealt in random order, the largest first, each to the smallest fold.

    Returns:
        The fold of each row of ``groups``, int64, shape (row,).

    Raises:
        InputError: If there are fewer than two folds, or more folds than groups.
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if not 2 <= k <= len(names):
        raise InputError(
            f"Expected between 2 folds and one for each of {len(names)} groups, but got {k}. "
            "Correct the number of folds."
        )
    sizes = np.bincount(codes, minlength=len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    filled, fold = np.zeros(k, np.int64), np.zeros(len(names), np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold[group] = filled.argmin()
        filled[fold[group]] += sizes[group]
    return torch.from_numpy(fold[codes])
