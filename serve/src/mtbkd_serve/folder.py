"""An exported folder: every byte is compared with its manifest before it is used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

MANIFEST, CONFIG, MODEL = "manifest.json", "config.json", "model.onnx"
EXAMPLES, NAMES = "examples.safetensors", "examples.json"
_OWN = "own_sha256"
_THEN = "Export the run again, or fetch the folder again."


class FolderError(ValueError):
    """What is served is not as it was exported; ``faults`` holds one message for each fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Named(BaseModel):
    """An output of the graph: its name and the shape that it has for one example."""

    name: str
    shape: list[int]


class Inputs(BaseModel):
    """What the graph reads, for one example."""

    what: str
    shape: list[int]
    dtype: Literal["float32", "uint8", "int64", "int32"]
    raw: bool
    columns: list[str]
    grid: tuple[int, int, float] | None

    @property
    def n_numbers(self) -> int:
        """How many there are."""
        return prod(self.shape)

    @property
    def pictures(self) -> bool:
        """Whether it reads images of 1 or 3 channels as bytes."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[0] in (1, 3)


class Policy(BaseModel):
    """Which answers the student may give alone, as ``mtbkd defer`` found."""

    goal: dict[str, Any]
    confidence: float
    score: Literal["max probability", "total", "aleatoric", "epistemic", "flags"]
    above: list[float | Literal["all", "none"]] = Field(min_length=1)


class Config(BaseModel):
    """The content of ``config.json``, as far as it is served."""

    task: str
    family: Literal["classification", "multilabel", "regression"]
    classes: list[str] = Field(min_length=1)
    level: float
    draws: int
    summary: str
    inputs: Inputs
    outputs: list[Named]
    flags: list[str]
    defer: Policy | None


@dataclass(frozen=True)
class Examples:
    """Training examples that new ones are compared with.

    Attributes:
        ids: By position.
        teachers: Their names.
        said: Probabilities, or means of numbers, (teacher, example, column); NaN where silent.
        labels: Class by number with -1 for none, (example,); else (example, column) with NaN.
        inputs: As the graph reads them, (example, ...); None where these are not raw.
    """

    ids: list[str]
    teachers: list[str]
    said: NDArray[np.float32]
    labels: NDArray[Any]
    inputs: NDArray[Any] | None


@dataclass(frozen=True)
class Student:
    """What is served.

    Attributes:
        config: What has to be known of it.
        session: That of onnxruntime.
        examples: What its answers are explained by.
    """

    config: Config
    session: onnxruntime.InferenceSession
    examples: Examples


def open_folder(folder: Path, threads: int = 1) -> Student:
    """Check a folder and read it; nothing that it names is run but the graph, by onnxruntime.

    Args:
        folder: As ``mtbkd export`` wrote it.
        threads: As many as onnxruntime takes for one product.

    Raises:
        FolderError: With one message for each file that is missing or was changed.
    """
    held = _checked(folder)
    try:
        config = Config.model_validate_json(held[CONFIG])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _wrong(folder / CONFIG, f"got {where}: {first['msg']}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            held[MODEL], options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own kinds; whatever it is, there is no graph
        raise _wrong(folder / MODEL, f"onnxruntime says: {str(error)[:300]}") from None
    return Student(config, session, _examples(folder, held))


def _checked(folder: Path) -> dict[str, bytes]:
    """The bytes of all files that are needed, each as the manifest has it."""
    record = _sealed(folder / MANIFEST)
    hashes, needed = record.get("sha256"), (CONFIG, MODEL, EXAMPLES, NAMES)
    if not isinstance(hashes, dict):
        raise _wrong(folder / MANIFEST, "it names no files")
    faults = [
        str(_wrong(folder / name, "the manifest does not name it"))
        for name in needed
        if name not in hashes
    ]
    held: dict[str, bytes] = {}
    for name, digest in hashes.items():
        if Path(name).name != name:
            faults.append(str(_wrong(folder / MANIFEST, f"it names {name!r:.100}")))
            continue
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            faults.append(str(_wrong(folder / name, f"got {error.strerror or error}")))
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            told = f"got other bytes: sha256 {found[:12]}… instead of {str(digest)[:12]}…"
            faults.append(str(_wrong(folder / name, told)))
        if name in needed:
            held[name] = data
    if faults:
        raise FolderError(*faults)
    return held


def _sealed(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds the hash of itself, as mtbkd's `save_sealed` writes."""
    try:
        data = path.read_bytes()
        record = json.loads(data)
        own = record.pop(_OWN)
        text = json.dumps(record)
        same = json.dumps({**record, _OWN: own}, indent=1).encode() + b"\n" == data
    except OSError as error:
        raise _wrong(path, f"got {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _wrong(path, "got something else") from None
    if not same or hashlib.sha256((path.name + text).encode()).hexdigest() != own:
        raise _wrong(path, "got other content than its own hash says")
    return record


def _examples(folder: Path, held: dict[str, bytes]) -> Examples:
    try:
        names, tensors = json.loads(held[NAMES]), load(held[EXAMPLES])
        found = Examples(
            ids=names["ids"],
            teachers=names["teachers"],
            said=tensors["said"],
            labels=tensors["labels"],
            inputs=tensors.get("inputs"),
        )
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _wrong(folder / EXAMPLES, f"got {error}") from None
    if found.said.shape[:2] != (len(found.teachers), len(found.ids)):
        raise _wrong(folder / EXAMPLES, f"got answers of shape {found.said.shape}")
    return found


def _wrong(path: Path, told: str) -> FolderError:
    return FolderError(f"Expected {path} as it was exported, but {told}. {_THEN}")
