"""How the tokenizers of protein language models write sequences."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtbkd.inputs.models import ModelFiles
from mtbkd.types import refuse

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
_RARE = "UZOB"  # which ProtT5 was trained to read as X


@dataclass(frozen=True)
class Alphabet:
    """How a model's tokenizer writes sequences.

    Attributes:
        codes: Token of each capital letter, shape (26,).
        prefix: Tokens before the residues.
        suffix: Tokens after them.
        padding: The token that fills rows up.
    """

    codes: Tensor
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    padding: int

    @property
    def extra(self) -> int:
        """Tokens of a sequence that are not residues."""
        return len(self.prefix) + len(self.suffix)


def read_alphabet(tokenizer: Any, files: ModelFiles, rows: int) -> Alphabet:
    """Ask a tokenizer once how it writes every letter, and check that it is this model's.

    ``rows`` is how many embeddings the model has.

    Raises:
        InputError: If an amino acid has no token of its own, or a token no embedding.
    """
    separator = " " if files.kind == "t5" else ""

    def tokens(text: str, special: bool = False) -> list[int]:
        return list(tokenizer(separator.join(text), add_special_tokens=special)["input_ids"])

    unknown = tokenizer.unk_token_id
    singles = {c: ids[0] for c in string.ascii_uppercase if len(ids := tokens(c)) == 1}
    known = {c: i for c, i in singles.items() if i != unknown}
    lost = [c for c in RESIDUES if c not in known]
    faults = []
    if lost or len({known[c] for c in RESIDUES}) < len(RESIDUES):
        told = f"does not know {', '.join(lost)}" if lost else "takes some for the same"
        faults.append(
            f"Expected a tokenizer with one token for each of the 20 amino acids beside the model "
            f"{files.source!r}, but it {told}. Save the model's own tokenizer into its folder."
        )
    elif tokens(RESIDUES) != [known[c] for c in RESIDUES]:
        faults.append(
            f"Expected a tokenizer that writes one token for each residue beside the model "
            f"{files.source!r}, but it writes {len(tokens(RESIDUES))} for {RESIDUES}. Save the "
            "model's own tokenizer into its folder."
        )
    # sentinels are counted by the tokenizer, and need not be in a model that only encodes
    highest = max(i for t, i in tokenizer.get_vocab().items() if not t.startswith("<extra_id_"))
    if highest >= rows:
        faults.append(
            f"Expected a tokenizer of at most {rows} tokens beside the model {files.source!r}, "
            f"which has as many embeddings, but got {highest + 1}. Save the model's own tokenizer "
            "into its folder."
        )
    refuse(*faults)
    if files.kind == "t5":
        known = {c: i for c, i in known.items() if c not in _RARE}
    instead = known.get("X", unknown)
    codes = torch.tensor([known.get(c, instead) for c in string.ascii_uppercase])
    whole, inner = tokens(RESIDUES, special=True), tokens(RESIDUES)
    start = next(s for s in range(len(whole)) if whole[s : s + len(inner)] == inner)
    return Alphabet(
        codes=codes,
        prefix=tuple(whole[:start]),
        suffix=tuple(whole[start + len(inner) :]),
        padding=tokenizer.pad_token_id or 0,
    )
