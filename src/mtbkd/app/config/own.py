"""Your own examples and teachers, as a configuration describes them: checked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from mtbkd.types import Family


def _text(value: Any) -> Any:
    """Whole numbers as text; YAML reads a bare ``yes`` or ``off`` as true or false."""
    if isinstance(value, bool):
        raise ValueError(f"text; write '{'yes' if value else 'no'}' in quotes if that is its name")
    return str(value) if isinstance(value, int) else value


Name = Annotated[str, BeforeValidator(_text)]

_SHARED = {"held_out", "partial", "class_map", "merge"}
_MODEL = _SHARED | {"reads", "top"}
_KEYS: dict[str, set[str]] = {
    "factory": _MODEL | {"options", "kind", "classes", "variance"},
    "hugging_face": _MODEL | {"task", "device", "precision", "batch_size"},
    "onnx": _MODEL | {"kind", "classes", "output"},
    "table": _SHARED | {"kind", "id", "variance"},
    "backbone": {"device", "precision", "max_tokens", "limit", "folds"},
}
_NEEDS = {"hugging_face": ("reads",), "onnx": ("kind", "classes"), "table": ("kind",)}


class TeacherConfig(BaseModel):
    """One of your own teachers: exactly one of the first five keys says what it is.

    Attributes:
        factory: ``module:function`` of your own code, beside the configuration file.
        hugging_face: A folder, or an id on the hub.
        onnx: An ONNX file.
        table: A file of its outputs: CSV, Parquet, NPZ or safetensors.
        backbone: A frozen protein language model, a folder or an id on the hub. Heads on its
            features are trained on the labels of training examples and answer out of fold, so it
            is held out always.
        reads: What it is asked with: the name of a column of text or of paths (relative to the
            folder of the configuration), or a list of numeric columns. If not given, what the
            student reads: the features, or the sequences.
        task: Of a Hugging Face model; ``image`` reads paths.
        kind: What its numbers are.
        classes: Its own classes, labels or targets, one for each column.
        class_map: Own class to the class or classes of the data that it means, or to none.
        merge: Whether several own classes may mean the same.
        partial: Whether it knows only some classes of the data.
        held_out: False if it was trained on these examples.
        top: Keep only this many most probable classes.
        variance: Of a table's targets: a number or one of each. Of a factory's function: true if
            it gives variances.
        options: Passed to the factory by name.
        id: Which column of a table holds the ids.
        output: Which output of an ONNX model to take.
        device: As PyTorch names it.
        precision: Below ``float32`` a Hugging Face model runs under autocast, and a backbone has
            such weights. ``auto`` is what the device is good at for a backbone, else ``float32``.
        batch_size: Most examples in one call of a Hugging Face model.
        max_tokens: Of a batch that a backbone reads; by the device if not given.
        limit: Residues that a backbone is shown of a protein at most, from both ends; as many as
            the model has positions for if not given.
        folds: Parts of the training examples; each head is trained without one of them.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    factory: str | None = None
    hugging_face: str | None = None
    onnx: str | None = None
    table: str | None = None
    backbone: str | None = None
    reads: str | list[str] | None = None
    task: Literal["text", "image"] = "text"
    kind: Literal["logits", "probs", "log_probs", "mean"] | None = None
    classes: list[Name] | None = None
    class_map: dict[Name, Name | list[Name] | None] | None = None
    merge: bool = False
    partial: bool = False
    held_out: bool = True
    top: int | None = Field(ge=1, default=None)
    variance: bool | float | list[float] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    id: str = "id"
    output: str | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: int = Field(ge=1, default=32)
    max_tokens: int | None = Field(ge=1, default=None)
    limit: int | None = Field(ge=2, default=None)
    folds: int = Field(ge=3, default=5)

    @property
    def source(self) -> str:
        """Which of the five keys is given."""
        return next(key for key in _KEYS if getattr(self, key) is not None)

    @property
    def given(self) -> set[str]:
        """Keys that differ from their defaults."""
        return {
            key
            for key, field in type(self).model_fields.items()
            if getattr(self, key) != field.get_default(call_default_factory=True)
        }

    @model_serializer(mode="wrap")
    def _own_keys(self, render: Any) -> dict[str, Any]:
        """Only the keys that this kind of teacher has."""
        wanted = _KEYS[self.source] | {self.source}
        return {key: value for key, value in render(self).items() if key in wanted}

    @model_validator(mode="after")
    def _one_source(self) -> TeacherConfig:
        given = [key for key in _KEYS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"Expected one of the keys {', '.join(_KEYS)}, but got "
                f"{' and '.join(given) or 'none'}. Say once what the teacher is."
            )
        source = given[0]
        # a stored configuration names defaults too, so what counts is what differs from them
        foreign = sorted(self.given - _KEYS[source] - {source})
        lacking = [key for key in _NEEDS.get(source, ()) if getattr(self, key) is None]
        if foreign:
            raise ValueError(
                f"Expected beside {source} only the keys {', '.join(sorted(_KEYS[source]))}, but "
                f"got {', '.join(foreign)}. Remove them."
            )
        if lacking:
            raise ValueError(
                f"Expected {' and '.join(lacking)} beside {source}, but got none. Add "
                f"{'it' if len(lacking) == 1 else 'them'}."
            )
        numeric = isinstance(self.variance, float | list)
        if self.variance is not None and numeric != (source == "table"):
            raise ValueError(
                f"Expected variance of a table as numbers, and of a factory as true or false, but "
                f"got {self.variance!r} beside {source}. Correct it."
            )
        return self


