"""Teachers that are PyTorch modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtbkd.outputs.aligned import Kind
from mtbkd.student.devices import find_device
from mtbkd.teachers.base import Teacher, fingerprint_of, from_callable
from mtbkd.types import InputError

ComputeDtype = Literal["float32", "bfloat16", "float16"]

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def from_torch(
    name: str,
    module: nn.Module,
    *,
    classes: Sequence[object],
    kind: Kind = "logits",
    device: str = "auto",
    precision: ComputeDtype = "float32",
    batch_size: int | None = None,
    **declared: Any,
) -> Teacher:
    """A teacher from a module that maps a tensor of inputs to (example, class).

    It runs without gradients and in evaluation mode; each part of the module is in the mode that
    it was in afterwards. The module is moved to the device, and stays there.

    Args:
        name: What the teacher is called.
        module: Takes inputs, shape (example, ...); with ``variance=True`` it returns a pair.
        classes: One for each column.
        kind: What the numbers are.
        device: As PyTorch names it; ``auto`` takes an accelerator if there is one.
        precision: Below ``float32`` the module runs under autocast.
        batch_size: Most examples in one call of the module; None takes each batch whole.
        **declared: The other attributes of `Teacher`.

    Raises:
        InputError: If the device or the precision is unknown.
    """
    place = find_device(device)
    run = evaluator(module, place, precision)

    def predict(inputs: Any) -> Any:
        tensor = inputs if isinstance(inputs, Tensor) else torch.as_tensor(inputs)
        parts = [tensor] if batch_size is None else tensor.split(batch_size)
        outputs = [run(part.to(place)) for part in parts]
        if len(outputs) == 1:
            return outputs[0]
        if isinstance(outputs[0], tuple):
            return tuple(torch.cat(columns) for columns in zip(*outputs, strict=True))
        return torch.cat(outputs)

    declared.setdefault("fingerprint", fingerprint_of(module.state_dict()))
    declared.setdefault("parameters", sum(p.numel() for p in module.parameters()))
    return from_callable(name, predict, kind=kind, classes=classes, **declared)


def evaluator(module: nn.Module, device: torch.device, precision: str) -> Callable[..., Any]:
    """The module as a function without gradients, in evaluation mode, on a device.

    Raises:
        InputError: If the precision is unknown.
    """
    if precision not in _DTYPES:
        raise InputError(
            f"Expected a precision among {', '.join(_DTYPES)}, but got {precision!r}. Choose one."
        )
    dtype = _DTYPES[precision]
    module.to(device)
    parts = list(module.modules())

    def run(*inputs: Any, **named: Any) -> Any:
        autocast = torch.autocast(device.type, dtype) if dtype else nullcontext()
        with torch.inference_mode(), _evaluating(parts), autocast:
            return module(*inputs, **named)

    return run


@contextmanager
def _evaluating(parts: list[nn.Module]) -> Iterator[None]:
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
