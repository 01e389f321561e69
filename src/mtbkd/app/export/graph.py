"""The whole student as one module, and as ONNX."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtbkd.app.export.answers import ANSWERS
from mtbkd.app.export.flags import Flags
from mtbkd.app.export.stack import Stack
from mtbkd.app.recipes.base import Before
from mtbkd.distillation.posterior import Posterior
from mtbkd.errors import InputError
from mtbkd.explain.causes import Background

OPSET = 20


@dataclass(frozen=True)
class Parts:
    """What goes into the graph.

    Attributes:
        posterior: The student with the draws that answer, its frozen part included.
        every: The same with all of its draws, by which it is told what is outside.
        background: What answers are compared with.
        before: What is done to inputs before the student reads them.
        level: Posterior mass of the intervals.
        point: ``mean`` or ``mode``.
        half: Whether draws are stored in half precision.
    """

    posterior: Posterior
    every: Posterior
    background: Background
    before: Before
    level: float
    point: Literal["mean", "mode"]
    half: bool


class Graph(nn.Module):
    """Raw inputs to answers, sets and flags."""

    def __init__(self, parts: Parts, example: Tensor) -> None:
        super().__init__()
        posterior, student = parts.posterior, parts.posterior.student
        self.frozen, self.clip = student.frozen, parts.before.clip
        self.register_buffer("mean", parts.before.mean)
        self.register_buffer("scale", parts.before.scale)
        self.level, self.point, self.units = parts.level, parts.point, posterior.units
        self.temperature, self.reads_whole = student.temperature, student.whole_numbers
        self.answers = ANSWERS[posterior.family]
        draws = torch.cat([segment.flatten(0, 1) for segment in posterior.samples.segments])
        dtype = torch.float16 if parts.half else torch.float32
        self.stack = Stack(student.head, student.unflatten(draws), dtype)
        features = self._features(example)
        self.flags = Flags(parts.every, parts.background, features[0].numel())
        self.names = tuple(self._named(example))

    def _features(self, inputs: Tensor) -> Tensor:
        """What the sampled part reads of inputs."""
        before = Before("", mean=self.get_buffer("mean"), scale=self.get_buffer("scale"))
        read = replace(before, clip=self.clip)(inputs)
        read = read if self.reads_whole or read.is_floating_point() else read.float()
        return read if self.frozen is None else self.frozen(read)

    def _named(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self._features(inputs)
        read = features if self.reads_whole or features.is_floating_point() else features.float()
        draws = self.stack(read) / self.temperature
        answers = self.answers(draws, self.level, self.point, self.units)
        return answers | self.flags(read, answers)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs of shape (example, ...) to what `names` says; numbers as float32."""
        found = self._named(inputs).values()
        return tuple(each.float() if each.is_floating_point() else each for each in found)


def to_onnx(graph: nn.Module, example: Tensor, names: Sequence[str] | None) -> Any:
    """A module that reads one tensor as ONNX, for any number of examples.

    Args:
        graph: The student.
        example: Two inputs or more.
        names: What its outputs are called.

    Raises:
        InputError: If the network does what ONNX cannot say.
    """
    try:
        with _silent():
            program = torch.export.export(
                graph,
                (example,),
                dynamic_shapes=({0: torch.export.Dim("example", min=1)},),
                strict=False,
            )
            return torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["inputs"],
                output_names=names,
                verbose=False,
            )
    except Exception as error:  # whatever it is, there is no file
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise InputError(
            "Expected a network that ONNX can hold, for any number of examples, but got: "
            f"{lines[-1] if lines else type(error).__name__}. Change the layer that it names."
        ) from error


def quantised(model: Any) -> Any:
    """The same with the first layer in whole numbers of eight bits, its draws and its inputs.

    It holds most of the draws; each unit of each has its own scale. Products with training examples
    stay as they are: flags are made of small differences.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kept = model.graph.initializer
    ours = {k.name for k in kept if k.name.startswith("stack.") and len(k.dims) == 2}
    others = [node.name for node in model.graph.node if not ours & set(node.input)]
    with _silent(), tempfile.TemporaryDirectory(prefix="mtbkd-") as scratch:
        path = Path(scratch) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=others,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


@contextmanager
def _silent() -> Iterator[None]:
    """Without what libraries say about themselves and one another."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
