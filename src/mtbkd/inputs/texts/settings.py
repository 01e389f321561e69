"""What a text model's folder says of how it is read: the longest text, and what pools it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from mtbkd.inputs.models import ModelFiles, Wanted
from mtbkd.types import InputError

LIMIT = 512
"""Tokens of a text that a model is shown at most, also where it could read more."""

_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_MODULES, _POOLING = "modules.json", "1_Pooling/config.json"
_LENGTHS = {
    "tokenizer_config.json": "model_max_length",
    "sentence_bert_config.json": "max_seq_length",
}
WANTED = Wanted(
    what="a text model",
    example="sentence-transformers/all-MiniLM-L6-v2",
    extra="hf",
    beside=(
        *_VOCABULARIES,
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        *_LENGTHS,
        _MODULES,
        _POOLING,
    ),
    needed={"": _VOCABULARIES},
    needed_as="tokenizer",
)
_POOLS: dict[str, Literal["mean", "first"]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
}
_OFFSET = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")


@dataclass(frozen=True)
class ReadingOf:
    """How a model reads texts.

    Attributes:
        limit: Tokens that it is shown at most, special ones included; longer texts are cut.
        pooling: A text is the ``mean`` of the last hidden states of its tokens, or that of its
            ``first`` token.
        normalised: Whether features are brought to length 1.
    """

    limit: int
    pooling: Literal["mean", "first"] = "mean"
    normalised: bool = False


def reading_of(files: ModelFiles) -> ReadingOf:
    """As its folder says, if it is one of sentence-transformers; else the mean over all tokens.

    Raises:
        InputError: If it says something that is not known here.
    """
    lengths = [_json(files, name).get(key) for name, key in _LENGTHS.items()]
    lengths.append(_positions(files.config))
    limit = min([LIMIT, *(n for n in lengths if isinstance(n, int) and n > 0)])
    if not (files.folder / _MODULES).is_file():
        return ReadingOf(limit)
    modules = _json(files, _MODULES)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    strange = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    says = _json(files, _POOLING)
    pools = [key for key, yes in says.items() if key.startswith("pooling_mode_") and yes is True]
    if strange or len(pools) != 1 or pools[0] not in _POOLS:
        raise InputError(
            f"Expected the model {files.source!r} to pool by the mean or the first token, but its "
            f"{_MODULES} and {_POOLING} say {', '.join([*strange, *pools]) or 'nothing of it'}. "
            "Choose another model."
        )
    return ReadingOf(limit, _POOLS[pools[0]], "Normalize" in kinds)


def _positions(config: dict[str, Any]) -> int | None:
    """Tokens that a model has positions for; some kinds count them from behind padding's."""
    given = config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(given, int) and config["model_type"] in _OFFSET:
        return given - 1 - int(config.get("pad_token_id", 1))
    return given


def _json(files: ModelFiles, name: str) -> Any:
    path = files.folder / name
    if not path.is_file():
        return {}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, list if name == _MODULES else dict):
            raise ValueError(f"{type(held).__name__}")
        return held
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected JSON in {name} of the model {files.source!r}, but got: {error}. Fetch the "
            "file again."
        ) from None
