"""What the teachers said: log-probabilities aligned by id and by class name, and their store."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtbkd.types import Family, InputError

Kind = Literal["logits", "probs", "log_probs"]

LOG_FLOOR = -16.0
"""Smallest log-probability kept, in nats: 1e-7, what float32 tells from zero beside one."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TeacherTable:
    """One teacher's outputs, checked, in its own order of examples and classes.

    Attributes:
        name: Of the teacher.
        values: As in `TeacherOutputs`, without the teacher axis, in the teacher's own columns.
        ids: One for each row.
        classes: Its own classes, labels or targets.
        held_out: False if the teacher was trained on these examples.
        family: What it predicts.
        kept: Its most probable classes, by position in ``classes``, shape (example, kept), for
            outputs that were cut to these; the last column of ``values`` is then the rest's.
        partial: Whether it is declared to know fewer classes than the data.
        covers: Own class to the classes of the data that it stands for, where that is several.
    """

    name: str
    values: Tensor
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    held_out: bool = True
    family: Family = "classification"
    kept: Tensor | None = None
    partial: bool = False
    covers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class TeacherOutputs:
    """All teachers on the same examples and classes.

    Attributes:
        names: Of the teachers.
        values: Classification: log-probabilities in nats, shape (teacher, example, class).
            Multi-label: log-probabilities of no and of yes, shape (teacher, example, label, 2).
            Regression: mean and log variance, shape (teacher, example, target, 2). Finite
            everywhere; where a teacher says nothing they mean nothing. The tensor may be mapped
            from a file and of half precision.
        mask: False where a teacher says nothing, shape (teacher, example) for classification, else
            (teacher, example, label or target).
        ids: Of the examples.
        classes: The data's classes, labels or targets.
        held_out: Whether no teacher was trained on these examples.
        family: What is predicted.
        blocks: Where some teacher does not tell all classes apart: for each teacher and class the
            first class of those that it has as one, -1 for a class that it does not know, shape
            (teacher, class). The values of a block stand in the column of its first class; all
            other columns hold the floor. None if every teacher knows every class.
        kept: For outputs cut to the most probable classes: which, shape (teacher, example, kept),
            -1 where fewer were kept. ``values`` then has shape (teacher, example, kept + 1), the
            last column for all other classes together.
    """

    names: tuple[str, ...]
    values: Tensor
    mask: Tensor
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    held_out: bool = True
    family: Family = "classification"
    blocks: Tensor | None = None
    kept: Tensor | None = None

    def at(self, ids: Sequence[str]) -> TeacherOutputs:
        """The outputs on the examples with these ids, in this order.

        Raises:
            InputError: If an id is not known.
        """
        row_of = {key: row for row, key in enumerate(self.ids)}
        unknown = [key for key in ids if key not in row_of]
        if unknown:
            raise InputError(
                f"Expected teacher outputs for every example, but got none for id "
                f"{unknown[0]!r} ({len(unknown)} such). Label it first."
            )
        rows = torch.tensor([row_of[key] for key in ids])
        return replace(
            self,
            values=self.values[:, rows],
            mask=self.mask[:, rows],
            ids=tuple(ids),
            kept=None if self.kept is None else self.kept[:, rows],
        )


