"""Tables of all families, with the signatures that `mtbkd.outputs` is about to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mtbkd import outputs
from mtbkd.outputs import LOG_FLOOR, TeacherTable
from mtbkd.types import Family, InputError

_KINDS = {"multilabel": ("logits", "probs"), "regression": ("mean",)}


def make_table(
    name: str,
    values: ArrayLike | Tensor,
    *,
    kind: str,
    ids: Sequence[object],
    classes: Sequence[object],
    held_out: bool = True,
    family: Family = "classification",
    variance: ArrayLike | Tensor | None = None,
    partial: bool = False,
    class_map: Mapping[str, Any] | None = None,
    merge: bool = False,
) -> TeacherTable:
    """Check one teacher's outputs and turn them into the family's values.

    Raises:
        InputError: With one message for each fault.
    """
    given = tuple(map(str, classes))
    named = [(class_map or {}).get(c, c) for c in given]
    if merge or not all(isinstance(c, str) for c in named):
        raise InputError(
            f"Expected a class map of teacher {name!r} that renames, but got {class_map}. Give "
            "each class one name."
        )
    if family == "classification":
        table = outputs.make_table(
            name,
            values,
            kind=kind,  # pyright: ignore[reportArgumentType]
            ids=ids,
            classes=named,
            held_out=held_out,
        )
        return replace(table, partial=partial)
    numbers = np.asarray(values, dtype=np.float64)
    keys = tuple(map(str, ids))
    faults = []
    if kind not in _KINDS[family]:
        faults.append(
            f"Expected the kind of teacher {name!r}'s outputs among {', '.join(_KINDS[family])}, "
            f"but got {kind!r}. Declare one of them."
        )
    if numbers.shape != (len(keys), len(named)):
        faults.append(
            f"Expected {len(keys)} rows and {len(named)} columns from teacher {name!r}, but got "
            f"shape {numbers.shape}. Check the file's header and rows."
        )
    if not np.isfinite(numbers).all():
        faults.append(f"Expected finite outputs from teacher {name!r}, but got NaN. Mend them.")
    if kind == "probs" and not ((numbers >= 0) & (numbers <= 1)).all():
        faults.append(
            f"Expected probs of teacher {name!r} between 0 and 1, but got others. Correct them."
        )
    if faults:
        raise InputError(*faults)
    raw = torch.from_numpy(numbers)
    if family == "regression":
        spread = np.nan if variance is None else np.asarray(variance, dtype=np.float64)
        log_variance = torch.from_numpy(np.log(np.broadcast_to(spread, numbers.shape)))
        both = torch.stack([raw, log_variance], -1).float()
    else:
        odds = raw.logit() if kind == "probs" else raw
        both = torch.nn.functional.logsigmoid(torch.stack([-odds, odds], -1))
        both = torch.log_softmax(both.clamp_min(LOG_FLOOR), -1).float()
    return TeacherTable(name, both, keys, tuple(named), held_out, family, partial=partial)


def make_top_table(
    name: str,
    values: ArrayLike | Tensor,
    kept: ArrayLike | Tensor,
    tail: ArrayLike | Tensor | None,
    *,
    kind: str,
    ids: Sequence[object],
    classes: Sequence[object],
    held_out: bool = True,
) -> TeacherTable:
    """Check the outputs of a teacher that gives its most probable classes only.

    Raises:
        InputError: If there is no tail.
    """
    if tail is None:
        raise InputError(
            f"Expected the tail mass of teacher {name!r}, but got none. Give 1 - sum, or all "
            "classes."
        )
    numbers = np.asarray(values, dtype=np.float64)
    logs = np.log(numbers) if kind == "probs" else numbers
    both = np.column_stack([logs, np.log(np.asarray(tail, dtype=np.float64))])
    log_probs = torch.log_softmax(torch.from_numpy(both).clamp_min(LOG_FLOOR), -1).float()
    which = torch.as_tensor(np.asarray(kept))
    own = tuple(map(str, classes))
    return TeacherTable(name, log_probs, tuple(map(str, ids)), own, held_out, kept=which)
