"""A device that this machine does not have, so that a mix-up of devices shows without one.

`Elsewhere` tensors say that they are on another device. Their numbers are on the processor, so what
depends on values works, and results can be compared; but an operation that puts them together with
the processor's own tensors raises, as it does on an accelerator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("maia", 0)  # a name that needs no driver
_ANY_DEVICE = {"aten::copy_", "aten::_local_scalar_dense"}
_INDEX = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}


class Elsewhere(Tensor):
    """A tensor on the other device."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",  # whose gradients autograd can work out without a driver
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.inner.detach().numpy()
        raise TypeError("can't convert a tensor of another device to numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def at_home() -> Any:
    """Where nothing is looked at on its way."""
    return _disable_current_modes()


class Accelerator(TorchDispatchMode):
    """Where tensors may be made on the other device."""

    def __enter__(self) -> Any:
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=...)` comes by here
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._before)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if Elsewhere not in types and kwargs.get("device") is None:
            return func(*args, **kwargs)  # the processor's own
        return _run(func, args, kwargs)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Do the operation on the processor, if all of its tensors are where they should be."""
    name, tensors = func._schema.name, [x for x in tree_flatten((args, kwargs))[0] if _is(x)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    asked = kwargs.get("device")
    to = torch.device(asked).type in (DEVICE.type, "meta") if asked is not None else bool(there)
    if name not in _ANY_DEVICE and there:
        at_home = [x for x in tensors if not isinstance(x, Elsewhere) and x.dim()]
        if name in _INDEX and isinstance(args[0], Elsewhere):
            at_home = [x for x in at_home if x.dtype not in (torch.long, torch.bool)]
        if at_home:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {DEVICE} and cpu in "
                f"{name}"
            )
    own_kwargs = {**kwargs, "device": "cpu"} if asked is not None else kwargs
    out = func(*tree_map(_inner, args), **tree_map(_inner, own_kwargs))
    for argument, given in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return given
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(lambda x: Elsewhere(x) if _is(x) else x, out) if to else out


def _is(x: Any) -> bool:
    return isinstance(x, Tensor)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, Elsewhere) else x
