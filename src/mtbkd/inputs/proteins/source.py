"""Protein language models: which there are, and where they lie."""

from __future__ import annotations

from pathlib import Path

from mtbkd.inputs.models import ModelFiles, Wanted, find_model

_TOKENIZER_FILES = (
    "vocab.txt",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_WANTED = Wanted(
    what="a protein language model",
    example="facebook/esm2_t6_8M_UR50D",
    extra="proteins",
    beside=_TOKENIZER_FILES,
    needed={"esm": ("vocab.txt",), "t5": ("spiece.model", "tokenizer.json")},
    needed_as="tokenizer",
    types=(("esm", "t5"), "an ESM or T5 model"),
)


def find_protein_model(source: str | Path) -> ModelFiles:
    """The files of an ESM or T5 model; an id is downloaded unless it is there already.

    Raises:
        InputError: If it is none of these, cannot be fetched, or lacks files.
    """
    return find_model(source, _WANTED)
