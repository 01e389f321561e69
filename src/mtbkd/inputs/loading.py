"""Frozen models of Hugging Face read into memory: nothing is run that their folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mtbkd.errors import need
from mtbkd.inputs.models import ModelFiles, first_line
from mtbkd.types import InputError


@dataclass(frozen=True)
class Classes:
    """What reads a model.

    Attributes:
        model: Name of its class in transformers.
        reader: That of its tokenizer or image processor.
        what: Both in words, for messages: "an ESM model with its tokenizer".
        extra: Which extra of the package brings transformers.
        unused: How names of weights begin that features do not need.
        reads_with: Options of the tokenizer or image processor.
    """

    model: str
    reader: str
    what: str
    extra: str
    unused: tuple[str, ...] = ("pooler.",)
    reads_with: tuple[tuple[str, Any], ...] = ()


def load_frozen(
    files: ModelFiles, classes: Classes, dtype: torch.dtype, **options: Any
) -> tuple[Any, Any]:
    """A reader and its model, which is not to be trained; other options are those of the model.

    Weights are read from safetensors only, and the global random state is left as it was.

    Raises:
        InputError: If a library or weights are missing, or do not fit what ``config.json`` says.
    """
    transformers = need("transformers", classes.extra)
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    folder, state = str(files.folder), torch.get_rng_state()
    try:
        with _quiet(transformers.utils.logging):
            reader = getattr(transformers, classes.reader).from_pretrained(
                folder, **where, **dict(classes.reads_with)
            )
            model, info = getattr(transformers, classes.model).from_pretrained(
                folder,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=dtype,
                **where,
                **options,
            )
    except Exception as error:  # transformers raises nearly everything for what is not there
        raise InputError(
            f"Expected {classes.what} at {files.source!r}, but got: {first_line(error)}. Fetch the "
            "files again."
        ) from None
    finally:
        torch.set_rng_state(state)
    absent = {key: "is missing" for key in info["missing_keys"]}
    absent |= {key: "has another shape" for key, *_ in info["mismatched_keys"]}
    wrong = sorted(key for key in absent if not key.startswith(classes.unused))
    if wrong:
        raise InputError(
            f"Expected all weights of the model {files.source!r} as its config.json describes "
            f"them, but {wrong[0]!r} {absent[wrong[0]]} ({len(wrong)} such). Fetch the files again."
        )
    return reader, model.eval().requires_grad_(False)


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without bars, and without a word on parts of a checkpoint that features do not need."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
