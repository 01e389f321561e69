"""Features kept on disk, shared between runs and processes.

One folder for each model and way of pooling, in it any number of safetensors files that are never
changed: each is named by the hash of its own content, so a file that was cut short or altered does
not fit its name. Writers need no lock, as no two of them write the same name with other content.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mtbkd.files import write_bytes

_ABANDONED = 86400.0  # seconds after which what a killed process left is removed


def cache_root() -> Path:
    """Where features are kept: ``$MTBKD_CACHE``, or the user's folder for caches."""
    if folder := os.environ.get("MTBKD_CACHE"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("mtbkd"))


def key_of(row: str | bytes) -> bytes:
    """What a row is found by, 32 bytes."""
    return hashlib.sha256(row.encode() if isinstance(row, str) else row).digest()


def recall(folder: Path, keys: Sequence[bytes], width: int) -> tuple[Tensor, Tensor]:
    """Features that are kept.

    A file that is damaged is told in a warning and removed; what it held counts as not kept.

    Returns:
        Features, zero where they are not kept, shape (row, width), and which are kept, shape
        (row,).
    """
    features = torch.zeros(len(keys), width)
    found = torch.zeros(len(keys), dtype=torch.bool)
    rows = {key: row for row, key in enumerate(keys)}
    for path in sorted(folder.glob("*.safetensors")):
        held = _read(path, width)
        if held is None:
            continue
        names, values = held
        pairs = [(rows[key], i) for i, key in enumerate(names) if key in rows]
        if pairs:
            ours, theirs = torch.tensor(pairs).unbind(1)
            features[ours] = values[theirs]
            found[ours] = True
    return features, found


def keep(folder: Path, keys: Sequence[bytes], features: Tensor) -> None:
    """Add features, shape (row, width), to those kept, in one new file.

    Raises:
        InputError: If the folder cannot be written, or the disk is full.
    """
    names = torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 32).copy())
    data = save({"keys": names, "features": features.float().contiguous()})
    share(folder / f"{hashlib.sha256(data).hexdigest()}.safetensors", data)


def share(path: Path, data: bytes) -> None:
    """Write a file of the cache, which other processes may be writing too.

    Raises:
        InputError: If it cannot be written.
    """
    write_bytes(path, data, elsewhere="set MTBKD_CACHE to another folder", shared=True)


def tidy(folder: Path) -> None:
    """Remove what processes that were killed left a day ago or earlier."""
    for path in folder.glob(".*.partial"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def _read(path: Path, width: int) -> tuple[list[bytes], Tensor] | None:
    """Keys and features of one file, or None if it is damaged."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.stem:
            raise ValueError(f"{len(data)} bytes that are not those written")
        held = load(data)
        keys, features = held["keys"].numpy(), held["features"]
        if features.shape != (len(keys), width):
            raise ValueError(f"features of shape {tuple(features.shape)}")
    except FileNotFoundError:  # another process found it damaged, or the user removed it
        return None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        warnings.warn(
            f"The cached features in {path} are damaged ({error}); they are computed again.",
            stacklevel=3,
        )
        with suppress(OSError):
            path.unlink()
        return None
    return [bytes(key) for key in keys], features
