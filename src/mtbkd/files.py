"""The one way to disk: files written whole or not at all, and hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

_ROWS = 2**22  # numbers that are hashed at once


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, str(partial))
    partial.rename(path)


def save_json(path: Path, value: object) -> None:
    """Write JSON under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.rename(path)


def hash_tensor(digest: hashlib._Hash, tensor: Tensor) -> None:
    """Add a tensor's bytes to a hash, some at a time, whether it is contiguous or not."""
    if tensor.numel() <= _ROWS:
        flat = tensor.detach().cpu().flatten().clone(memory_format=torch.contiguous_format)
        digest.update(flat.view(torch.uint8).numpy().data)
        return
    step = max(1, _ROWS // tensor[:1].numel())
    for part in tensor.split(step):
        hash_tensor(digest, part if len(tensor) > 1 else part[0])


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.rename(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
