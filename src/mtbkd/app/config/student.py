"""The student's network, as a configuration describes it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mtbkd.student.augment import read_augment

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

GIVEN = "given"
"""What stands for a network in a run that Python wrote: whoever reads the run gives it again."""

StudentKind = Literal["auto", "mlp", "cnn", "text", "encoder"]


def augment_fault(kind: str) -> str:
    """Why the images of this kind of student are not augmented."""
    why = {
        "encoder": "reads features that a frozen model computes once for each image",
        "mlp": "reads numbers, or components that are computed once for each image",
    }.get(kind, "reads no images")
    return (
        f"Expected student.augment with the kind cnn or a network of your own, but got {kind!r}, "
        f"which {why}. Remove student.augment."
    )


class StudentConfig(BaseModel):
    """The network.

    Attributes:
        kind: ``mlp`` reads numbers, ``cnn`` images, ``text`` texts; ``encoder`` is an MLP on the
            features of the frozen model that ``own.encoder`` names, which may also be written as
            ``student.encoder``. ``auto`` is what fits the examples.
        hidden: Widths of hidden layers of an MLP; none for a linear student.
        weight_scale: Scale of the weight prior, in units of ``1 / sqrt(fan_in)``.
        components: How many principal components of the inputs an MLP reads in their place;
            ``auto`` reads 48 where there are more than 64 inputs.
        network: ``module:function`` beside the configuration file, which is given the shape of an
            example and the number of outputs and returns a `torch.nn.Module`.
        sampled: Name patterns of the parameters of ``network`` that are sampled, such as
            ``head.*``; all if not given. The others stay as they are.
        augment: What is done to images at each step, by chance: ``flip``, ``crop`` or
            ``flip+crop``; for ``cnn`` and for a network of your own.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: StudentKind = "auto"
    hidden: list[Annotated[int, Field(ge=1, le=2**16)]] = Field(max_length=64)
    weight_scale: float = Field(ge=1e-6, le=1e6, default=3.0)
    components: Annotated[int, Field(ge=1, le=2**16)] | Literal["auto"] | None = None
    network: str | None = None
    sampled: list[str] | None = Field(default=None, min_length=1)
    augment: str | None = None

    @field_validator("network")
    @classmethod
    def _factory(cls, value: str | None) -> str | None:
        if value not in (None, GIVEN) and not _FACTORY.fullmatch(str(value)):
            raise ValueError(
                f"Expected a network as 'module:function', but got {value!r}. Write both, with a "
                "colon between."
            )
        return value

    @field_validator("augment")
    @classmethod
    def _words(cls, value: str | None) -> str | None:
        read_augment(value)
        return value

    @model_validator(mode="after")
    def _one(self) -> StudentConfig:
        if self.network is not None and self.kind != "auto":
            raise ValueError(
                f"Expected a network of your own or a kind of student, but got {self.network!r} "
                f"and {self.kind!r}. Remove one."
            )
        if self.network is None and self.sampled is not None:
            raise ValueError(
                "Expected patterns of sampled parameters beside a network of your own, but got "
                "them without. Remove student.sampled, or name student.network."
            )
        if self.augment is not None and self.kind not in ("auto", "cnn"):
            raise ValueError(augment_fault(self.kind))
        return self
