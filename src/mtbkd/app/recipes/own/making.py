"""Your own teachers that are models, made as the configuration says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbkd.app.config.own import OwnConfig
from mtbkd.app.config.own_teachers import FactoryTeacher, ModelTeacher, OnnxTeacher
from mtbkd.app.recipes.own.inputs import model_of
from mtbkd.teachers.base import Teacher
from mtbkd.teachers.factory import from_factory
from mtbkd.teachers.hugging_face import from_hugging_face
from mtbkd.teachers.onnx_model import from_onnx
from mtbkd.types import InputError


def make_teacher(name: str, config: ModelTeacher, own: OwnConfig) -> Teacher:
    """The teacher that a configuration describes; a factory's code is run.

    Raises:
        InputError: If it cannot be made, or predicts something else than the data holds.
    """
    # a factory may return a Teacher that declares itself; only what the user wrote overrides it
    declared = config.model_dump(
        exclude_defaults=True, include={"held_out", "partial", "class_map", "merge", "top"}
    )
    if isinstance(config, FactoryTeacher):
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
