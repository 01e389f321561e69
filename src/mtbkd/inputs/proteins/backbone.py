"""Protein language models as they are asked for features: ESM-2 and the encoder of ProtT5."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mtbkd.inputs.loading import Classes, load_frozen
from mtbkd.inputs.models import ModelFiles, digest_of
from mtbkd.inputs.proteins.alphabet import Alphabet, read_alphabet
from mtbkd.inputs.proteins.source import find_protein_model
from mtbkd.student.devices import find_device
from mtbkd.types import InputError

BackboneDtype = Literal["auto", "float32", "bfloat16", "float16"]

LIMIT = 1022
"""Residues that ESM-2 was trained on at most; T5 is given as many unless told otherwise."""

_UNUSED = ("contact_head.", "pooler.")
_CLASSES = {
    kind: Classes(model, reader, f"{named} model with its tokenizer", "proteins", _UNUSED)
    for kind, model, reader, named in (
        ("esm", "EsmModel", "EsmTokenizer", "an ESM"),
        ("t5", "T5EncoderModel", "T5Tokenizer", "a T5"),
    )
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_VERSION = 1  # of how sequences are cut, encoded and pooled; a change makes a new cache


@dataclass(frozen=True)
class Loaded:
    """A model in memory.

    Attributes:
        alphabet: How its tokenizer writes sequences.
        hidden: Tokens and attention mask, each (sequence, token), to the last hidden states,
            (sequence, token, width).
    """

    alphabet: Alphabet
    hidden: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Backbone:
    """A protein language model; its weights are read when it is first asked.

    Attributes:
        files: Where it lies on disk.
        width: Numbers in a hidden state.
        limit: Residues of a sequence that it is shown at most.
        device: Where it runs.
        precision: Type of its weights and arithmetic; features are pooled in float32.
    """

    files: ModelFiles
    width: int
    limit: int
    device: torch.device
    precision: Literal["float32", "bfloat16", "float16"]

    @property
    def name(self) -> str:
        """The path or id that was asked for."""
        return self.files.source

    @cached_property
    def loaded(self) -> Loaded:
        """The model in memory."""
        return _load(self)

    def key(self, memory: Path | None = None) -> str:
        """What its features depend on, as a name of a folder: model, limit and precision."""
        parts = [digest_of(self.files, memory), self.limit, self.precision, "mean", _VERSION]
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]

    def cut(self, sequence: str) -> str:
        """What the model is shown: both ends of a sequence that is too long, joined."""
        if len(sequence) <= self.limit:
            return sequence
        half = self.limit // 2
        return sequence[: self.limit - half] + sequence[-half:]


def load_backbone(
    source: str | Path,
    *,
    device: str = "auto",
    precision: BackboneDtype = "auto",
    limit: int | None = None,
) -> Backbone:
    """A model from a folder or the hub; needs ``pip install 'mtbkd[proteins]'``.

    Weights are read from safetensors only, no code of a repository is run, and nothing is read
    into memory before features are asked for that are not in a cache.

    Args:
        source: A folder that ``save_pretrained`` wrote, an id on the hub, or ``id@revision``.
        device: As PyTorch names it; ``auto`` takes an accelerator if there is one.
        precision: ``auto`` is bfloat16 on CUDA devices that have it and float32 elsewhere. Older
            CUDA devices get float16 where that is safe: for ESM, and for T5 weights that were
            stored in float16, as other T5 encoders overflow in it.
        limit: Residues that are shown at most, the first and last halves of a longer sequence; as
            many as an ESM has positions for, and 1022 for T5, if not given.

    Raises:
        InputError: If files are missing or damaged, or the settings do not fit the model.
    """
    files = find_protein_model(source)
    place = find_device(device)
    faults: list[str] = []
    allowed = _positions(files)
    if limit is not None and (limit < 2 or (allowed is not None and limit > allowed)):
        upper = f" and {allowed}" if allowed is not None else " and any number"
        faults.append(
            f"Expected a limit of residues between 2{upper} for the model {files.source!r}, but "
            f"got {limit}. Correct it."
        )
    if precision not in ("auto", *_DTYPES):
        faults.append(
            f"Expected a precision among auto, {', '.join(_DTYPES)}, but got {precision!r}. "
            "Choose one."
        )
    elif precision == "float16" and files.kind == "t5" and not files.half:
        faults.append(
            f"Expected a precision of float32 or bfloat16 for the T5 model {files.source!r}, whose "
            "weights are not stored in float16, but got 'float16', in which it may overflow. "
            "Choose bfloat16, or the model's half-precision weights."
        )
    width = files.config.get("hidden_size" if files.kind == "esm" else "d_model")
    if not isinstance(width, int):
        faults.append(
            f"Expected the width of the model {files.source!r} in its config.json, but got "
            f"{width!r}. Fetch the file again."
        )
    if faults or not isinstance(width, int):
        raise InputError(*faults)
    chosen = _precision(files, place) if precision == "auto" else precision
    return Backbone(
        files=files,
        width=width,
        limit=limit or allowed or LIMIT,
        device=place,
        precision=chosen,
    )


def _positions(files: ModelFiles) -> int | None:
    """Residues that an ESM has positions for: without both special tokens and padding's two."""
    if files.kind == "t5":
        return None
    given = files.config.get("max_position_embeddings")
    return given - 4 if isinstance(given, int) and given > 6 else LIMIT


def _precision(
    files: ModelFiles, device: torch.device
) -> Literal["float32", "bfloat16", "float16"]:
    if device.type != "cuda":
        return "float32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return "float16" if files.kind == "esm" or files.half else "float32"


def _load(backbone: Backbone) -> Loaded:
    files = backbone.files
    options = {"add_pooling_layer": False} if files.kind == "esm" else {}
    dtype = _DTYPES[backbone.precision]
    tokenizer, model = load_frozen(files, _CLASSES[files.kind], dtype, **options)
    rows = model.get_input_embeddings().weight.shape[0]
    alphabet = read_alphabet(tokenizer, files, rows)
    model = model.to(backbone.device)

    def hidden(tokens: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return model(input_ids=tokens, attention_mask=mask).last_hidden_state

    return Loaded(alphabet, hidden)
