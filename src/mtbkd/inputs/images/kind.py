"""Images as inputs: kept as bytes, opened when they are needed."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mtbkd.errors import collect
from mtbkd.inputs.columns import Table, first_faults
from mtbkd.inputs.images.encoder import find_encoder
from mtbkd.inputs.images.opening import (
    SUFFIXES,
    Pixels,
    as_pixels,
    decode,
    look,
    open_whole,
    shown,
)
from mtbkd.inputs.images.reading import PATH, read_images_table
from mtbkd.inputs.kind import InputKind, Rows
from mtbkd.types import InputError, Ints

_LARGEST = 64  # pixels on a side, where the user names no size
_SMALLEST = 4
_DRAWN = 96  # pixels on a screen


@dataclass(frozen=True)
class Images:
    """Images in files or in one array.

    Attributes:
        ids: One for each image.
        sources: Files; or pixels of shape (image, height, width) or (image, height, width, 3).
        place: Where they are from, for messages.
        size: Height and width that they are brought to.
        channels: 1 for grey, 3 for colours.
    """

    ids: tuple[str, ...]
    sources: tuple[Path, ...] | Pixels
    place: Path
    size: tuple[int, int]
    channels: int

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Images:
        return replace(self, ids=self.ids[rows], sources=self.sources[rows])

    def whole(self, row: int) -> Image.Image:
        """One image as it is in its file."""
        if isinstance(self.sources, tuple):
            return open_whole(self.sources[row], self._name(row))
        return Image.fromarray(np.ascontiguousarray(self.sources[row]))

    def pixels(self, row: int) -> Pixels:
        """One image, shape (channel, height, width)."""
        if isinstance(self.sources, tuple):
            return decode(self.sources[row], self._name(row), self.size, self.channels)
        return as_pixels(self.whole(row), self.size, self.channels)

    def key(self, row: int) -> bytes:
        """A hash of the content of one image, 32 bytes."""
        if isinstance(self.sources, tuple):
            data = self.sources[row].read_bytes()
        else:
            one = np.ascontiguousarray(self.sources[row])
            data = f"{one.shape}\n".encode() + one.tobytes()
        return hashlib.sha256(data).digest()

    def _name(self, row: int) -> str:
        return f"id {self.ids[row]!r}"


def images(
    id_column: str,
    column: str,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> InputKind:
    """Images.

    Args:
        id_column: The column of ids, in new rows.
        column: That of paths, which are relative to the file; or the name of an array of NPZ.
        size: Height and width; if not given, what most images have, but 64 on a side at most.
        channels: 1 or 3; if not given, 1 where all images are grey.
    """

    def check(examples: Table) -> Rows:
        found = _sized(_of(examples, column), size, channels)
        about = {"size": list(found.size), "channels": found.channels}
        return Rows(ids=examples.ids, values=found, about=about, table=examples)

    def read(path: Path) -> Rows:
        if path.suffix.lower() in SUFFIXES:
            cells = Images((path.name,), (path,), path, (1, 1), 3)
            return Rows(ids=(path.name,), values=_sized(cells, size, channels))
        examples, notes = read_images_table(path, PATH if path.is_dir() else column)
        ids = id_column if id_column in examples.names or not path.is_dir() else "id"
        return replace(check(examples.with_ids(ids, "Add it.")), notes=notes)

    return InputKind(
        name="images",
        check=check,
        read=read,
        tensor=_tensor,
        scaling="none",
        draw=_draw,
        ask=_asked,
        find_encoder=find_encoder,
    )


def _of(examples: Table, column: str) -> Images:
    """The images of a table, not brought to any size."""
    array, start = examples.arrays.get(column), (1, 1)
    if array is not None:
        return Images(examples.ids, array, examples.path, start, 3 if array.ndim == 4 else 1)
    words = [word.strip() for word in examples.words(column)]
    empty = [row for row, word in enumerate(words) if not word]
    if empty:
        raise InputError(
            f"Expected the path of an image in column {column!r} of {examples.path}, but got none "
            f"for id {examples.ids[empty[0]]!r} ({len(empty)} such). Add it, or leave the row out."
        )
    folder = examples.path if examples.path.is_dir() else examples.path.parent
    return Images(examples.ids, tuple(folder / word for word in words), examples.path, start, 3)


def _sized(found: Images, size: tuple[int, int] | None, channels: int | None) -> Images:
    """With a size and a number of channels, by the headers of all images where not given.

    Raises:
        InputError: With one message for each image that cannot be used.
    """
    if size is not None and channels is not None:
        return replace(found, size=size, channels=channels)
    if isinstance(found.sources, tuple):
        faults: list[str] = []
        looks = [
            collect(faults, lambda path=path, row=row: look(path, found._name(row)))
            for row, path in enumerate(found.sources)
        ]
        if faults:
            raise InputError(*first_faults(faults, str(found.place)))
        common = Counter((h, w) for h, w, _ in looks).most_common(1)[0][0]
        colours = max(c for *_, c in looks)
    else:
        _, *sides = found.sources.shape[:3]
        common, colours = (sides[0], sides[1]), found.channels
    if size is None:
        share = min(1.0, _LARGEST / max(common))
        size = tuple(max(_SMALLEST, round(share * side)) for side in common)  # type: ignore[assignment]
    return replace(found, size=size, channels=channels or colours)


def _tensor(values: Images) -> Tensor:
    """uint8, shape (image, channel, height, width); one message for each that is damaged."""
    return torch.from_numpy(_asked(values, np.arange(len(values))))


def _asked(values: Images, rows: Ints) -> NDArray[np.uint8]:
    found = np.empty((len(rows), values.channels, *values.size), np.uint8)
    faults: list[str] = []
    for place, row in enumerate(rows.tolist()):
        pixels = collect(faults, lambda row=row: values.pixels(row))
        if pixels is not None:
            found[place] = pixels
    if faults:
        raise InputError(*first_faults(faults, str(values.place)))
    return found


def _draw(rows: Rows, row: int, read: Tensor) -> str:
    """The picture as the student reads it, or as it is in its file if an encoder reads that."""
    if read.dtype == torch.uint8:
        return picture(shown(read.numpy()), rows.ids[row])
    try:
        return picture(rows.values.whole(row), rows.ids[row])
    except InputError:
        return f"<code>{html.escape(rows.ids[row])}</code>, whose file is not there any more"


def picture(image: Image.Image, name: str) -> str:
    """An image inside a page: PNG, `_DRAWN` pixels on its longer side."""
    scale = _DRAWN / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    if scale < 1:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    coded = base64.b64encode(data.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{coded}" width="{width}" height="{height}" '
        f'alt="{html.escape(name)}" style="image-rendering:{"pixelated" if scale > 1 else "auto"}">'
    )
