"""One image file: opened, decoded and brought to a size, or refused with the reason."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mtbkd.inputs.opening import open_file
from mtbkd.types import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")

_MOST_PIXELS = 2**25  # 33 megapixels, of which one image takes 100 MB
_LONGEST_SIDE = 2**15
_MOST_BYTES = 2**27
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I")
_DEEP = ("I;16", "I;16B", "I;16L", "I")

Pixels = NDArray[np.uint8]


class _Refused(ValueError):
    """Why a file is no image that can be used."""


def look(path: Path, name: str) -> tuple[int, int, int]:
    """Height, width and number of channels, 1 or 3, by the header alone.

    Raises:
        InputError: If it is no image that can be used; ``name`` says which row it is of.
    """
    with _opened(path, name) as image:
        width, height = _turned(image)
        return height, width, 1 if image.mode in _GREY else 3


def decode(path: Path, name: str, size: tuple[int, int], channels: int) -> Pixels:
    """The pixels, brought to a height and width, shape (channel, height, width).

    Other proportions are cut at the sides, around the centre. What is transparent is white.

    Raises:
        InputError: If it is no image that can be used; ``name`` says which row it is of.
    """
    with _opened(path, name) as image:
        return as_pixels(upright(image), size, channels)


def as_pixels(image: Image.Image, size: tuple[int, int], channels: int) -> Pixels:
    """An image as pixels of this height and width, shape (channel, height, width)."""
    height, width = size
    plain = image.convert("L" if channels == 1 else "RGB")
    if plain.size != (width, height):
        plain = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(plain, np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def open_whole(path: Path, name: str) -> Image.Image:
    """The image as it is in the file, in 8 bits, grey or RGB.

    Raises:
        InputError: If it is no image that can be used; ``name`` says which row it is of.
    """
    with _opened(path, name) as image:
        whole = upright(image)
        return whole.convert("L" if whole.mode in _GREY else "RGB")


def upright(image: Image.Image) -> Image.Image:
    """Decoded, turned as its camera says, in 8 bits, on white."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        values = np.asarray(image, np.int64)
        return Image.fromarray((values.clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Image.Image]:
    """An image whose header was judged; any error while it is read is one message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_file(path, f"the image of {name}") as file:
                data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise _Refused(f"more than {_MOST_BYTES // 2**20} MB")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _judge(image)
                yield image
    except InputError:
        raise
    except Exception as error:  # decoders raise nearly everything for bytes that are damaged
        raise InputError(
            f"Expected an image in {path} of {name}, but got {_told(error)}. Mend or replace it, "
            "or leave its row out."
        ) from None


def _judge(image: Image.Image) -> None:
    """Refuse by the header, before anything is decoded, what is too large or moves."""
    width, height = image.size
    if width * height > _MOST_PIXELS or max(width, height) > _LONGEST_SIDE:
        raise _Refused(
            f"one of {width} by {height} pixels, of which {_MOST_PIXELS / 1e6:.0f} million are "
            "read at most"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise _Refused("one of several frames")


def _turned(image: Image.Image) -> tuple[int, int]:
    """Width and height as they are after turning."""
    sideways = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return image.size[::-1] if sideways else image.size  # type: ignore[return-value]


def _told(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"something else than {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"one of more than {_MOST_PIXELS / 1e6:.0f} million pixels"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return reason if isinstance(error, _Refused) else f"one that is damaged ({reason})"


def shown(pixels: Any) -> Image.Image:
    """Pixels of shape (channel, height, width) as an image."""
    values = np.asarray(pixels, np.uint8)
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))
