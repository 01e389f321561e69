"""Labels that are numbers: one for each column of an example, NaN where missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtbkd.observation.base import Labels, Names


def number_labels(labels: Labels, n_rows: int, names: Names) -> tuple[Tensor, list[str]]:
    """Labels as float32 of shape (example, column), and what is wrong with them."""
    columns = names.columns
    shape = (n_rows, len(columns))
    if isinstance(labels, Tensor):
        labels = labels.detach().numpy(force=True)
    try:
        numbers = torch.as_tensor(np.array(labels, dtype=np.float32))
    except (TypeError, ValueError):
        return torch.empty(0), [
            f"Expected labels of the {names.owner} as numbers, NaN where missing, but got "
            f"{_first_word(labels)!r}. Give one number for each of {', '.join(columns)}."
        ]
    if numbers.dim() == 1 and len(columns) == 1:
        numbers = numbers[:, None]
    if tuple(numbers.shape) != shape:
        return torch.empty(0), [
            f"Expected labels of shape {shape} in the {names.owner}, one row for each "
            f"example and one column for each of {', '.join(columns)}, but got "
            f"{tuple(numbers.shape)}. Give NaN where one is missing."
        ]
    infinite = numbers.isinf().any(1)
    if infinite.any():
        return torch.empty(0), [
            f"Expected finite labels in the {names.owner}, but got infinity for id "
            f"{names.row(int(infinite.nonzero()[0]))}. Correct it, or give NaN."
        ]
    return numbers, []


def _first_word(labels: object) -> object:
    """Something among the labels that is not a number."""
    values = np.array(labels, dtype=object).ravel().tolist()
    return next((value for value in values if isinstance(value, str)), labels)
