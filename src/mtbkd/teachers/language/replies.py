"""What a server's answer says of the classes: probabilities of tokens, or the class in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtbkd.types import Floats

_TRIMMED = " \t\"'`*.,:;!()[]"
_FEWEST = 3  # letters of a token that begins a text without ending it


class Token(NamedTuple):
    """A token that may come next, and the logarithm of its probability in nats."""

    text: str
    log_prob: float


def next_tokens(said: Any) -> list[list[Any]]:
    """The most probable next tokens and their log-probabilities, from an answer's JSON.

    Chats and llama.cpp name them in ``logprobs.content``, completions of others in
    ``logprobs.top_logprobs``.

    Raises:
        ValueError, KeyError, TypeError, IndexError: If it has another form, or there are none.
    """
    told = said["choices"][0]["logprobs"]
    if told.get("content"):
        found = [[_text(one), float(one["logprob"])] for one in told["content"][0]["top_logprobs"]]
    else:
        found = [[text, float(value)] for text, value in told["top_logprobs"][0].items()]
    if not found or not all(math.isfinite(value) for _, value in found):
        raise ValueError("no log-probabilities")
    return found


def echoed(said: Any, start: int, end: int) -> float:
    """The log-probability of the part of a prompt that an answer repeats, in nats.

    Raises:
        ValueError, KeyError, TypeError, IndexError: If it has another form, or a token lies across
            the start.
    """
    told = said["choices"][0]["logprobs"]
    pairs = zip(told["text_offset"], told["token_logprobs"], strict=True)
    chosen = [(at, value) for at, value in pairs if start <= at < end]
    if not chosen or chosen[0][0] != start:
        raise ValueError("a token lies across the end of the prompt")
    total = math.fsum(float(value) for _, value in chosen)
    if not math.isfinite(total):
        raise ValueError("no log-probabilities")
    return total


def answer_of(said: Any) -> str:
    """The text of an answer, of a chat or a completion.

    Raises:
        ValueError, KeyError, TypeError, IndexError: If there is none.
    """
    choice = said["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    if not isinstance(text, str):
        raise ValueError("no text")
    return text


def scores_of(tokens: Sequence[Sequence[Any]], texts: Sequence[Sequence[str]]) -> Floats | None:
    """Log-probability of each class from the most probable next tokens, in nats, shape (class,).

    A text counts with the longest token that begins it, which must end it or have three letters. A
    class with none is at most as probable as the least probable token that is told, and than what
    all of them leave, and counts as that. None if no token begins a text, or one begins texts of
    two classes.
    """
    told = [Token(*token) for token in tokens]
    probs = np.exp([token.log_prob for token in told])
    rest = max(min(float(probs.min()), 1 - float(probs.sum())), 1e-7)
    scores, taken = np.zeros(len(texts)), {}
    for number, ways in enumerate(texts):
        begun = {token for text in ways if (token := _longest(told, text))}
        if any(taken.setdefault(token, number) != number for token in begun):
            return None
        scores[number] = sum(math.exp(token.log_prob) for token in begun) or rest
    return np.log(scores) if taken else None


def class_of(answer: str, texts: Sequence[Sequence[str]]) -> int | None:
    """Which class the first line of an answer names, signs and capitals aside; None if none."""
    lines = answer.strip().splitlines()
    said = lines[0].strip(_TRIMMED).casefold() if lines else ""
    known = {text.strip(_TRIMMED).casefold(): k for k, ways in enumerate(texts) for text in ways}
    return known.get(said)


def _longest(tokens: Sequence[Token], text: str) -> Token | None:
    fits = [
        token
        for token in tokens
        if text.startswith(token.text)
        and (token.text == text or len(token.text.strip()) >= _FEWEST)
    ]
    return max(fits, key=lambda token: len(token.text), default=None)


def _text(token: Mapping[str, Any]) -> str:
    """A token's text, from its bytes where they are told: signs may be cut in two."""
    raw = token.get("bytes")
    return bytes(raw).decode(errors="replace") if raw else token["token"]
