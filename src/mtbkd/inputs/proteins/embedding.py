"""Features of proteins through a language model: mean-pooled, batched by tokens, kept on disk."""

from __future__ import annotations

import json
import os
import re
import string
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mtbkd.inputs.proteins.alphabet import Alphabet
from mtbkd.inputs.proteins.backbone import Backbone
from mtbkd.inputs.proteins.cache import keep, key_of, recall, share, tidy
from mtbkd.types import InputError, Report, quiet, refuse

_LETTERS = re.compile("[A-Z]+")
_ACCELERATOR_TOKENS, _PROCESSOR_TOKENS = 8192, 2048
_KEPT_ROWS, _KEPT_SECONDS = 2048, 60.0  # what is lost at most when a run is killed
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
        cache: A folder where features are kept, see `mtbkd.inputs.proteins.cache`; None keeps
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
    keys = [key_of(sequence) for sequence in sequences]
    different = dict(zip(keys, sequences, strict=True))
    own, shown = list(different), [backbone.cut(sequence) for sequence in different.values()]
    place = {key: row for row, key in enumerate(own)}
    folder = None
    if cache is None:
        features = torch.zeros(len(own), backbone.width)
        found = torch.zeros(len(own), dtype=torch.bool)
    else:
        folder = cache / "features" / backbone.key(cache / "digests")
        tidy(folder)
        features, found = recall(folder, own, backbone.width)
    missing = (~found).nonzero().flatten().tolist()
    if missing and folder is not None:
        _describe(backbone, folder)
    with _all_cores():
        _fill(backbone, shown, own, missing, features, budget, folder, report)
    return features[torch.tensor([place[key] for key in keys], dtype=torch.int64)]


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Rows of so many tokens in batches of similar length, the longest first.

    A batch is filled up to its longest row, to ``max_tokens`` at most; a longer row is alone.

    >>> list(batches([2, 9, 3, 3], 6))
    [[1], [2, 3], [0]]
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


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


@contextmanager
def _all_cores() -> Iterator[None]:
    """As many threads as there are cores, or as ``$OMP_NUM_THREADS`` says, for large matrices."""
    before = torch.get_num_threads()
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(os.cpu_count() or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def _fill(
    backbone: Backbone,
    shown: list[str],
    keys: list[bytes],
    missing: list[int],
    features: Tensor,
    max_tokens: int,
    folder: Path | None,
    report: Report,
) -> None:
    """Compute the rows that are missing, in place, and keep them as they come."""
    stage, total = f"features of {backbone.name}", len(shown)
    done = total - len(missing)
    if done:
        report(stage, done, total)
    if not missing:
        return
    extra = backbone.loaded.alphabet.extra
    pending: list[int] = []
    last = time.monotonic()
    for batch in batches([len(shown[row]) + extra for row in missing], max_tokens):
        rows = [missing[i] for i in batch]
        try:
            found = pooled(backbone, [shown[row] for row in rows])
        except torch.OutOfMemoryError:
            raise InputError(
                f"Expected room for {len(rows)} proteins of {len(shown[rows[0]])} residues on "
                f"{backbone.device} beside the model {backbone.name!r}, but its memory is full. "
                f"Lower max_tokens, which is {max_tokens}."
            ) from None
        if not found.isfinite().all():
            raise InputError(
                f"Expected finite features from the model {backbone.name!r}, but got NaN or "
                f"infinity in {backbone.precision}. Set its precision to float32."
            )
        features[rows] = found
        pending += rows
        done += len(rows)
        if folder is not None and (
            len(pending) >= _KEPT_ROWS or time.monotonic() - last > _KEPT_SECONDS or done == total
        ):
            keep(folder, [keys[row] for row in pending], features[pending])
            pending, last = [], time.monotonic()
        report(stage, done, total)


def _describe(backbone: Backbone, folder: Path) -> None:
    """Say in the cache whose features a folder holds, for those who tidy up."""
    about = {
        "model": backbone.name,
        "limit": backbone.limit,
        "precision": backbone.precision,
        "width": backbone.width,
    }
    if not (folder / "about.json").exists():
        share(folder / "about.json", (json.dumps(about, indent=1) + "\n").encode())


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