def make_table(
    name: str,
    values: ArrayLike | Tensor,
    *,
    kind: Kind,
    ids: Sequence[object],
    classes: Sequence[object],
    held_out: bool = True,
) -> TeacherTable:
    """Check one teacher's outputs and turn them into log-probabilities.

    Args:
        name: Of the teacher.
        values: Shape (example, class).
        kind: What the numbers are. It is declared, never guessed, but refused when impossible.
        ids: One for each row.
        classes: One for each column.
        held_out: False if the teacher was trained on these examples.

    Raises:
        InputError: With one message for each fault.
    """
    numbers = np.asarray(values, dtype=np.float64)
    keys, columns = tuple(map(str, ids)), tuple(map(str, classes))
    if numbers.ndim != 2:
        raise InputError(
            f"Expected outputs of teacher {name!r} as (example, class), but got "
            f"{numbers.ndim} axes. Give a table."
        )
    faults = []
    if kind not in get_args(Kind):
        faults.append(
            f"Expected the kind of teacher {name!r}'s outputs among {', '.join(get_args(Kind))}, "
            f"but got {kind!r}. Declare one of them."
        )
    if numbers.size == 0:
        faults.append(f"Expected outputs from teacher {name!r}, but got none. Check the file.")
    if numbers.shape != (len(keys), len(columns)):
        faults.append(
            f"Expected {len(keys)} rows and {len(columns)} columns from teacher "
            f"{name!r}, one for each id and class, but got {numbers.shape[0]} and "
            f"{numbers.shape[1]}. Check the file's header and rows."
        )
    for what, labels in (("id", keys), ("class", columns)):
        repeated = [n for n, count in Counter(labels).items() if count > 1]
        if repeated:
            faults.append(
                f"Expected every {what} once from teacher {name!r}, but got "
                f"{repeated[0]!r} more than once. Remove the duplicate."
            )
    if not faults:
        faults += _value_faults(name, numbers, kind, keys)
    if faults:
        raise InputError(*faults)
    if kind == "probs":
        with np.errstate(divide="ignore"):
            numbers = np.log(numbers)
    log_probs = torch.log_softmax(torch.from_numpy(numbers).clamp_min(-1e4), -1)
    floored = torch.log_softmax(log_probs.clamp_min(LOG_FLOOR), -1).float()
    return TeacherTable(name, floored, keys, columns, held_out)


def _value_faults(
    name: str, numbers: NDArray[np.float64], kind: Kind, ids: tuple[str, ...]
) -> list[str]:
    """What is impossible about these numbers, given what they are declared to be."""
    bad = np.isnan(numbers).any(1) | np.isposinf(numbers).any(1)
    if kind != "log_probs":
        bad |= np.isinf(numbers).any(1)
    if bad.any():
        row = int(bad.argmax())
        return [
            f"Expected finite outputs from teacher {name!r}, but got NaN or infinity for id "
            f"{ids[row]!r} ({bad.sum()} such rows). Leave the example out or mend it."
        ]
    probs = np.exp(numbers) if kind == "log_probs" else numbers
    sums = probs.sum(1)
    wrong = (np.abs(sums - 1) > _SUM_TOLERANCE) | (probs < 0).any(1)
    if kind == "logits":
        if (numbers >= 0).all() and (np.abs(sums - 1) < 1e-4).all():
            return [
                f"Expected logits from teacher {name!r}, but got rows that are all "
                "probabilities (>= 0, sum 1). Declare kind='probs'."
            ]
        return []
    if wrong.any():
        row = int(wrong.argmax())
        hint = "kind='logits'" if kind == "probs" else "kind='logits' or kind='probs'"
        low = f" and smallest value {probs[row].min():.4g}" if (probs[row] < 0).any() else ""
        return [
            f"Expected {kind} of teacher {name!r} to be distributions, but got sum "
            f"{sums[row]:.4g}{low} for id {ids[row]!r} ({wrong.sum()} such rows). Normalise "
            f"them, or declare {hint} if that is what they are."
        ]
    return []


