"""Texts as hashed n-grams: numbers for a student that needs no model.

N-grams are hashed (Weinberger et al. 2009), weighted by how rare they are, and projected on the
leading directions of the training texts (latent semantic analysis, Deerwester et al. 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor, nn

from mtbkd.inputs.texts.hashing import BUCKETS, blocks, hashed
from mtbkd.types import InputError

DIMENSIONS = 128
"""Numbers of a text, where training texts have as many directions."""

_MOST = 50_000  # buckets that are kept
_FITTED_ON = 20_000  # texts
_ITERATIONS = 3  # of the randomised decomposition


@dataclass(frozen=True)
class NGrams:
    """How texts become numbers.

    Attributes:
        buckets: Hashes that are kept, ascending, shape (bucket,).
        rarity: Inverse document frequency of each, ``log((1 + n) / (1 + df)) + 1``, shape
            (bucket,).
        axes: Directions, so long that the mean variance over training texts is 1, shape (bucket,
            dimension).
        centre: Mean of the training texts on the axes, shape (dimension,).
    """

    buckets: Tensor
    rarity: Tensor
    axes: Tensor
    centre: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, to be kept; ``NGrams(**tensors)`` is the same again."""
        return {name: getattr(self, name) for name in ("buckets", "rarity", "axes", "centre")}

    def features(self, texts: Sequence[str]) -> Tensor:
        """Numbers of texts, float32, shape (text, dimension).

        A text that holds nothing known is a zero vector less the centre. Beside the result, memory
        does not grow with the number of texts.
        """
        found = torch.empty(len(texts), self.axes.shape[1])

        for rows in blocks(texts):
            known = weigh(count(texts[rows], self._places, len(self.buckets)), self.rarity.numpy())
            index, ends, weights = map(torch.from_numpy, (known.indices, known.indptr, known.data))
            summed = nn.functional.embedding_bag(
                index, self.axes, ends[:-1], mode="sum", per_sample_weights=weights
            )
            torch.sub(summed, self.centre, out=found[rows])
        return found

    @cached_property
    def _places(self) -> NDArray[np.int32]:
        return _places(self.buckets.numpy())


def fit_ngrams(texts: Sequence[str], *, seed: int, dimensions: int = DIMENSIONS) -> NGrams:
    """Choose n-grams and directions by training texts; labels play no part.

    Of more than 20,000 texts as many are looked at, drawn by the seed. Of the n-grams that two
    texts or more hold, the 50,000 in most texts are kept.

    Raises:
        InputError: If no text holds anything but spaces.
    """
    from sklearn.decomposition import TruncatedSVD  # slow to import, and needed here alone

    chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[:_FITTED_ON])
    some: list[str] = [texts[int(row)] for row in chosen]
    frequency = np.zeros(BUCKETS, np.int64)
    for rows in blocks(some):
        which, buckets = hashed(some[rows])
        once = np.unique(which.astype(np.int64) * BUCKETS + buckets) % BUCKETS
        frequency += np.bincount(once, minlength=BUCKETS)
    if not frequency.any():
        raise InputError(
            f"Expected words in the training texts, but got none in {len(texts)} of them. Name "
            "another column."
        )
    common = np.argsort(-frequency, kind="stable")[:_MOST]
    kept = np.sort(common[frequency[common] >= min(2, frequency.max())])
    rarity = (np.log((1 + len(some)) / (1 + frequency[kept])) + 1).astype(np.float32)
    places = _places(kept)
    matrix: Any = vstack(
        [weigh(count(some[rows], places, len(kept)), rarity) for rows in blocks(some)]
    )
    n = min(dimensions, *matrix.shape)
    svd: Any = TruncatedSVD(n, n_iter=_ITERATIONS, random_state=seed)
    found = torch.from_numpy(np.ascontiguousarray(svd.fit_transform(matrix))).float()
    unit = found.var(0, correction=0).mean().sqrt().clamp_min(1e-6)
    return NGrams(
        buckets=torch.from_numpy(kept),
        rarity=torch.from_numpy(rarity),
        axes=torch.from_numpy(np.ascontiguousarray(svd.components_.T)).float() / unit,
        centre=found.mean(0) / unit,
    )


def count(texts: Sequence[str], places: NDArray[np.int32], n: int) -> csr_matrix:
    """How often each text holds each of the n-grams that are kept, shape (text, bucket kept)."""
    rows, buckets = hashed(texts)
    columns = places[buckets]
    known = columns >= 0
    ones = np.ones(int(known.sum()), np.float32)
    return csr_matrix((ones, (rows[known], columns[known])), shape=(len(texts), n))


def weigh(counts: csr_matrix, rarity: NDArray[np.float32]) -> csr_matrix:
    """Logarithms of counts times rarity, each text of length 1; in place."""
    values = (1 + np.log(counts.data)) * rarity[counts.indices]
    sizes = np.diff(counts.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    squares = np.bincount(rows, values * values, len(sizes))
    counts.data = (values / np.sqrt(squares)[rows]).astype(np.float32)
    return counts


def _places(buckets: NDArray[np.int64]) -> NDArray[np.int32]:
    """Which of the kept buckets each one is, or -1, shape (bucket,)."""
    places = np.full(BUCKETS, -1, np.int32)
    places[buckets] = np.arange(len(buckets), dtype=np.int32)
    return places
