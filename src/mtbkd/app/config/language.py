"""Teachers that are language models, as a configuration describes them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mtbkd.app.config.names import Name

_STRICT = ConfigDict(extra="forbid", strict=True)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")

Amount = Annotated[float, BeforeValidator(lambda v: float(v) if type(v) is int else v), Field(gt=0)]


def _template(value: str) -> str:
    from mtbkd.teachers.language.prompt import variables_of

    variables_of(value)
    return value


def _key(value: Any) -> Any:
    """The name of a variable; what is none may be a key, so no message repeats it."""
    if value is not None and not (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        raise ValueError(
            "Expected the name of an environment variable in capitals, which holds the key, but "
            "got something else. Set such a variable, and keep the key itself out of files."
        )
    return value


Template = Annotated[str, AfterValidator(_template)]
Labels = Annotated[dict[Name, Name | list[Name]], Field(default_factory=dict)]
Shown = Annotated[int, Field(ge=0, le=200)]


class LanguageModelTeacher(BaseModel):
    """A causal language model that runs here.

    Attributes:
        language_model: A folder, a GGUF file, or an id on the hub.
        prompt: What it is asked about a row, a template of Jinja: ``{{ text }}`` is a cell.
        labels: How classes are called, where not by their names; a list has several ways.
        examples: So many labelled rows are shown with their labels, which no student learns from.
        system: What the model is told first.
        chat: Whether it is asked through its chat template; if it has one, where not given.
        held_out: False if it was trained on these examples.
        device: As PyTorch names it.
        precision: What the weights are held in; ``auto`` is ``float32``.
        max_tokens: Most tokens of a batch.
    """

    model_config = _STRICT

    language_model: str
    prompt: Template
    labels: Labels
    examples: Shown = 0
    system: str = ""
    chat: bool | None = None
    held_out: bool = True
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int = Field(ge=1, default=2048)


class LimitsConfig(BaseModel):
    """What one command may spend on a server.

    Attributes:
        calls: Calls, those that failed among them.
        tokens: Tokens read and written.
        cost: In the currency of the prices.
        prices: For a million tokens read, and for a million written.
    """

    model_config = _STRICT

    calls: int | None = Field(ge=1, default=None)
    tokens: int | None = Field(ge=1, default=None)
    cost: Amount | None = None
    prices: list[Amount] | None = Field(min_length=2, max_length=2, default=None)


class ServerTeacher(BaseModel):
    """A language model behind a server that speaks as OpenAI's does.

    Attributes:
        base_url: Up to and with ``/v1``.
        model: As the server calls it.
        prompt: As a `LanguageModelTeacher` has it; so are the other keys of the same name.
        chat: As a chat; else by completions of plain text.
        votes: So many answers are sampled, whose counts are evidence; not given, probabilities are
            read.
        echo: Read those of whole texts, from a server that repeats prompts with log-probabilities.
        top: How many next tokens the server is asked for.
        key: The environment variable that holds the key.
        concurrency: Calls at the same time.
        timeout: Seconds to wait for an answer.
        tries: Calls for one answer at most.
        limits: What one command may spend.
    """

    model_config = _STRICT

    base_url: str
    model: str
    prompt: Template
    labels: Labels
    examples: Shown = 0
    system: str = ""
    held_out: bool = True
    chat: bool = True
    votes: int | None = Field(ge=1, le=1000, default=None)
    echo: bool = False
    top: int = Field(ge=1, le=1000, default=20)
    key: Annotated[str | None, BeforeValidator(_key)] = None
    concurrency: int = Field(ge=1, le=256, default=8)
    timeout: Amount = 60.0
    tries: int = Field(ge=1, le=100, default=6)
    limits: LimitsConfig = Field(default_factory=LimitsConfig)


Prompted = LanguageModelTeacher | ServerTeacher
"""Teachers that read a prompt."""


def columns_read(teacher: Prompted, exclusive: bool) -> list[str]:
    """Columns that a prompt reads, sorted; of several labels, ``label`` is the one asked about."""
    from mtbkd.teachers.language.prompt import LABEL, variables_of

    return sorted(variables_of(teacher.prompt) - (set() if exclusive else {LABEL}))