def align(
    tables: Sequence[TeacherTable],
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    *,
    missing: Literal["error", "mask"] = "error",
) -> TeacherOutputs:
    """Match teachers to examples by id and to classes by name.

    Args:
        tables: At least one.
        ids: Of the examples, in the order wanted.
        classes: In the order wanted.
        missing: Whether an example that a teacher does not know is an error or masked.

    Raises:
        InputError: With one message for each fault of each teacher.
    """
    if not tables:
        raise InputError("Expected one teacher or more, but got none. Name a teacher.")
    faults = [f for table in tables for f in _alignment_faults(table, ids, classes, missing)]
    repeated = [n for n, count in Counter(t.name for t in tables).items() if count > 1]
    if repeated:
        faults.append(
            f"Expected teachers with different names, but got {repeated[0]!r} more "
            "than once. Rename one."
        )
    if faults:
        raise InputError(*faults)
    log_probs, mask = [], []
    for table in tables:
        row_of = {key: row for row, key in enumerate(table.ids)}
        column_of = {c: i for i, c in enumerate(table.classes)}
        rows = torch.tensor([row_of.get(key, -1) for key in ids])
        columns = torch.tensor([column_of[c] for c in classes])
        known = rows >= 0
        picked = table.values[rows.clamp_min(0)][:, columns]
        flat = torch.full_like(picked, -float(np.log(len(classes))))
        log_probs.append(torch.where(known[:, None], picked, flat))
        mask.append(known)
    names = tuple(t.name for t in tables)
    held_out = all(t.held_out for t in tables)
    return TeacherOutputs(names, torch.stack(log_probs), torch.stack(mask), ids, classes, held_out)


def _alignment_faults(
    table: TeacherTable, ids: tuple[str, ...], classes: tuple[str, ...], missing: str
) -> list[str]:
    faults = []
    if set(table.classes) != set(classes):
        extra = sorted(set(table.classes) - set(classes))
        lacking = sorted(set(classes) - set(table.classes))
        faults.append(
            f"Expected teacher {table.name!r} to know the classes {', '.join(classes)}, "
            f"but it lacks {lacking or 'none'} and adds {extra or 'none'}. Rename its "
            "columns to the data's class names."
        )
    wanted, given = set(ids), set(table.ids)
    unknown = [key for key in table.ids if key not in wanted]
    absent = [key for key in ids if key not in given]
    if len(table.ids) != len(ids) and missing == "error":
        faults.append(
            f"Expected {len(ids)} rows from teacher {table.name!r}, one for each "
            f"example, but got {len(table.ids)}. Give all of them, or pass "
            "missing='mask' if it does not know some."
        )
    elif absent and missing == "error":
        faults.append(
            f"Expected every example from teacher {table.name!r}, but id {absent[0]!r} "
            f"is missing ({len(absent)} such). Give it, or pass missing='mask'."
        )
    if unknown:
        faults.append(
            f"Expected only ids of the data from teacher {table.name!r}, but got "
            f"{unknown[0]!r} ({len(unknown)} such). Remove them or check the ids."
        )
    return faults


def save_outputs(folder: Path, outputs: TeacherOutputs) -> None:
    """Write one shard and a manifest with its hash; the manifest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    shard = folder / "outputs.safetensors"
    partial = folder / ".outputs.safetensors"
    save_file({"values": outputs.values.contiguous(), "mask": outputs.mask}, str(partial))
    partial.rename(shard)
    manifest = {
        "teachers": outputs.names,
        "classes": outputs.classes,
        "ids": outputs.ids,
        "held_out": outputs.held_out,
        "sha256": hashlib.sha256(shard.read_bytes()).hexdigest(),
    }
    partial = folder / ".manifest.json"
    partial.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    partial.rename(folder / "manifest.json")


def load_outputs(folder: Path) -> TeacherOutputs:
    """Read a store and check that its bytes are those that were written.

    Raises:
        InputError: If the store is incomplete or was changed.
    """
    shard = folder / "outputs.safetensors"
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(shard.read_bytes()).hexdigest()
        expected = manifest["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"Expected a store of teacher outputs in {folder}, but it is incomplete "
            f"({error}). Delete it and label again."
        ) from None
    if digest != expected:
        raise InputError(
            f"Expected {shard} as it was written (sha256 {expected[:12]}…), but its "
            f"bytes were changed ({digest[:12]}…). Delete {folder} and label again."
        )
    tensors = load_file(str(shard))
    return TeacherOutputs(
        tuple(manifest["teachers"]),
        tensors["values"],
        tensors["mask"],
        tuple(manifest["ids"]),
        tuple(manifest["classes"]),
        manifest["held_out"],
    )