class OwnConfig(BaseModel):
    """Your own examples and teachers.

    Attributes:
        family: What is predicted.
        examples: A file of one row for each example: CSV, TSV (both also gzipped), Parquet or NPZ.
        labels: The column of labels, or several of them; an empty cell is a missing label.
        teachers: By name.
        id: The column of ids.
        features: Numeric columns that the student reads; all that are not named otherwise if not
            given and there are no sequences.
        sequence: The column of protein sequences, if examples are proteins.
        encoder: What makes numbers of sequences for the student: ``features``, which are hand-made
            and need no model, or a protein language model, a folder or an id on the hub.
            ``features`` if there are sequences and no numeric features are named.
        group: The column of groups that stay together, such as clusters of homologous proteins:
            in one split, and in one fold of teachers with a backbone. An example whose cell is
            empty is a group of its own.
        split: The column that says ``train``, ``calibration`` or ``test``; if not given, labelled
            examples are split by seed (60, 20 and 20 %) and all others are trained on.
        classes: The data's classes, in order; the labels found, sorted, if not given.
        missing: Whether teachers may lack examples: ``error`` or ``mask``.
        folder: What paths are relative to; the folder of the configuration file.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    family: Family = "classification"
    examples: str
    labels: str | list[str]
    teachers: dict[Name, TeacherConfig]
    id: str = "id"
    features: list[str] | None = None
    sequence: str | None = None
    encoder: str | None = None
    group: str | None = None
    split: str | None = None
    classes: list[Name] | None = None
    missing: Literal["error", "mask"] = "error"
    folder: str = "."

    @property
    def targets(self) -> list[str]:
        """The columns of labels."""
        return [self.labels] if isinstance(self.labels, str) else self.labels

    @property
    def student_encoder(self) -> str | None:
        """What makes numbers of sequences for the student; None if it reads numeric columns."""
        if self.sequence is None or self.features is not None:
            return None
        return self.encoder or "features"

    @field_validator("teachers")
    @classmethod
    def _teachers(cls, value: dict[str, TeacherConfig]) -> dict[str, TeacherConfig]:
        if not value:
            raise ValueError("Expected one teacher or more, but got none. Name one.")
        seen: dict[str, str] = {}
        for name in value:
            other = seen.setdefault(slug(name), name)
            if other != name:
                raise ValueError(
                    f"Expected names of teachers that differ in more than signs and capitals, but "
                    f"got {other!r} and {name!r}. Rename one."
                )
            if not slug(name):
                raise ValueError(
                    f"Expected a name of letters and digits, but got {name!r}. Rename the teacher."
                )
        return value

    @model_validator(mode="after")
    def _columns(self) -> OwnConfig:
        if self.family == "classification" and not isinstance(self.labels, str):
            raise ValueError(
                "Expected one column of labels for classification, but got a list. Name one "
                "column, or set family to multilabel."
            )
        if self.family != "classification" and self.classes is not None:
            raise ValueError(
                f"Expected classes of classification only, but got them for {self.family}, whose "
                f"columns of labels are named. Remove them."
            )
        others = [c for c in (self.split, self.sequence, self.group) if c is not None]
        columns = [self.id, *self.targets, *others]
        for name in self.features or []:
            if name in columns:
                raise ValueError(
                    "Expected features that are not ids, labels or splits, nor sequences or "
                    f"groups, but got {name!r}. Remove it from one of them."
                )
        several = [*columns, *(self.features or [])]
        twice = next((c for c in several if several.count(c) > 1), None)
        if twice is not None:
            raise ValueError(
                f"Expected every column in one place, but got {twice!r} twice. Remove one."
            )
        return self

    @model_validator(mode="after")
    def _proteins(self) -> OwnConfig:
        backbones = [name for name, t in self.teachers.items() if t.backbone is not None]
        if backbones and self.family == "regression":
            raise ValueError(
                "Expected teachers with a backbone for classification or multilabel, but got "
                f"{', '.join(backbones)} for regression. Write a factory or a table instead."
            )
        if self.sequence is None and (backbones or self.encoder is not None):
            what = f"the backbone of {backbones[0]}" if backbones else "the encoder"
            raise ValueError(
                f"Expected a column of sequences for {what}, but got none. Name it with "
                "own.sequence."
            )
        if self.encoder is not None and self.features is not None:
            raise ValueError(
                "Expected the student to read an encoder's numbers or numeric features, but got "
                "both. Remove own.encoder or own.features."
            )
        return self


def slug(name: str) -> str:
    """A name as a folder may have it."""
    return re.sub(r"[^\w]+", "-", name).strip("-").lower()
