"""Images from a table of paths, a folder with a folder for each class, or an array of NPZ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtbkd.inputs.columns import Table
from mtbkd.inputs.images.opening import SUFFIXES
from mtbkd.inputs.tables import read_arrays, read_table, table_of
from mtbkd.types import InputError

ID, PATH, LABEL = "id", "path", "label"
"""Columns of a folder of images: the id is the path in the folder."""

_LARGEST_SIDE = 2**12


def read_images_table(path: Path, column: str) -> tuple[Table, tuple[str, ...]]:
    """The rows of a folder, an NPZ file or any other table, and notes on what was left out.

    Args:
        path: A folder of images, whose folders are classes; those that lie in none have no label.
            Or a table, of which NPZ may hold the images themselves.
        column: That of the images: of paths, or the name of the array.

    Raises:
        InputError: If it cannot be read or there are none.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() != ".npz":
        return read_table(path, "images"), ()
    arrays = read_arrays(path, "images")
    images = arrays.get(column)
    if images is None or images.ndim < 3:
        return table_of(arrays, path, "images"), ()
    del arrays[column]
    if not arrays:
        arrays[ID] = np.arange(len(images)).astype(str)
    table = table_of(arrays, path, "images")
    if table.cells.num_rows != len(images):
        raise InputError(
            f"Expected an image for each of {table.cells.num_rows} rows in {path}, but got "
            f"{len(images)} in array {column!r}. Save them again."
        )
    return Table(path, table.cells, arrays={column: checked(images, column, path)}), ()


def checked(images: NDArray[Any], column: str, path: Path) -> NDArray[np.uint8]:
    """An array of images, shape (row, height, width) or (row, height, width, 3).

    Raises:
        InputError: If it has another type or shape.
    """
    *_, last = images.shape
    flat = images[..., 0] if images.ndim == 4 and last == 1 else images
    coloured = flat.ndim == 4 and last == 3
    sides = flat.shape[1:3]
    if images.dtype != np.uint8:
        raise InputError(
            f"Expected images of the type uint8 in array {column!r} of {path}, but got "
            f"{images.dtype}. Scale them to 0-255 and convert them."
        )
    if not (flat.ndim == 3 or coloured) or min(sides) < 1 or max(sides) > _LARGEST_SIDE:
        raise InputError(
            f"Expected images of shape (row, height, width) or (row, height, width, 3) in array "
            f"{column!r} of {path}, but got {images.shape}. Save them again."
        )
    return flat


def digest_of(path: Path) -> str:
    """SHA-256 of the names and sizes of a folder's images."""
    told = hashlib.sha256()
    for name in sorted(_names(path)):
        told.update(f"{name} {(path / name).stat().st_size}\n".encode())
    return told.hexdigest()


def _names(folder: Path) -> Iterator[str]:
    """Images, as paths in the folder; nothing that is hidden."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            yield name


def _folder(folder: Path) -> tuple[Table, tuple[str, ...]]:
    names = sorted(_names(folder))
    if not names:
        raise InputError(
            f"Expected images ending in {', '.join(SUFFIXES)} in the folder {folder}, but there "
            "are none. Name a folder that holds a folder of images for each class."
        )
    labels = [name.partition("/")[0] if "/" in name else "" for name in names]
    files = (p for p in folder.rglob("*") if not p.name.startswith(".") and p.is_file())
    others = sorted(p.name for p in files if p.suffix.lower() not in SUFFIXES)
    notes = (
        (f"{len(others)} files in {folder} are no images by their names, such as {others[0]!r}.",)
        if others
        else ()
    )
    cells = pa.table({ID: pa.array(names), PATH: pa.array(names), LABEL: pa.array(labels)})
    return Table(folder, cells), notes
