"""Your own teachers, as a configuration describes them: a class for each kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from mtbkd.app.config.language import LanguageModelTeacher, ServerTeacher
from mtbkd.app.config.names import Name as Name


def _numbers(value: Any) -> Any:
    """One message for what is neither a number nor a list, instead of one for each type."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | list)):
        raise ValueError("a number, or a list of one for each target")
    return value


Kind = Literal["logits", "probs", "log_probs", "mean"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
ClassMap = dict[Name, Name | list[Name] | None] | None
Reads = str | list[str]
Top = Annotated[int | None, Field(ge=1)]

_STRICT = ConfigDict(extra="forbid", strict=True)


class FactoryTeacher(BaseModel):
    """Code of your own that makes the teacher.

    Attributes:
        factory: ``module:function`` beside the configuration file.
        reads: What the teacher is asked with: the name of a column of text or of paths (relative
            to the folder of the configuration), or a list of numeric columns. If not given, what
            the student reads: the features, or the sequences.
        kind: What its numbers are.
        classes: Its own classes, labels or targets, one for each column.
        class_map: Own class to the class or classes of the data that it means, or to none.
        merge: Whether several own classes may mean the same.
        partial: Whether it knows only some classes of the data.
        held_out: False if it was trained on these examples.
        top: Keep only this many most probable classes.
        variance: Whether the function gives variances.
        options: Passed to the function by name.
    """

    model_config = _STRICT

    factory: str
    reads: Reads | None = None
    kind: Kind | None = None
    classes: list[Name] | None = None
    class_map: ClassMap = None
    merge: bool = False
    partial: bool = False
    held_out: bool = True
    top: Top = None
    variance: bool | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class HuggingFaceTeacher(BaseModel):
    """A classifier of texts or images.

    Attributes:
        hugging_face: A folder, or an id on the hub.
        reads: As a `FactoryTeacher` has it; so are the other keys of the same name.
        task: ``image`` reads paths.
        device: As PyTorch names it.
        precision: Below ``float32`` the model runs under autocast; ``auto`` is ``float32``.
        batch_size: Most examples in one call.
    """

    model_config = _STRICT

    hugging_face: str
    reads: Reads
    task: Literal["text", "image"] = "text"
    class_map: ClassMap = None
    merge: bool = False
    partial: bool = False
    held_out: bool = True
    top: Top = None
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: int = Field(ge=1, default=32)


class OnnxTeacher(BaseModel):
    """An ONNX file.

    Attributes:
        onnx: The file.
        reads: As a `FactoryTeacher` has it; so are the other keys of the same name.
        output: Which output of the model to take, if it has several.
    """

    model_config = _STRICT

    onnx: str
    reads: Reads | None = None
    kind: Kind
    classes: list[Name]
    class_map: ClassMap = None
    merge: bool = False
    partial: bool = False
    held_out: bool = True
    top: Top = None
    output: str | None = None


class TableTeacher(BaseModel):
    """What a teacher once said.

    Attributes:
        table: A file: CSV, TSV, Parquet, NPZ or safetensors.
        kind: As a `FactoryTeacher` has it, or ``counts``, such as people's votes; so are the other
            keys of the same name.
        variance: Variance of the targets: a number, or one for each.
        id: The column of ids.
    """

    model_config = _STRICT

    table: str
    kind: Literal["logits", "probs", "log_probs", "mean", "counts"]
    class_map: ClassMap = None
    merge: bool = False
    partial: bool = False
    held_out: bool = True
    variance: Annotated[float | list[float] | None, BeforeValidator(_numbers)] = None
    id: str = "id"


class BackboneTeacher(BaseModel):
    """Heads on the features of a frozen protein language model.

    They are trained on the labels of training examples and answer out of fold, so such a teacher is
    held out always.

    Attributes:
        backbone: A folder, or an id on the hub.
        device: As PyTorch names it.
        precision: Precision of the model's weights; ``auto`` is what the device is good at.
        max_tokens: Most tokens of a batch; by the device if not given.
        limit: Most residues that the model is shown of a protein, from both ends; as many as it
            has positions for if not given.
        folds: Parts of the training examples; each head is trained without one of them.
    """

    model_config = _STRICT

    backbone: str
    device: str = "auto"
    precision: Precision = "auto"
    max_tokens: int | None = Field(ge=1, default=None)
    limit: int | None = Field(ge=2, default=None)
    folds: int = Field(ge=3, default=5)


ModelTeacher = (
    FactoryTeacher | HuggingFaceTeacher | OnnxTeacher | LanguageModelTeacher | ServerTeacher
)
"""Teachers that are asked."""

KINDS: dict[str, type[BaseModel]] = {
    "factory": FactoryTeacher,
    "hugging_face": HuggingFaceTeacher,
    "onnx": OnnxTeacher,
    "table": TableTeacher,
    "backbone": BackboneTeacher,
    "language_model": LanguageModelTeacher,
    "base_url": ServerTeacher,
}
"""Kinds of teachers by the key that says which one it is."""


def _one_kind(value: Any) -> Any:
    """The mapping without keys of other kinds that are empty; it names exactly one kind."""
    if not isinstance(value, dict):
        return value
    given = [key for key in KINDS if value.get(key) is not None]
    if len(given) != 1:
        raise ValueError(
            f"Expected one of the keys {', '.join(KINDS)}, but got "
            f"{' and '.join(given) or 'none'}. Say once what the teacher is."
        )
    return {key: v for key, v in value.items() if key not in KINDS or key in given}


def _kind_of(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((key for key in KINDS if key in value), None)
    return next((key for key, kind in KINDS.items() if isinstance(value, kind)), None)


TeacherConfig = Annotated[
    Annotated[FactoryTeacher, Tag("factory")]
    | Annotated[HuggingFaceTeacher, Tag("hugging_face")]
    | Annotated[OnnxTeacher, Tag("onnx")]
    | Annotated[TableTeacher, Tag("table")]
    | Annotated[BackboneTeacher, Tag("backbone")]
    | Annotated[LanguageModelTeacher, Tag("language_model")]
    | Annotated[ServerTeacher, Tag("base_url")],
    Discriminator(
        _kind_of,
        custom_error_type="teacher",
        custom_error_message="a mapping that says what the teacher is",
    ),
    BeforeValidator(_one_kind),
]
