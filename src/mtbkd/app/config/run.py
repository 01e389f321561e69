"""What a run is asked to do: checked, complete, as YAML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from mtbkd.app.config.own import AUTOMATIC, OwnConfig, check_student, moved_encoder
from mtbkd.app.config.own_teachers import KINDS, Name
from mtbkd.app.config.student import GIVEN, StudentConfig
from mtbkd.app.config.text import parse, read, seconds_of
from mtbkd.errors import InputError, did_you_mean, shown
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings, within_steps
from mtbkd.prior.settings import PAPER, PriorSettings

_DEEPEST, _LONGEST_KEY, _MOST_FAULTS = 16, 100, 20

PRESETS: dict[str, PriorSettings] = {"paper": PAPER}


class PredictConfig(BaseModel):
    """The point estimate and the level of credible sets and intervals."""

    model_config = ConfigDict(extra="forbid", strict=True)

    point: Literal["mean", "mode"] = "mean"
    level: float = Field(gt=0, lt=1, default=0.9)


class BackbonesConfig(BaseModel):
    """Protein language models: those that teachers stand on, and the student's.

    Attributes:
        teachers: By name, each a folder or an id on the hub (``id@revision`` for one version).
        student: The same.
        precision: Type of the arithmetic; ``auto`` takes a half on accelerators where that is safe.
        max_tokens: Most tokens of a batch, padding included; as the device likes it if not given.
        folds: How many times teachers are trained, each without one part of the training proteins,
            on which it then answers.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    teachers: dict[Name, str]
    student: str
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int | None = Field(ge=1, le=10**9, default=None)
    folds: int = Field(ge=2, le=1000, default=5)

    @field_validator("student")
    @classmethod
    def _place(cls, value: str) -> str:
        """Folders as they are called from everywhere."""
        try:
            folder = Path(value).expanduser()
            return str(folder.resolve()) if folder.is_dir() else value
        except (OSError, RuntimeError) as error:  # too long, or the home of nobody
            raise ValueError(f"the name of a folder or model; {error}") from None

    @field_validator("teachers")
    @classmethod
    def _places(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("Expected one teacher or more, but got none. Name one.")
        return {name: cls._place(source) for name, source in value.items()}


def _or_all(value: Any) -> Any:
    """As it was once written: yes or no."""
    return ("none", "all")[value] if isinstance(value, bool) else value


class RunConfig(BaseModel):
    """A whole run.

    Attributes:
        recipe: The built-in recipe that reads the data and the teachers.
        seed: Seed of everything random.
        data: A folder, for recipes that read one; ``$MTBKD_DATA`` if not given, else where
            ``mtbkd data get`` puts it.
        scenario: Which variant of the data, for recipes that have several.
        prior: What the teachers are worth; ``paper`` stands for the paper's settings.
        student: The network.
        map: How modes are found.
        sampler: How the posterior is explored.
        chains: How many.
        budget: About how long a run may take on this machine, such as ``5 min``; sampling ends by
            the clock, all else by its own size. The sampler's burn-in and thinning are then those
            of a first round, and longer rounds follow until chains agree or the time is over.
        calibration: Whether the student learns from the calibration examples once they have chosen
            the prior: ``learn``, ``hold`` (they judge only), or ``auto``, which learns from them
            unless ``own.split`` says which they are.
        predict: How predictions are made.
        baselines: Which are trained as well: ``none``; ``all``, each with as many modes as the
            student has chains; or ``fast``, the strongest alone.
        device: ``auto``, ``cpu`` or ``cuda``.
        own: Your examples and teachers, for the recipe ``own`` only.
        backbones: Protein language models, for the recipe ``deeploc-backbones`` only.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str
    seed: int = Field(ge=0, lt=2**31, default=0, strict=True)
    data: str | None = None
    scenario: str | None = None
    prior: PriorSettings = PriorSettings()
    student: StudentConfig
    map: MapSettings = MapSettings()
    sampler: SamplerSettings = SamplerSettings()
    chains: int = Field(ge=1, le=1000, default=8, strict=True)
    budget: str | None = None
    calibration: Literal["auto", "learn", "hold"] = "auto"
    predict: PredictConfig = PredictConfig()
    baselines: Annotated[Literal["none", "fast", "all"], BeforeValidator(_or_all)] = "all"
    device: str = "auto"
    own: OwnConfig | None = None
    backbones: BackbonesConfig | None = None
    _code: Path | None = PrivateAttr(default=None)

    @property
    def code(self) -> Path | None:
        """Where the network's own code is, if it may be run; no file says so, only the user."""
        return self._code

    def with_code(self, folder: Path) -> RunConfig:
        """The same, with code in this folder that the user wants to be run."""
        changed = self.model_copy()
        changed._code = folder
        return changed

    @model_validator(mode="after")
    def _sections(self) -> RunConfig:
        for name, recipe in (("backbones", "deeploc-backbones"), ("own", "own")):
            given = getattr(self, name) is not None
            if given != (self.recipe == recipe):
                raise ValueError(
                    f"Expected the section `{name}` with the recipe {recipe}, and with no other, "
                    f"but got recipe {self.recipe!r} {'with' if given else 'without'} it. Start "
                    f"from `mtbkd recipes copy {recipe} my.yaml`."
                )
        return self

    @model_validator(mode="after")
    def _student(self) -> RunConfig:
        if self.own is not None:
            check_student(self.student, self.own)
        if self.student.network == GIVEN and self.recipe != "python":
            raise ValueError(
                f"Expected student.network as 'module:function', but got {GIVEN!r}, which stands "
                "for a network that Python gave. Name a function."
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _encoder(cls, values: Any) -> Any:
        """The encoder has one place, whichever of the two it was written in."""
        return moved_encoder(values) if isinstance(values, dict) else values

    @field_validator("prior", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in PRESETS:
                raise ValueError(f"no preset of this name; there is {', '.join(PRESETS)}")
            return PRESETS[value]
        return value

    @field_validator("budget", mode="before")
    @classmethod
    def _budget(cls, value: Any) -> Any:
        if value is not None:
            seconds_of(value)
        return value if value is None else str(value)

    @property
    def seconds(self) -> float:
        """The budget in seconds."""
        return math.inf if self.budget is None else seconds_of(self.budget)

    def modes(self, n_examples: int) -> MapSettings:
        """How modes are found among so many examples: in fewer epochs where there is a budget."""
        return self.map if self.budget is None else within_steps(self.map, n_examples)

    def to_yaml(self) -> str:
        """The complete configuration."""
        absent = {name for name in ("own", "backbones") if getattr(self, name) is None}
        values = self.model_dump(mode="json", exclude=absent)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def build_config(values: dict[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Check a configuration, with ``key.sub=value`` overrides, and report all faults at once.

    Beside the section `own` all others may be left out; where steps of the sampler are given, the
    chains make so many, and there is no budget unless that is given too.

    Raises:
        InputError: With one message for each fault.
    """
    if "own" in values:
        sampler = values.get("sampler")
        steps = isinstance(sampler, dict) and not {"burn_in", "thinning"}.isdisjoint(sampler)
        values = AUTOMATIC | ({"budget": None} if steps else {}) | values
        if isinstance(values["student"], dict):
            values["student"] = AUTOMATIC["student"] | values["student"]
    merged, faults = values, []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            faults.append(
                f"Expected --set key=value, but got {shown(override)}. Write for example "
                "--set prior.concentration=5."
            )
            continue
        try:
            value = parse(text, f"--set {key[:_LONGEST_KEY]}=")
        except InputError as error:
            faults += error.faults
            continue
        merged = _set(merged, key.split(".", _DEEPEST), value)
    try:
        config = RunConfig.model_validate(merged)
        if not faults:
            return config
    except ValidationError as error:
        found = error.errors()
        faults += [told for e in found[:_MOST_FAULTS] for told in _messages(dict(e))]
        if len(found) > _MOST_FAULTS:
            rest = len(found) - _MOST_FAULTS
            faults.append(f"Expected no faults, but got {rest:,} more. Mend these first.")
    raise InputError(*faults)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file.

    Raises:
        InputError: If it cannot be read or holds faults.
    """
    values = read(path)
    own = values.get("own")
    if isinstance(own, dict) and isinstance(own.get("folder", "."), str):
        folder = str((path.parent / own.get("folder", ".")).resolve())
        values = values | {"own": own | {"folder": folder}}
    return build_config(values, overrides)


def _set(values: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """A copy with one nested value replaced."""
    head, *rest = keys
    if rest:
        inner = values.get(head)
        if isinstance(inner, str) and inner in PRESETS:
            inner = asdict(PRESETS[inner])
        value = _set(inner if isinstance(inner, dict) else {}, rest, value)
    return {**values, head: value}


def _messages(error: dict[str, Any]) -> list[str]:
    """What pydantic found, in the house's form; several where a section's own check did."""
    own = error.get("ctx", {}).get("error")
    if isinstance(own, InputError):
        return [_message(error | {"msg": fault}) for fault in own.faults]
    return [_message(error)]


def _message(error: dict[str, Any]) -> str:
    """One fault in the house's form."""
    unions = ("float", "bool", "str", "literal['auto']", "list[str]", "list[float]")
    place = error["loc"]
    known, possible = "only known keys", _every_key()
    if place[:2] == ("own", "teachers") and len(place) > 4:  # the kind of teacher is the fourth
        kind, place = place[3], place[:3] + place[4:]
        possible = KINDS[kind].model_fields.keys() - {kind}
        known = f"beside {kind} only the keys {', '.join(sorted(possible))}"
    parts = [str(part)[:_LONGEST_KEY] for part in place if part not in unions]
    key = ".".join(parts)
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = did_you_mean(parts[-1], set(possible) - {parts[-1]})
        return f"Expected {known}, but got `{key}`. Remove it or correct its spelling.{near}"
    if error["type"] in ("missing", "missing_argument"):
        return f"Expected a value for `{key}`, but got none. Add it."
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if reason.startswith("Expected"):
        return f"`{key}`: {reason}" if key else reason
    return f"Expected `{key}` to be {reason}, but got {shown(error['input'])}. Correct it."


@cache
def _every_key() -> set[str]:
    """The keys of all sections."""
    schema = RunConfig.model_json_schema()
    sections = schema, *schema["$defs"].values()
    return {key for section in sections for key in section.get("properties", {})}
