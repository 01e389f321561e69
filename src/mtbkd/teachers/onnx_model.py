"""Teachers that are ONNX files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.errors import need
from mtbkd.outputs.aligned import Kind
from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.types import InputError

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")


def from_onnx(
    name: str,
    path: str | Path,
    *,
    classes: Sequence[object],
    kind: Kind,
    output: str | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    **declared: Any,
) -> Teacher:
    """A teacher from an ONNX file; needs ``pip install 'mtbkd[onnx]'``.

    Inputs are one array if the model has one input, else a mapping from the model's input names.
    They are cast to the types that the model wants. A model whose batch has a fixed size is run in
    batches of this size.

    Args:
        name: What the teacher is called.
        path: The file.
        classes: One for each column of the output.
        kind: What the numbers are.
        output: Its name; None takes the first with two axes of floating-point numbers.
        providers: Execution providers of onnxruntime, in order of preference.
        **declared: The other attributes of `Teacher`.

    Raises:
        InputError: If the file is missing or no model, or has no such output.
    """
    runtime = need("onnxruntime", "onnx")
    try:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        session = runtime.InferenceSession(str(path), providers=list(providers))
    except OSError as error:
        raise InputError(
            f"Expected an ONNX file {path} for teacher {name!r}, but got: {error.strerror}. "
            "Correct the path."
        ) from None
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise InputError(
            f"Expected an ONNX model in {path} for teacher {name!r}, but got: "
            f"{str(error).splitlines()[0]}. Export it again."
        ) from None
    chosen = _choose(name, path, session.get_outputs(), output)
    width = chosen.shape[1] if len(chosen.shape or ()) == 2 else None
    if isinstance(width, int) and width != len(classes):
        raise InputError(
            f"Expected {width} classes of teacher {name!r}, one for each column of output "
            f"{chosen.name!r} of {path}, but got {len(classes)}. Name all of them, in order."
        )
    wanted = session.get_inputs()
    fixed = next((i.shape[0] for i in wanted if i.shape and isinstance(i.shape[0], int)), None)

    def predict(inputs: Any) -> NDArray[np.generic]:
        feed = _feed(name, wanted, inputs)
        parts = [session.run([chosen.name], part)[0] for part in _parts(feed, fixed)]
        rows = len(next(iter(feed.values())))
        return parts[0] if fixed is None else np.concatenate(parts)[:rows]

    declared.setdefault("fingerprint", digest)
    return from_callable(name, predict, kind=kind, classes=classes, **declared)


def _choose(name: str, path: str | Path, outputs: Sequence[Any], wanted: str | None) -> Any:
    for each in outputs:
        flat = each.type in _FLOATS and len(each.shape or (0, 0)) == 2
        if each.name == wanted or (wanted is None and flat):
            return each
    found = ", ".join(f"{each.name} ({each.type}, shape {each.shape})" for each in outputs)
    raise InputError(
        f"Expected {'an' if wanted is None else repr(wanted) + ' as'} output of {path} of shape "
        f"(example, class) for teacher {name!r}, but got {found}. Name one as output=, or export "
        "the model without ZipMap."
    )


def _feed(name: str, wanted: Sequence[Any], inputs: Any) -> dict[str, NDArray[np.generic]]:
    if not isinstance(inputs, Mapping):
        if len(wanted) > 1:
            raise InputError(
                f"Expected inputs by name for teacher {name!r}, whose model takes "
                f"{', '.join(i.name for i in wanted)}, but got one array. Give a mapping."
            )
        inputs = {wanted[0].name: inputs}
    lacking = [i.name for i in wanted if i.name not in inputs]
    if lacking:
        raise InputError(
            f"Expected input {lacking[0]!r} for teacher {name!r}, but got "
            f"{', '.join(map(str, inputs))}. Name the inputs as the model does."
        )
    return {i.name: _array(inputs[i.name], _DTYPES.get(i.type)) for i in wanted}


def _array(values: Any, dtype: Any) -> NDArray[np.generic]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return np.ascontiguousarray(array if dtype is None else array.astype(dtype, copy=False))


def _parts(
    feed: dict[str, NDArray[np.generic]], size: int | None
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """The inputs whole, or in parts of a fixed size, the last filled up with its last row."""
    if size is None:
        yield feed
        return
    for start in range(0, len(next(iter(feed.values()))), size):
        part = {key: array[start : start + size] for key, array in feed.items()}
        short = size - len(next(iter(part.values())))
        yield {key: np.concatenate([a, a[-1:].repeat(short, 0)]) for key, a in part.items()}
