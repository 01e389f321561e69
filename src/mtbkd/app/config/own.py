"""Your own examples and teachers, as a configuration describes them: checked."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from mtbkd.app.config.own_teachers import BackboneTeacher, Name, TeacherConfig
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
    id: str = "id"
    features: list[str] | None = None
    sequence: str | None = None
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
        others = [c for c in (self.split, self.sequence, self.group, self.source) if c is not None]
        columns = [self.id, *self.targets, *others]
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
