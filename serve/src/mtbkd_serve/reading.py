"""From a request to what the graph reads, or the reason why not."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mtbkd_serve.folder import Inputs

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_MOST_PIXELS, _LONGEST_SIDE = 2**23, 2**13
_SHOWN, _MOST_TOLD = 80, 5


class Refused(ValueError):
    """A request that cannot be answered; ``faults`` holds one message for each fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class Asked(BaseModel):
    """Examples to answer, of one kind."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    rows: list[list[float]] | list[dict[str, float]] | None = Field(
        default=None, description="Numbers of each example, in order or by the names of columns."
    )
    images: list[str] | None = Field(
        default=None, description="Files of images (PNG, JPEG, WEBP, BMP, GIF) in base64."
    )
    texts: list[str] | None = Field(default=None, description="Refused: exports read none so far.")
    fasta: str | None = Field(default=None, description="Refused: exports read none so far.")
    defer: bool = Field(
        default=False, description="Whether answers are held back that the policy does not allow."
    )


def parse(body: bytes) -> Asked:
    """The request in a body.

    Raises:
        Refused: If it is none, naming the places.
    """
    try:
        asked = Asked.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        told = [each for each in found if each["type"] not in ("list_type", "dict_type")]
        raise Refused(
            *(
                f"Expected {_place(each['loc'])} as /openapi.json describes it, but got: "
                f"{each['msg'][:200]}. Correct it."
                for each in (told or found)[:_MOST_TOLD]
            )
        ) from None
    given = [name for name in ("rows", "images", "texts", "fasta") if getattr(asked, name)]
    if len(given) != 1:
        raise Refused(
            "Expected examples under one of the keys rows, images, texts and fasta, but got "
            f"{' and '.join(given) or 'none'}. Send one kind, and at least one example."
        )
    return asked


def values_of(asked: Asked, inputs: Inputs, most_rows: int) -> NDArray[Any]:
    """What the graph reads, shape (example, ...).

    Raises:
        Refused: If it reads another kind, there are too many, or one is malformed.
    """
    if asked.texts or asked.fasta:
        got = "texts" if asked.texts else "FASTA"
        raise Refused(
            f"Expected {_wanted(inputs)}, but got {got}. What makes numbers of these is not in an "
            "exported folder: make the features with the run, and send them as rows."
        )
    given = asked.images or asked.rows or []
    if bool(asked.images) != inputs.pictures:
        got = "images" if asked.images else "rows"
        raise Refused(f"Expected {_wanted(inputs)}, but got {got}. Send these.")
    if len(given) > most_rows:
        raise Refused(
            f"Expected {most_rows} examples at most, but got {len(given)}. Send them in parts."
        )
    if asked.images:
        return _each(asked.images, lambda text: _pixels(text, inputs))
    return _each(asked.rows or [], lambda row: _numbers(row, inputs))


def _wanted(inputs: Inputs) -> str:
    if inputs.pictures:
        return f"images ({inputs.what})"
    return f"rows of {inputs.n_numbers} numbers ({inputs.what[:300]})"


def _each(given: list[Any], read: Any) -> NDArray[Any]:
    found, faults = [], []
    for i, one in enumerate(given):
        try:
            found.append(read(one))
        except Refused as error:
            faults += [f"Example {i}: {fault}" for fault in error.faults]
            if len(faults) >= _MOST_TOLD:
                break
    if faults:
        raise Refused(*faults)
    return np.stack(found)


def _numbers(row: Any, inputs: Inputs) -> NDArray[Any]:
    """One row, by order or by names."""
    if isinstance(row, dict):
        if row.keys() != set(inputs.columns):
            odd = [*(n for n in inputs.columns if n not in row), *(row.keys() - inputs.columns)]
            raise Refused(
                f"Expected the columns {', '.join(inputs.columns)[:300] or 'in order, unnamed'}, "
                f"but {str(odd[:_MOST_TOLD])[:_SHOWN]} are missing or unknown. Correct it."
            )
        row = [row[name] for name in inputs.columns]
    if len(row) != inputs.n_numbers:
        raise Refused(
            f"Expected {inputs.n_numbers} numbers ({inputs.what[:300]}), but got {len(row)}. "
            "Correct it."
        )
    exact = np.array(row, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values = exact.astype(inputs.dtype)
    fits = np.isfinite(values) if values.dtype.kind == "f" else values == exact
    if not fits.all():
        at = int(np.argmin(fits))
        raise Refused(
            f"Expected numbers that {inputs.dtype} can hold, but got {row[at]:g} at place {at}. "
            "Correct it."
        )
    return values.reshape(inputs.shape)


def _pixels(text: str, inputs: Inputs) -> NDArray[np.uint8]:
    """One image as `mtbkd` reads it: upright, on white, cut around its centre, brought to size."""
    try:
        data = base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("Expected an image in base64, but got something else. Correct it.") from None
    channels, height, width = inputs.shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _judge(image)
                plain = upright(image).convert("L" if channels == 1 else "RGB")
            if plain.size != (width, height):
                plain = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    except Refused:
        raise
    except Exception as error:  # decoders raise nearly everything for bytes that are damaged
        told = " ".join(str(error).split())[:_SHOWN].split(" object at")[0]
        raise Refused(
            f"Expected an image ({', '.join(FORMATS)}), but got one that cannot be read "
            f"({told or type(error).__name__}). Mend or replace it."
        ) from None
    pixels = np.asarray(plain, np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def upright(image: Image.Image) -> Image.Image:
    """Decoded, turned as its camera says, in 8 bits, on white."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image, np.int64)
        return Image.fromarray((values.clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image


def _judge(image: Image.Image) -> None:
    """Refuse by the header, before anything is decoded, what is too large or moves."""
    width, height = image.size
    if width * height > _MOST_PIXELS or max(width, height) > _LONGEST_SIDE:
        raise Refused(
            f"Expected an image of {_MOST_PIXELS / 1e6:.0f} million pixels at most, but got one of "
            f"{width} by {height}. Make it smaller."
        )
    if getattr(image, "n_frames", 1) > 1:
        raise Refused("Expected one image, but got several frames. Send one of them.")


def _place(where: tuple[int | str, ...]) -> str:
    names = [str(part)[:_SHOWN] for part in where if not str(part).startswith("list[")]
    return ".".join(names) or "a request"
