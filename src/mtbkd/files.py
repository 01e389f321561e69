"""The one way to disk: files written whole or not at all, and checked when they are read."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mtbkd.types import InputError

AGAIN = "Delete it and run the same command again."

Layout = Mapping[str, tuple[torch.dtype, Sequence[int]]]
"""Type and shape of tensors by name."""

Pieces = Iterable[tuple[str, int, Tensor]]
"""Parts of tensors: the name of a tensor, the index of its first number in it, and the part."""

_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ROWS = 2**22  # numbers that are hashed at once
_UNSEALED = "0" * 64
_OWN = "own_sha256"


@contextmanager
def replacing(
    path: Path, *, elsewhere: str = "choose another place", shared: bool = False
) -> Iterator[Path]:
    """A name beside a file; what is written under it takes the file's place once it is on disk.

    Until then the file is as it was, and if anything fails nothing is left behind.

    Args:
        path: Its folder is made if there is none.
        elsewhere: What else to do if it cannot be written to, as the message says it.
        shared: Whether other processes may write the same file at the same time.

    Raises:
        InputError: If the disk is full, or the place cannot be written to.
    """
    partial = path.with_name(f".{uuid4().hex if shared else path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _refused(path, error, elsewhere) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(
    path: Path, data: bytes, *, elsewhere: str = "choose another place", shared: bool = False
) -> None:
    """Write a whole file; see `replacing`."""
    with replacing(path, elsewhere=elsewhere, shared=shared) as partial:
        partial.write_bytes(data)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside a new one, which is called so once it is filled; if not, nothing is left.

    Raises:
        InputError: If the disk is full, or the place cannot be written to.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise _refused(path, error, "choose another place") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def append_bytes(path: Path, data: bytes) -> None:
    """Add to the end of a file; a power cut may leave the last line torn.

    Raises:
        InputError: If it cannot be written to.
    """
    try:
        with path.open("ab") as file:
            file.write(data)
        _sync(path)
    except OSError as error:
        raise _refused(path, error, "choose another place") from None


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    if path.is_dir() and os.name == "nt":
        return  # which keeps names safe itself, and opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refused(path: Path, error: OSError, elsewhere: str) -> InputError:
    told, first = f"got: {error.strerror or error}", "Make it writable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        told, first = "there is no space left on the disk", "Free some space"
    elif error.errno == errno.ENAMETOOLONG:
        told, first = "its name is too long", "Choose a shorter one"
    return InputError(f"Expected to write {path}, but {told}. {first}, or {elsewhere}.")


def save_json(path: Path, value: object) -> None:
    """Write JSON; see `replacing`."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path, then: str = AGAIN) -> Any:
    """Read JSON; ``then`` says what to do if it cannot be read.

    Raises:
        InputError: If it is missing, or no JSON.
    """
    with _reading(path, then):
        return json.loads(path.read_bytes())


def sealed(record: Mapping[str, Any], name: str = "manifest.json") -> bytes:
    """JSON whose last key is a hash of the file's name and all others."""
    own = hashlib.sha256((name + json.dumps(record)).encode()).hexdigest()
    return (json.dumps({**record, _OWN: own}, indent=1) + "\n").encode()


def save_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write JSON that tells `read_sealed` whether it was changed; see `replacing`."""
    write_bytes(path, sealed(record, path.name))


def read_sealed(path: Path, then: str = AGAIN, *needed: str) -> dict[str, Any]:
    """Read what `save_sealed` wrote, without the hash.

    By the keys ``needed`` it is told from other files of its name.

    Raises:
        InputError: If it is missing or was changed.
    """
    with _reading(path, then):
        data = path.read_bytes()
        record = json.loads(data)
        if not isinstance(record, dict) or _OWN not in record:
            raise ValueError("no hash of its own; it was changed, or another version wrote it")
        del record[_OWN]
        if sealed(record, path.name) != data:
            raise ValueError("other content than its own hash says")
        if not record.keys() >= set(needed):
            raise ValueError(f"a file without {', '.join(needed)}")
    return record


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that tells `load_tensors` whether it was changed."""
    with replacing(path) as partial:
        fill_whole(partial, path.name, tensors)


def save_rows(path: Path, name: str, n_rows: int, parts: Iterable[Tensor]) -> None:
    """As `save_tensors`, one tensor of so many rows, of which one part at a time is held."""
    rest = iter(parts)
    first = next(rest)

    def pieces() -> Iterator[tuple[str, int, Tensor]]:
        yield name, 0, first
        begin = first.numel()
        for part in rest:
            yield name, begin, part
            begin += part.numel()

    with replacing(path) as partial:
        layout = {name: (first.dtype, (n_rows, *first.shape[1:]))}
        fill(partial, path.name, layout, pieces())


