"""What is wrong with a teacher's numbers, given what they are declared; which classes are kept."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mtbkd.observation.classes import SUM_TOLERANCE
from mtbkd.observation.log_probs import LOG_FLOOR as LOG_FLOOR
from mtbkd.observation.log_probs import floored as floored
from mtbkd.types import Floats, InputError, Ints, array_of


def most_probable(log_probs: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k most probable classes, their values and the rest's, (example, 1), floored."""
    values, which = log_probs.topk(k, 1)
    rest = log_probs.scatter(1, which, -torch.inf).logsumexp(1, keepdim=True)
    return which, values, rest.clamp_min(LOG_FLOOR)


def in_order(which: Tensor, values: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Kept classes from the most probable on, then by position, padded with -1 and the floor."""
    by_class = which.argsort(1)
    which, values = which.gather(1, by_class), values.gather(1, by_class)
    ranked = values.masked_fill(which < 0, -torch.inf).sort(dim=1, descending=True, stable=True)[1]
    short = (0, width - which.shape[1])
    return (
        torch.nn.functional.pad(which.gather(1, ranked), short, value=-1),
        torch.nn.functional.pad(values.gather(1, ranked), short, value=LOG_FLOOR),
    )


def numbers_of(what: str, values: ArrayLike | Tensor) -> Floats:
    """What was given as an array of numbers.

    Raises:
        InputError: If it is none.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        raw = array_of(values)
        if raw.dtype.kind in "c":
            raise TypeError("complex numbers")
        return raw.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"Expected {what} as a table of numbers, but got: {error}. Mend the table."
        ) from None


def kind_faults(name: str, kind: str, kinds: tuple[str, ...]) -> list[str]:
    """What is wrong with a declared kind."""
    if kind in kinds:
        return []
    return [
        f"Expected the kind of teacher {name!r}'s outputs among {', '.join(kinds)}, "
        f"but got {kind!r}. Declare one of them."
    ]


def repeated(name: str, what: str, labels: tuple[str, ...]) -> list[str]:
    """Ids or classes that come twice."""
    if len(set(labels)) == len(labels):
        return []
    first = next(n for n, count in Counter(labels).items() if count > 1)
    return [
        f"Expected every {what} once from teacher {name!r}, but got "
        f"{first!r} more than once. Remove the duplicate."
    ]


def finite_faults(name: str, numbers: Floats, kind: str, ids: tuple[str, ...]) -> list[str]:
    """Rows with NaN or infinity; only the log of zero may be infinite."""
    bad = np.isnan(numbers).any(1) | np.isposinf(numbers).any(1)
    if kind != "log_probs":
        bad |= np.isinf(numbers).any(1)
    if not bad.any():
        return []
    return [
        f"Expected finite outputs from teacher {name!r}, but got NaN or infinity for id "
        f"{ids[int(bad.argmax())]!r} ({bad.sum()} such rows). Leave the example out or mend it."
    ]


def log_variance(
    name: str,
    variance: ArrayLike | Tensor,
    ids: tuple[str, ...],
    columns: tuple[str, ...],
) -> tuple[Floats, list[str]]:
    """Log variance, shape (example, target), and its faults."""
    shape = (len(ids), len(columns))
    given = numbers_of(f"the variance of teacher {name!r}", variance)
    if given.shape == shape[:1] and shape[1] == 1:
        given = given[:, None]
    if given.shape not in ((), shape[1:], shape):
        return given, [
            f"Expected the variance of teacher {name!r} as one number, one for each of "
            f"{shape[1]} targets, or of shape {shape}, but got {given.shape}. Give one of these."
        ]
    full = np.broadcast_to(given, shape)
    wrong = ~(np.isfinite(full) & (full > 0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        return given, [
            f"Expected variances of teacher {name!r} above zero and finite, but got "
            f"{full[row, column]:.4g} for {columns[column]!r} of id {ids[row]!r} ({wrong.sum()} "
            "such). Correct them, or give variance=None if it has none."
        ]
    return np.log(full), []


def kept_positions(
    name: str, kept: ArrayLike | Tensor, classes: tuple[str, ...]
) -> tuple[Ints, list[tuple[int, object, int]]]:
    """Positions of kept classes, -1 for padding; row, value and number of what is no class.

    Raises:
        InputError: If they are no table.
    """
    try:
        given = kept.detach().cpu().numpy() if isinstance(kept, Tensor) else np.asarray(kept)
    except ValueError as error:
        raise InputError(
            f"Expected kept classes of teacher {name!r} as a table, but got: {error}. Give every "
            "example the same number, padded with -1."
        ) from None
    if given.dtype.kind in "iu":
        which = given.astype(np.int64)
        wrong = (which < -1) | (which >= len(classes))
    else:
        names, inverse = np.unique(given.astype(str), return_inverse=True)
        position = {"": -1} | dict(zip(classes, range(len(classes)), strict=True))
        found = np.array([position.get(n, -2) for n in names.tolist()], dtype=np.int64)
        which = found[inverse].reshape(given.shape)
        wrong = which < -1
    if not wrong.any():
        return which, []
    where = np.argwhere(wrong)[0]
    return which, [(int(where[0]) if len(where) else 0, given[tuple(where)], int(wrong.sum()))]


def top_faults(
    name: str,
    numbers: Floats,
    which: Ints,
    tail: Floats,
    kind: str,
    ids: tuple[str, ...],
    n_classes: int,
) -> list[str]:
    """What is impossible about kept classes, their numbers and their tail."""
    padding = which < 0
    with np.errstate(over="ignore"):
        probs = np.where(padding, 0.0, np.exp(numbers) if kind == "log_probs" else numbers)
    bad = ~np.isfinite(probs).all(1) | ~np.isfinite(tail)
    if bad.any():
        row = int(bad.argmax())
        return [
            f"Expected finite outputs and tails from teacher {name!r}, but got NaN or infinity for "
            f"id {ids[row]!r} ({bad.sum()} such rows). Leave the example out or mend it."
        ]
    faults = []
    ordered = np.sort(which, 1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)
    if twice.any():
        row = int(twice.argmax())
        faults.append(
            f"Expected different kept classes from teacher {name!r}, but got one more than once "
            f"for id {ids[row]!r} ({twice.sum()} such rows). Remove the duplicate."
        )
    sums = probs.sum(1) + tail
    wrong = (np.abs(sums - 1) > SUM_TOLERANCE) | (probs < 0).any(1) | (tail < 0)
    if wrong.any():
        row = int(wrong.argmax())
        smallest = min(probs[row].min(), tail[row])
        low = f" and smallest value {smallest:.4g}" if smallest < 0 else ""
        faults.append(
            f"Expected {kind} and tail of teacher {name!r} to be distributions, but got sum "
            f"{sums[row]:.4g}{low} for id {ids[row]!r} ({wrong.sum()} such rows). Give 1 - sum as "
            "tail, or declare the other kind if that is what they are."
        )
    beyond = (~padding).all(1) & (tail > SUM_TOLERANCE) & (which.shape[1] == n_classes)
    if beyond.any():
        row = int(beyond.argmax())
        faults.append(
            f"Expected no tail from teacher {name!r} where all {n_classes} classes are kept, but "
            f"got {tail[row]:.4g} for id {ids[row]!r} ({beyond.sum()} such rows). Name the "
            "missing classes."
        )
    return faults
