"""Features of proteins through a language model: mean-pooled, batched by tokens, kept on disk."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mtbkd.inputs.cache import key_of
from mtbkd.inputs.frozen import FeaturesOf, batches, through_cache
from mtbkd.inputs.proteins.alphabet import Alphabet
from mtbkd.inputs.proteins.backbone import Backbone
from mtbkd.types import InputError, Report, quiet, refuse

_LETTERS = re.compile("[A-Z]+")
_ACCELERATOR_TOKENS, _PROCESSOR_TOKENS = 8192, 2048
_SHOWN = 3


def embed(
    backbone: Backbone,
    sequences: Sequence[str],
    *,
    max_tokens: int | None = None,
    cache: Path | None = None,
    report: Report = quiet,
) -> Tensor:
    """The mean of a model's last hidden states over the residues of each protein.

    Special tokens and padding do not count. Of a sequence longer than the model's limit, the first
    and last halves of the limit are shown as one sequence: signals that send proteins to their
    places lie at the ends.

    Args:
        backbone: The model.
        sequences: In capital letters.
        max_tokens: Largest size of a batch, padding included; a protein that is longer is a batch
            of its own. If not given, 8192 on an accelerator and 2048 on a processor, whose caches
            larger batches overflow.
        cache: A folder where features are kept, see `mtbkd.inputs.cache`; None keeps
            none. The model is not loaded if all features are there.
        report: Called after every batch.

    Returns:
        Features in the order of the sequences, float32, shape (protein, width).

    Raises:
        InputError: If sequences are empty or hold other signs, the model does not fit its files,
            or features cannot be kept.
    """
    budget = max_tokens
    if budget is None:
        budget = _PROCESSOR_TOKENS if backbone.device.type == "cpu" else _ACCELERATOR_TOKENS
    _check(sequences, budget)
    shown = [backbone.cut(sequence) for sequence in sequences]

    def compute(rows: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        extra = backbone.loaded.alphabet.extra
        for batch in batches([len(shown[row]) + extra for row in rows], budget):
            some = [rows[i] for i in batch]
            try:
                found = pooled(backbone, [shown[row] for row in some])
            except torch.OutOfMemoryError:
                raise InputError(
                    f"Expected room for {len(some)} proteins of {len(shown[some[0]])} residues on "
                    f"{backbone.device} beside the model {backbone.name!r}, but its memory is "
                    f"full. Lower max_tokens, which is {budget}."
                ) from None
            yield some, found

    about = {
        "model": backbone.name,
        "limit": backbone.limit,
        "precision": backbone.precision,
        "width": backbone.width,
    }
    features = FeaturesOf(backbone.name, backbone.width, backbone.key, about, compute)
    return through_cache(features, [key_of(s) for s in sequences], cache, report)


def pooled(backbone: Backbone, shown: Sequence[str]) -> Tensor:
    """Features of one batch of sequences that are within the limit, shape (protein, width)."""
    alphabet = backbone.loaded.alphabet
    tokens, residues, mask = _encode(alphabet, shown)
    place = backbone.device
    hidden = backbone.loaded.hidden(tokens.to(place), mask.to(place)).float()
    inside = residues.to(place, torch.float32)
    # zero times a hidden state of padding that is not finite would not be zero
    hidden = hidden.masked_fill(inside[:, :, None] == 0, 0.0)
    return ((inside[:, None, :] @ hidden)[:, 0] / inside.sum(1, keepdim=True)).cpu()


def _encode(alphabet: Alphabet, shown: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, which of them are residues, and which are no padding, each (protein, token)."""
    prefix, suffix = (
        torch.tensor(p, dtype=torch.int64) for p in (alphabet.prefix, alphabet.suffix)
    )
    rows = []
    for sequence in shown:
        letters = torch.frombuffer(bytearray(sequence, "ascii"), dtype=torch.uint8).long()
        rows.append(torch.cat([prefix, alphabet.codes[letters - ord("A")], suffix]))
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=alphabet.padding)
    place = torch.arange(tokens.shape[1]) - len(prefix)
    sizes = torch.tensor([[len(sequence)] for sequence in shown])
    return tokens, (place >= 0) & (place < sizes), (place < sizes + len(suffix)).long()


def _check(sequences: Sequence[str], max_tokens: int) -> None:
    faults = []
    if max_tokens < 1:
        faults.append(f"Expected max_tokens of 1 or more, but got {max_tokens}. Raise it.")
    wrong = [row for row, s in enumerate(sequences) if not _LETTERS.fullmatch(s)]
    for row in wrong[:_SHOWN]:
        strange = sequences[row].lstrip(string.ascii_uppercase)[:1]
        told = f"the sign {strange!r}" if sequences[row] else "none"
        faults.append(
            f"Expected capital letters in sequence {row}, but got {told} ({len(wrong)} such "
            "sequences). Mend or remove it."
        )
    refuse(*faults)
