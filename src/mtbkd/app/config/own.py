"""Your own examples and teachers, as a configuration describes them: checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mtbkd.app.config.language import Prompted, columns_read
from mtbkd.app.config.own_teachers import BackboneTeacher, Name, TeacherConfig
from mtbkd.app.config.student import StudentConfig, augment_fault
from mtbkd.inputs.images.reading import ID, LABEL, PATH
from mtbkd.observation import OUTCOMES
from mtbkd.types import Family

AUTOMATIC: dict[str, Any] = {
    "recipe": "own",
    "prior": {"power": "auto", "discount": "auto"},
    "student": {"hidden": [64], "weight_scale": 2.0, "components": "auto"},
    "map": {"epochs": 60, "batch_size": 128, "learning_rate": 0.01},
    "sampler": {"burn_in": 200, "draws": 50, "thinning": 4, "batch_size": None},
    "chains": 4,
    "budget": "5 min",
}
"""What is done where a configuration says nothing but `own`."""


_READ = ("features", "sequence", "image", "text")
_FIT = {"numbers": ("mlp",), "proteins": ("mlp",), "images": ("cnn", "mlp"), "texts": ("text",)}
"""Kinds of students by what they read without an encoder; the first is chosen by itself."""

Side = Annotated[int, Field(ge=4, le=1024)]


class OwnConfig(BaseModel):
    """Your own examples and teachers.

    Attributes:
        family: What is predicted.
        examples: A file of one row for each example: CSV, TSV (both also gzipped), Parquet or NPZ;
            or a folder of images, with a folder for each class.
        labels: The column of labels, or several of them; an empty cell is a missing label. Of a
            folder of images these are the names of its folders.
        teachers: By name.
        id: The column of ids.
        features: Numeric columns that the student reads; all that are not named otherwise if not
            given and there are no sequences.
        sequence: The column of protein sequences, if examples are proteins.
        image: The column of images, if examples are images: paths that are relative to the file;
            or an array of an NPZ file, uint8, shape (row, height, width) or (row, height, width,
            3).
        text: The column of texts, if examples are texts.
        size: Height and width that images are brought to; if not given, what most of them have, but
            64 on a side at most.
        encoder: A frozen model that makes numbers of sequences, images or texts for the student, a
            folder or an id on the hub. Of sequences also ``features``, which are hand-made and need
            no model; that is so if none is given and no numeric features are named.
        group: The column of groups that stay together, such as clusters of homologous proteins:
            in one split, and in one fold of teachers with a backbone and of the answers that sets
            are made on. An example whose cell is empty is a group of its own.
        source: The column of where examples come from, such as a hospital or a language: the flag
            of what is outside is calibrated within each source of 50 calibration examples or more,
            and scores are given for each beside the total.
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
    id: str = ID
    features: list[str] | None = None
    sequence: str | None = None
    image: str | None = None
    text: str | None = None
    size: list[Side] | None = Field(default=None, min_length=2, max_length=2)
    encoder: str | None = None
    group: str | None = None
    source: str | None = None
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
        """The frozen model whose features the student reads, if it reads any."""
        return None if self.encoder == "features" else self.encoder

    @property
    def reads(self) -> Literal["numbers", "proteins", "images", "texts"]:
        """What the student, or its encoder, reads."""
        if self.image is not None:
            return "images"
        if self.text is not None:
            return "texts"
        return "numbers" if self.sequence is None or self.features is not None else "proteins"

    @model_validator(mode="before")
    @classmethod
    def _folder(cls, values: Any) -> Any:
        """What a folder of images, which has no columns, need not name."""
        if isinstance(values, dict) and isinstance(named := values.get("examples"), str):
            suffixes = Path(named.removesuffix(".gz")).suffix.lower()
            others = ("features", "sequence", "text")
            if not suffixes and not any(values.get(key) for key in others):
                return {"labels": LABEL, "image": PATH} | values
        return values

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
        if OUTCOMES[self.family].exclusive and not isinstance(self.labels, str):
            raise ValueError(
                "Expected one column of labels for classification, but got a list. Name one "
                "column, or set family to multilabel."
            )
        if not OUTCOMES[self.family].exclusive and self.classes is not None:
            raise ValueError(
                f"Expected classes of classification only, but got them for {self.family}, whose "
                f"columns of labels are named. Remove them."
            )
        others = (self.split, self.sequence, self.image, self.text, self.group, self.source)
        columns = [self.id, *self.targets, *(c for c in others if c is not None)]
        for name in self.features or []:
            if name in columns:
                raise ValueError(
                    "Expected features that are not ids, labels or splits, nor sequences, "
                    f"groups or sources, but got {name!r}. Remove it from one of them."
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
        backbones = [name for name, t in self.teachers.items() if isinstance(t, BackboneTeacher)]
        if backbones and OUTCOMES[self.family].numeric:
            raise ValueError(
                "Expected teachers with a backbone for classification or multilabel, but got "
                f"{', '.join(backbones)} for regression. Write a factory or a table instead."
            )
        if self.sequence is None and backbones:
            raise ValueError(
                f"Expected a column of sequences for the backbone of {backbones[0]}, but got none. "
                "Name it with own.sequence."
            )
        raw = self.sequence or self.image or self.text
        if self.encoder is not None and raw is None:
            raise ValueError(
                "Expected a column of sequences for the encoder, but got none. Name it with "
                "own.sequence, or one of images or texts with own.image or own.text."
            )
        if self.encoder == "features" and self.sequence is None:
            raise ValueError(
                f"Expected hand-made features of sequences only, but got them for {self.reads}. "
                "Remove own.encoder, or name a frozen model."
            )
        if self.encoder is not None and self.features is not None:
            raise ValueError(
                "Expected the student to read an encoder's numbers or numeric features, but got "
                "both. Remove own.encoder or own.features."
            )
        return self

    @model_validator(mode="after")
    def _prompts(self) -> OwnConfig:
        exclusive = OUTCOMES[self.family].exclusive
        told = {*self.targets, self.split}
        for name, teacher in self.teachers.items():
            if not isinstance(teacher, Prompted):
                continue
            if OUTCOMES[self.family].numeric:
                raise ValueError(
                    "Expected language models for classification or multilabel, but got "
                    f"{name!r} for regression. Write a factory or a table instead."
                )
            answer = next((c for c in columns_read(teacher, exclusive) if c in told), None)
            if answer is not None:
                raise ValueError(
                    f"Expected a prompt of {name!r} that does not tell the answer, but got one "
                    f"that reads the column {answer!r}. Remove it from the prompt."
                )
        return self

    @model_validator(mode="after")
    def _one_input(self) -> OwnConfig:
        given = [key for key in _READ if getattr(self, key) is not None]
        if len(given) > 1 and set(given) != {"features", "sequence"}:  # groups are by sequence
            raise ValueError(
                f"Expected one kind of input for the student, but got own.{given[0]} and "
                f"own.{given[1]}. Remove one."
            )
        if self.size is not None and self.image is None:
            raise ValueError(
                "Expected a size beside images, but got it without. Remove own.size, or name the "
                "column of images with own.image."
            )
        return self


def moved_encoder(values: dict[str, Any]) -> dict[str, Any]:
    """The sections with the student's encoder in ``own``, if it stands in ``student``.

    Raises:
        ValueError: If it stands in both, and differs.
    """
    student, own = values.get("student"), values.get("own")
    if not (isinstance(student, dict) and isinstance(own, dict) and "encoder" in student):
        return values
    named, before = student["encoder"], own.get("encoder")
    if None not in (named, before) and named != before:
        raise ValueError(
            f"Expected one encoder of the student, but got {named!r} as student.encoder and "
            f"{before!r} as own.encoder. Remove one."
        )
    rest = {key: value for key, value in student.items() if key != "encoder"}
    return values | {"student": rest, "own": own | {"encoder": before or named}}


def student_kind(student: StudentConfig, own: OwnConfig) -> str:
    """Which kind of student reads these examples."""
    if student.kind != "auto":
        return student.kind
    return "encoder" if own.student_encoder is not None else _FIT[own.reads][0]


def check_student(student: StudentConfig, own: OwnConfig) -> None:
    """Refuse a kind of student that does not fit the examples.

    Raises:
        ValueError: If it does not.
    """
    fitting = ("encoder",) if own.student_encoder is not None else _FIT[own.reads]
    if student.kind not in ("auto", *fitting):
        of = "an encoder's numbers" if own.student_encoder is not None else own.reads
        how = "name own.encoder" if student.kind == "encoder" else "name the column that it reads"
        raise ValueError(
            f"Expected a student of the kind auto or {' or '.join(fitting)} for {of}, but got "
            f"{student.kind!r}. Correct student.kind, or {how}."
        )
    if student.augment is not None:
        kind = student_kind(student, own)
        if student.network is None and kind != "cnn":
            raise ValueError(augment_fault(kind))


def slug(name: str) -> str:
    """A name as a folder may have it."""
    return re.sub(r"[^\w]+", "-", name).strip("-").lower()
