"""Teachers behind a server that speaks as OpenAI's does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mtbkd.inputs.cache import cache_root
from mtbkd.outputs.aligned import Kind
from mtbkd.teachers.base import Answered, Teacher, from_callable
from mtbkd.teachers.language.exchange import Exchange, Server, Unanswered
from mtbkd.teachers.language.prompt import Prompt, Row, Turn, as_messages, as_text
from mtbkd.teachers.language.replies import answer_of, class_of, echoed, next_tokens, scores_of
from mtbkd.teachers.language.store import Store, key_of
from mtbkd.types import Floats, InputError, check_positive

_CHAT, _PLAIN = "chat/completions", "completions"


@dataclass(frozen=True)
class Asked:
    """How a server's model is asked.

    Attributes:
        chat: As a chat; else by completions of plain text.
        votes: So many answers are sampled, whose counts are evidence; None reads probabilities.
        echo: Probabilities are those of whole texts, which the server repeats with
            log-probabilities (vLLM does); one call for each text. Else they are those of the next
            token.
        top: How many next tokens the server is asked for.

    Raises:
        InputError: If these do not go together.
    """

    chat: bool = True
    votes: int | None = None
    echo: bool = False
    top: int = 20

    def __post_init__(self) -> None:
        """Check what goes together."""
        check_positive(top=self.top, votes=1 if self.votes is None else self.votes)
        if self.echo and (self.chat or self.votes is not None):
            raise InputError(
                "Expected echo with completions and without votes, but got it with "
                f"{'a chat' if self.chat else 'votes'}. Set chat to false, or leave one out."
            )


def from_server(
    name: str,
    model: str,
    prompt: Prompt,
    server: Server,
    *,
    asked: Asked = Asked(),
    store: Path | None = None,
    **declared: Any,
) -> Teacher:
    """A teacher behind any OpenAI-compatible server; needs ``pip install 'mtbkd[llm]'``.

    It takes rows, mappings from column to cell. Each answer is kept on disk as it comes, found by
    all that was asked and where, so nothing is asked again. Where there is no answer, or one that
    is no class, the row is left without, and the reason is told.

    Args:
        name: What the teacher is called.
        model: As the server calls it.
        prompt: What is asked about a row.
        server: Where, how patiently, and for how much.
        asked: Whether probabilities or sampled answers are read, and how.
        store: Folder for answers; that of the user's cache if not given.
        **declared: The other attributes of `Teacher`.

    Raises:
        InputError: If the key is not in the environment.
    """
    exchange = Exchange(name, server)
    place = hashlib.sha256(f"{server.base_url}\n{model}".encode()).hexdigest()[:16]
    kept = Store((store or cache_root() / "answers") / place)
    make = _votes if asked.votes else _whole_texts if asked.echo else _next_token

    def predict(rows: Sequence[Row]) -> Answered:
        questions = [question for row in rows for question in prompt.questions(row)]
        requests = [list(make(prompt, model, asked, question)) for question in questions]
        keys = [[key_of(*one[:2]) for one in several] for several in requests]
        wanted = dict(zip(chain(*keys), chain(*requests), strict=True))
        answers = _answers(kept, exchange, server.concurrency, wanted)
        found = [
            _score(prompt, asked, question, [answers[key] for key in several])
            for question, several in zip(questions, keys, strict=True)
        ]
        return _by_row(prompt, asked, np.array([s for s, _ in found]), [r for _, r in found])

    identity = json.dumps([server.base_url, model, prompt.fingerprint, vars(asked)])
    declared.setdefault("fingerprint", hashlib.sha256(identity.encode()).hexdigest())
    declared["family"] = "classification" if prompt.exclusive else "multilabel"
    kind: Kind = "logits"
    if asked.votes:
        kind = "counts" if prompt.exclusive else "probs"
    return from_callable(name, predict, kind=kind, classes=prompt.classes, **declared)


Request = tuple[str, dict[str, Any], Callable[[Any], Any]]
"""Where a question goes, what it is, and what is read of the answer."""


def _next_token(
    prompt: Prompt, model: str, asked: Asked, question: tuple[Turn, ...]
) -> Iterator[Request]:
    how: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
    if asked.chat:
        how |= {"messages": as_messages(question, prompt.system)}
        yield _CHAT, how | {"logprobs": True, "top_logprobs": asked.top}, next_tokens
    else:
        text, _ = as_text(question, prompt.system)
        yield _PLAIN, how | {"prompt": text, "logprobs": asked.top}, next_tokens


def _whole_texts(
    prompt: Prompt, model: str, asked: Asked, question: tuple[Turn, ...]
) -> Iterator[Request]:
    text, gap = as_text(question, prompt.system)
    how = {"model": model, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    for said in (one for ways in prompt.answers for one in ways):
        whole = f"{text}{gap}{said}"
        bounds = len(text), len(whole)
        yield _PLAIN, how | {"prompt": whole}, lambda told, bounds=bounds: echoed(told, *bounds)


def _votes(
    prompt: Prompt, model: str, asked: Asked, question: tuple[Turn, ...]
) -> Iterator[Request]:
    longest = max(len(text) for ways in prompt.answers for text in ways)
    how: dict[str, Any] = {"model": model, "max_tokens": 8 + longest // 2, "temperature": 1}
    if asked.chat:
        path, how = _CHAT, how | {"messages": as_messages(question, prompt.system)}
    else:
        path, how = _PLAIN, how | {"prompt": as_text(question, prompt.system)[0], "stop": ["\n\n"]}
    for seed in range(asked.votes or 0):
        yield path, how | {"seed": seed}, answer_of


def _answers(
    kept: Store, exchange: Exchange, workers: int, wanted: Mapping[str, Request]
) -> dict[str, Any]:
    """Answers by key, kept ones and those of the server; why there is none is an exception."""

    def answer(ask: Callable[..., Any], key: str) -> Any:
        known = kept.get(key)
        if known is not None:
            return known
        try:
            found = ask(*wanted[key])
        except Unanswered as reason:
            return reason
        kept.put(key, found)
        return found

    pool = ThreadPoolExecutor(workers)
    with exchange.connected() as ask:
        try:
            return dict(zip(wanted, pool.map(partial(answer, ask), wanted), strict=True))
        finally:  # what is under way is paid for, and kept
            exchange.stop()
            pool.shutdown(cancel_futures=True)


def _score(
    prompt: Prompt, asked: Asked, question: Sequence[Turn], answers: list[Any]
) -> tuple[Floats, str]:
    """Scores or votes of the alternatives, and the reason if there are none."""
    texts = prompt.answers
    nothing = np.zeros(len(texts))
    lacking = [one for one in answers if isinstance(one, Unanswered)]
    if asked.votes:
        said = [one for one in answers if not isinstance(one, Unanswered)]
        votes = [k for one in said if (k := class_of(one, texts)) is not None]
        if votes:
            return np.bincount(votes, minlength=len(texts)).astype(float), ""
        if said:
            return nothing, f"no label in {len(said)} answers, such as {said[0][:40]!r}"
    if lacking:
        return nothing, str(lacking[0])
    if asked.echo:
        logs = iter(answers)
        by_class = [np.logaddexp.reduce([next(logs) for _ in ways]) for ways in texts]
        return np.array(by_class), ""
    gap = "" if asked.chat else as_text(question)[1]
    scores = scores_of(answers[0], [[gap + text for text in ways] for ways in texts])
    if scores is None:
        said = max(answers[0], key=lambda token: token[1])[0]
        return nothing, f"no label can be told among the next tokens, such as {said!r}"
    return scores, ""


def _by_row(prompt: Prompt, asked: Asked, scores: Floats, reasons: list[str]) -> Answered:
    """What each row's questions come to."""
    if prompt.exclusive:
        told = {row: reason for row, reason in enumerate(reasons) if reason}
        return Answered(scores, told)
    n = len(prompt.classes)
    no, yes = scores.reshape(-1, n, 2).transpose(2, 0, 1)
    told = {}
    for place, reason in enumerate(reasons):
        if reason:
            told.setdefault(place // n, f"{prompt.classes[place % n]}: {reason}")
    # Jeffreys' prior, so that few votes leave some doubt
    return Answered((yes + 0.5) / (no + yes + 1) if asked.votes else yes - no, told)
