"""Your own teachers that are models, made as the configuration says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbkd.app.config.language import LanguageModelTeacher, Prompted
from mtbkd.app.config.own import OwnConfig
from mtbkd.app.config.own_teachers import FactoryTeacher, ModelTeacher, OnnxTeacher
from mtbkd.app.recipes.own.inputs import model_of
from mtbkd.observation import OUTCOMES
from mtbkd.teachers.base import Teacher
from mtbkd.teachers.factory import from_factory
from mtbkd.teachers.hugging_face import from_hugging_face
from mtbkd.teachers.language.exchange import Limits, Server
from mtbkd.teachers.language.local import Running, from_language_model
from mtbkd.teachers.language.prompt import Prompt, Shot
from mtbkd.teachers.language.server import Asked, from_server
from mtbkd.teachers.onnx_model import from_onnx
from mtbkd.types import InputError


def make_teacher(
    name: str,
    config: ModelTeacher,
    own: OwnConfig,
    classes: tuple[str, ...],
    shots: tuple[Shot, ...] = (),
) -> Teacher:
    """The teacher that a configuration describes; a factory's code is run.

    Language models are asked for these classes, and shown some of the labelled rows.

    Raises:
        InputError: If it cannot be made, or predicts something else than the data holds.
    """
    # a factory may return a Teacher that declares itself; only what the user wrote overrides it
    declared = config.model_dump(
        exclude_defaults=True, include={"held_out", "partial", "class_map", "merge", "top"}
    )
    if isinstance(config, Prompted):
        teacher = _language(name, config, own, classes, shots)
    elif isinstance(config, FactoryTeacher):
        more = config.model_dump(exclude_defaults=True, include={"kind", "classes", "variance"})
        declaration: dict[str, Any] = {"family": own.family} | more | declared
        made = from_factory(
            config.factory, Path(own.folder), name=name, options=config.options, **declaration
        )
        teacher = replace(made, name=name, **declared)
    elif isinstance(config, OnnxTeacher):
        teacher = from_onnx(
            name,
            Path(own.folder) / config.onnx,
            classes=config.classes,
            kind=config.kind,
            output=config.output,
            family=own.family,
            **declared,
        )
    else:
        teacher = from_hugging_face(
            name,
            model_of(own, config.hugging_face),
            task=config.task,
            batch_size=config.batch_size,
            device=config.device,
            precision="float32" if config.precision == "auto" else config.precision,
            **declared,
        )
    if teacher.family != own.family:
        raise InputError(
            f"Expected teacher {name!r} to be of the family {own.family}, as the data is, but got "
            f"{teacher.family}. Leave it out, or correct own.family."
        )
    return teacher


def _language(
    name: str,
    config: Prompted,
    own: OwnConfig,
    classes: tuple[str, ...],
    shots: tuple[Shot, ...],
) -> Teacher:
    prompt = prompt_of(name, config, own, classes, shots[: config.examples])
    if isinstance(config, LanguageModelTeacher):
        running = Running(
            chat=config.chat,
            device=config.device,
            precision="float32" if config.precision == "auto" else config.precision,
            max_tokens=config.max_tokens,
        )
        place = model_of(own, config.language_model)
        more = {"held_out": config.held_out, "group": place}
        return from_language_model(name, place, prompt, running, **more)
    limits = config.limits.model_dump(exclude_none=True)
    if "prices" in limits:
        limits["prices"] = tuple(limits["prices"])
    server = Server(
        config.base_url,
        key=config.key,
        concurrency=config.concurrency,
        timeout=config.timeout,
        tries=config.tries,
        limits=Limits(**limits),
    )
    asked = Asked(chat=config.chat, votes=config.votes, echo=config.echo, top=config.top)
    more = {"held_out": config.held_out, "group": f"{config.base_url} {config.model}"}
    return from_server(name, config.model, prompt, server, asked=asked, **more)


def prompt_of(
    name: str,
    config: Prompted,
    own: OwnConfig,
    classes: tuple[str, ...],
    shots: tuple[Shot, ...],
) -> Prompt:
    """The prompt that a configuration describes.

    Raises:
        InputError: If it names what is no class.
    """
    strange = [key for key in config.labels if key not in classes]
    if strange:
        raise InputError(
            f"Expected labels of teacher {name!r} among {', '.join(classes)}, but got "
            f"{strange[0]!r}. Correct its name."
        )
    said = {key: [t] if isinstance(t, str) else t for key, t in config.labels.items()}
    return Prompt(
        template=config.prompt,
        classes=classes,
        texts=tuple(tuple(said.get(c, [c])) for c in classes),
        exclusive=OUTCOMES[own.family].exclusive,
        shots=shots,
        system=config.system,
    )
