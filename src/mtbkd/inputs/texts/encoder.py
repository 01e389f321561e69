"""Features of texts through any frozen model of Hugging Face: pooled, batched, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtbkd.inputs.cache import cache_root, key_of
from mtbkd.inputs.frozen import FeaturesOf, batches, through_cache
from mtbkd.inputs.kind import Encoder
from mtbkd.inputs.loading import Classes, load_frozen
from mtbkd.inputs.models import ModelFiles, digest_of, find_model
from mtbkd.inputs.texts.settings import WANTED, ReadingOf, reading_of
from mtbkd.student.devices import find_device
from mtbkd.types import InputError, Report, quiet

_ACCELERATOR_TOKENS, _PROCESSOR_TOKENS = 16384, 1024
_TOKENISED = 2048  # texts that are tokens at the same time
_CLASSES = Classes("AutoModel", "AutoTokenizer", "a text model with its tokenizer", "hf")
_VERSION = 1  # of how texts are cut and pooled; a change makes a new cache

Ask = Callable[[Tensor, Tensor], Tensor]
"""Tokens and attention mask, each (text, token), to last hidden states, (text, token, width)."""


@dataclass(frozen=True)
class TextModel:
    """A frozen model of texts, read into memory when it is first asked.

    Attributes:
        files: Where it lies on disk.
        reading: How it reads texts.
        width: Numbers in a hidden state.
        device: Where it runs, in single precision.
    """

    files: ModelFiles
    reading: ReadingOf
    width: int
    device: torch.device

    @cached_property
    def loaded(self) -> tuple[Any, Ask]:
        """Its tokenizer, and the model."""
        return _load(self)

    def key(self, memory: Path | None = None) -> str:
        """What its features depend on, as a name of a folder."""
        parts = [digest_of(self.files, memory), *vars(self.reading).values(), "float32", _VERSION]
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def load_text_model(source: str | Path, *, device: str = "auto") -> TextModel:
    """A model from a folder or the hub; needs ``pip install 'mtbkd[hf]'``.

    Weights are read from safetensors only, no code of a repository is run, and nothing is read
    into memory before features are asked for that are not in a cache.

    Args:
        source: A folder that ``save_pretrained`` or sentence-transformers wrote, an id on the hub,
            or ``id@revision``.
        device: As PyTorch names it; ``auto`` takes an accelerator if there is one.

    Raises:
        InputError: If files are missing or damaged, or say something that is not known here.
    """
    files = find_model(source, WANTED)
    widths = (files.config.get(key) for key in ("hidden_size", "d_model", "n_embd", "dim"))
    width = next((width for width in widths if isinstance(width, int)), None)
    if width is None:
        raise InputError(
            f"Expected the width of the model {files.source!r} in its config.json, but it is not "
            "there. Choose another model."
        )
    return TextModel(files, reading_of(files), width, find_device(device))


def find_encoder(name: str, device: str, recorded: dict[str, Any] | None) -> Encoder:
    """A text model for a student; see `load_text_model`."""
    del recorded  # there is nothing that could be set otherwise
    model = load_text_model(name, device=device)
    about = {
        "kind": "text model",
        "model": model.files.source,
        **vars(model.reading),
        "key": model.key(cache_root() / "digests"),
    }
    return Encoder(about, lambda texts, report: embed_texts(model, texts, cache_root(), report))


def embed_texts(
    model: TextModel, texts: Sequence[str], cache: Path | None = None, report: Report = quiet
) -> Tensor:
    """What a model makes of each text, float32, shape (text, width).

    Args:
        model: The model; it is not loaded if all features are kept.
        texts: What is beyond the model's limit is cut.
        cache: A folder where features are kept, see `mtbkd.inputs.cache`; None keeps none.
        report: Called after every batch.

    Raises:
        InputError: If the model does not fit its files, its memory is full, or features are not
            finite or cannot be kept.
    """
    features = FeaturesOf(
        name=model.files.source,
        width=model.width,
        key=model.key,
        about={"model": model.files.source, **vars(model.reading), "precision": "float32"},
        compute=lambda rows: _compute(model, texts, rows),
    )
    return through_cache(features, [key_of(text) for text in texts], cache, report)


def _compute(
    model: TextModel, texts: Sequence[str], rows: list[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Features in batches of similar length, the longest first, so that memory is full at once."""
    tokenizer, ask = model.loaded
    room = _PROCESSOR_TOKENS if model.device.type == "cpu" else _ACCELERATOR_TOKENS
    by_length = sorted(rows, key=lambda row: -len(texts[row]))
    for start in range(0, len(by_length), _TOKENISED):
        some = by_length[start : start + _TOKENISED]
        tokens = tokenizer(
            [texts[row] for row in some],
            truncation=True,
            max_length=model.reading.limit,
            return_attention_mask=False,
        )["input_ids"]
        for batch in batches([len(ids) for ids in tokens], room):
            try:
                found = _pooled(model, ask, [tokens[i] for i in batch], tokenizer.pad_token_id)
            except torch.OutOfMemoryError:
                raise InputError(
                    f"Expected room for {len(batch)} texts on {model.device} beside the model "
                    f"{model.files.source!r}, but its memory is full. Choose device: cpu."
                ) from None
            yield [some[i] for i in batch], found


def _pooled(model: TextModel, ask: Ask, tokens: list[list[int]], padding: int) -> Tensor:
    rows = [torch.tensor(ids or [padding]) for ids in tokens]
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
    sizes = torch.tensor([[len(row)] for row in rows])
    mask = (torch.arange(padded.shape[1]) < sizes).long().to(model.device)
    hidden = ask(padded.to(model.device), mask)
    if model.reading.pooling == "first":
        found = hidden[:, 0]
    else:
        # zero times a hidden state of padding that is not finite would not be zero
        hidden = hidden.masked_fill(mask[:, :, None] == 0, 0.0)
        found = hidden.sum(1) / mask.sum(1, keepdim=True)
    return (nn.functional.normalize(found) if model.reading.normalised else found).cpu()


def _load(model: TextModel) -> tuple[Any, Ask]:
    source = model.files.source
    tokenizer, network = load_frozen(model.files, _CLASSES, torch.float32)
    if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
        raise InputError(
            f"Expected the model's own tokenizer beside {source!r}, but got one of "
            f"{len(tokenizer):,} tokens, for some of which it has no embedding. Fetch the files "
            "again."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    tokenizer.padding_side = "right"
    network = network.to(model.device)

    def ask(tokens: Tensor, mask: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(input_ids=tokens, attention_mask=mask).last_hidden_state.clone()

    return tokenizer, ask
