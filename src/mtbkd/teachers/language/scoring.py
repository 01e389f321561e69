"""How probable a causal language model finds each of several continuations of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

Tokens = Sequence[int]


class Item(NamedTuple):
    """Continuations of one prompt.

    Attributes:
        stem: Tokens that all of them begin with, one or more.
        tails: What is different, one or more tokens each.
    """

    stem: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Scorer:
    """A causal model that scores continuations.

    Attributes:
        model: One of transformers, in evaluation mode.
        max_tokens: Most tokens of a batch.
        shares_prefix: Whether what all prompts begin with is computed once.
    """

    model: Any
    max_tokens: int = 2048
    shares_prefix: bool = True

    @torch.inference_mode()
    def scores(self, texts: Sequence[Sequence[Tokens]]) -> list[Tensor]:
        """Log-probability of the part that is different, in nats, shape (text,) for each prompt.

        What the texts of a prompt have in common counts the same for all of them, so it is left
        out. Prompts of about the same length go through the model together: what all prompts begin
        with has been through it once, and is remembered (its keys and values); the rest of each
        follows, and behind it all continuations side by side, none of which sees another.

        Args:
            texts: For each prompt the tokens of prompt and continuation, of which none begins
                another.
        """
        items = [_parted(one) for one in texts]
        n = _common(item.stem for item in items) if self.shares_prefix else 0
        n = min(n, *(len(item.stem) - 1 for item in items))
        prefix = items[0].stem[:n]
        past = self._remember(prefix) if n else None
        found: list[Tensor] = [torch.empty(0)] * len(items)
        for rows in self._batches(items, n):
            some = [Item(items[row].stem[n:], items[row].tails) for row in rows]
            for row, scores in zip(rows, self._batch(some, past, n), strict=True):
                found[row] = scores
        return found

    @property
    def _cache_name(self) -> str:
        """What transformers calls what is remembered, which differs between its versions."""
        return "cache" if "cache" in signature(self.model.forward).parameters else "past_key_values"

    def _remember(self, prefix: Tokens) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache()  # without a configuration, so that no layer forgets what is far away
        where = self.model.device
        self.model(
            input_ids=torch.tensor([prefix], device=where),
            attention_mask=self._masks(
                torch.ones(len(prefix), len(prefix), dtype=torch.bool).tril()[None],
                torch.arange(len(prefix))[None],
                torch.arange(len(prefix))[None],
            ),
            position_ids=torch.arange(len(prefix), device=where)[None],
            **{self._cache_name: cache},
            use_cache=True,
            logits_to_keep=1,
        )
        return cache

    def _batches(self, items: Sequence[Item], n: int) -> Iterator[list[int]]:
        """Rows of about the same length, so many that their tokens are at most `max_tokens`."""
        sizes = [len(i.stem) - n + sum(len(t) - 1 for t in i.tails) for i in items]
        order = sorted(range(len(items)), key=lambda row: -sizes[row])
        while order:
            most = max(1, self.max_tokens // sizes[order[0]])
            yield order[:most]
            order = order[most:]

    def _batch(self, items: Sequence[Item], past: Any, n: int) -> Iterator[Tensor]:
        """Scores of some prompts, whose rests end in the same place: padding is to the left."""
        width = max(len(item.stem) for item in items)
        inner = max(sum(len(tail) - 1 for tail in item.tails) for item in items)
        ids = torch.zeros(len(items), width + inner, dtype=torch.long)
        places = torch.zeros_like(ids)
        seen = torch.zeros(len(items), width + inner, n + width + inner, dtype=torch.bool)
        seen[:, torch.arange(width + inner), n + torch.arange(width + inner)] = True
        for row, item in enumerate(items):
            start = width - len(item.stem)
            ids[row, start:width] = torch.tensor(item.stem)
            places[row, start:width] = torch.arange(n, n + len(item.stem))
            seen[row, start:, :n] = True
            causal = torch.ones(len(item.stem), len(item.stem), dtype=torch.bool).tril()
            seen[row, start:width, n + start : n + width] = causal
            at = width
            for tail in item.tails:
                end = at + len(tail) - 1
                ids[row, at:end] = torch.tensor(tail[:-1])
                places[row, at:end] = n + len(item.stem) + torch.arange(end - at)
                seen[row, at:end, n + start : n + width] = True
                own = torch.ones(end - at, end - at, dtype=torch.bool).tril()
                seen[row, at:end, n + at : n + end] = own
                at = end
        keys = torch.cat([torch.arange(n).expand(len(items), n), places], 1)
        where = self.model.device
        logits = self.model(
            input_ids=ids.to(where),
            attention_mask=self._masks(seen, places, keys),
            position_ids=places.to(where),
            **{self._cache_name: None if past is None else _widened(past, len(items))},
            use_cache=past is not None,
            logits_to_keep=inner + 1,
        ).logits
        logs = logits.float().log_softmax(-1).cpu()
        for row, item in enumerate(items):
            scores, at = [], 1
            for tail in item.tails:
                end = at + len(tail) - 1
                steps = torch.cat([logs[row, :1], logs[row, at:end]])
                scores.append(steps[torch.arange(len(tail)), list(tail)].double().sum())
                at = end
            yield torch.stack(scores)

    def _masks(self, seen: Tensor, places: Tensor, keys: Tensor) -> Any:
        """What each token sees, added to its scores: by kind of layer where there are several.

        Args:
            seen: Shape (row, token, key).
            places: Positions of the tokens, shape (row, token).
            keys: Positions of what is seen, shape (row, key).
        """
        config = self.model.config
        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ())
        full = _added(seen, self.model)
        if window is None or not (kinds or getattr(config, "use_sliding_window", True)):
            return full
        near = _added(seen & (places[:, :, None] - keys[:, None] < window), self.model)
        if len(kinds) > 1:
            return {"full_attention": full, "sliding_attention": near}
        return near if kinds != {"full_attention"} else full


def plain_scores(model: Any, texts: Sequence[Tokens], start: int) -> Tensor:
    """Log-probability of all tokens from a position on, one text after the other, shape (text,)."""
    found = []
    for text in texts:
        ids = torch.tensor([list(text)], device=model.device)
        with torch.inference_mode():
            logs = model(input_ids=ids).logits[0].float().log_softmax(-1)
        steps = logs[torch.arange(start - 1, len(text) - 1), ids[0, start:]]
        found.append(steps.double().sum().cpu())
    return torch.stack(found)


def _added(seen: Tensor, model: Any) -> Tensor:
    mask = torch.zeros(seen.shape, dtype=model.dtype)
    return mask.masked_fill(~seen, torch.finfo(model.dtype).min)[:, None].to(model.device)


def _widened(past: Any, rows: int) -> Any:
    """A copy of what is remembered for so many rows, without the memory of so many."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, part in enumerate(past.layers):
        keys, values = (t.expand(rows, -1, -1, -1) for t in (part.keys, part.values))
        cache.update(keys, values, layer)
    return cache


def _common(several: Iterator[Tokens] | Sequence[Tokens]) -> int:
    """How many tokens all begin with."""
    first, *others = several
    n = len(first)
    for other in others:
        n = min(n, len(other))
        n = next((i for i in range(n) if first[i] != other[i]), n)
    return n


def _parted(texts: Sequence[Tokens]) -> Item:
    n = min(_common(texts), *(len(text) - 1 for text in texts))
    if n < 1:
        raise ValueError("texts of one prompt begin with different tokens")
    return Item(tuple(texts[0][:n]), tuple(tuple(text[n:]) for text in texts))