def fill_whole(partial: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """As `fill`, each tensor in one piece."""
    layout = {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}
    fill(partial, name, layout, ((key, 0, tensor) for key, tensor in tensors.items()))


def fill(partial: Path, name: str, layout: Layout, pieces: Pieces) -> None:
    """Write a safetensors file piece by piece, in any order, and seal it.

    The seal is in the file's metadata: the hash of its name and its bytes, itself left out. It is
    written to a name that `replacing` gives, and will be called as ``name`` says.
    """
    entries: dict[str, Any] = {"__metadata__": {"sha256": _UNSEALED}}
    begin, end = {}, 0
    for key in sorted(layout, key=lambda key: (-layout[key][0].itemsize, key)):  # aligned
        dtype, shape = layout[key]
        begin[key], end = end, end + math.prod(shape) * dtype.itemsize
        offsets = begin[key], end
        entries[key] = {"dtype": _CODES[dtype], "shape": [*shape], "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, index, part in pieces:
            dtype = layout[key][0]
            file.seek(start + begin[key] + index * dtype.itemsize)
            file.write(bytes_of(part.detach().cpu().to(dtype)))
    _, seal = _seals(partial, name)
    with partial.open("r+b") as file:
        file.seek(8 + text.index(_UNSEALED.encode()))
        file.write(seal.encode())


def load_tensors(
    path: Path, sha256: str | None = None, *, then: str = AGAIN, device: str = "cpu"
) -> dict[str, Tensor]:
    """Map the tensors of a file after checking each of its bytes.

    Without a ``sha256``, as a manifest has it, its own seal counts.

    Raises:
        InputError: If it is missing or was changed.
    """
    if sha256 is not None:
        check_hash(path, sha256, then)
    with _reading(path, then):
        if sha256 is None:
            written, found = _seals(path, path.name)
            if written != found:
                raise ValueError("other bytes than its own hash says")
        return load_file(str(path), device=device)


def check_hash(path: Path, sha256: str, then: str = AGAIN) -> None:
    """Compare a file with what a manifest says of it.

    Raises:
        InputError: If it is missing or was changed.
    """
    with _reading(path, then):
        found = sha256_of(path)
        if found != sha256:
            raise ValueError(f"other bytes: sha256 {found[:12]}… instead of {sha256[:12]}…")


@contextmanager
def _reading(path: Path, then: str) -> Iterator[None]:
    """Tell in one message why a file cannot be read."""
    try:
        yield
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        told = f"got {getattr(error, 'strerror', None) or error}"
        if isinstance(error, FileNotFoundError):
            then = then.removeprefix("Delete it and ")
            told, then = "it is missing", then[:1].upper() + then[1:]
        elif not isinstance(error, OSError) and not path.stat().st_size:
            told = "it is empty"
        raise InputError(f"Expected {path} as it was written, but {told}. {then}") from None


def _seals(path: Path, name: str) -> tuple[str, str]:
    """The seal in a safetensors file, and what it has to be."""
    with path.open("rb") as file:
        head = file.read(8)
        size = int.from_bytes(head, "little")
        text = file.read(min(size, path.stat().st_size))
        at = text.find(b'"sha256":"') + len(b'"sha256":"')
        seal = text[at : at + len(_UNSEALED)]
        digest = hashlib.sha256(name.encode() + head)
        digest.update(text[:at] + _UNSEALED.encode() + text[at + len(_UNSEALED) :])
        while part := file.read(_ROWS):
            digest.update(part)
    return seal.decode(errors="replace"), digest.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a tensor on the CPU; a copy only where it has gaps."""
    flat = tensor.contiguous().reshape(-1)
    if flat.stride() != (1,):  # of one number or none
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data


def hash_tensor(digest: hashlib._Hash, tensor: Tensor) -> None:
    """Add a tensor's bytes to a hash, some at a time, whether it is contiguous or not."""
    if tensor.numel() <= _ROWS:
        flat = tensor.detach().cpu().flatten().clone(memory_format=torch.contiguous_format)
        digest.update(flat.view(torch.uint8).numpy().data)
        return
    step = max(1, _ROWS // tensor[:1].numel())
    for part in tensor.split(step):
        hash_tensor(digest, part if len(tensor) > 1 else part[0])


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
