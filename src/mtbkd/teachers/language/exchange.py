"""Calls to a server: tried again where it stumbles, and never more than was allowed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from threading import Event, Lock
from typing import Any

from mtbkd.errors import need
from mtbkd.teachers.base import CannotGoOn
from mtbkd.types import InputError, check_positive

_AGAIN = (408, 409, 425, 429)  # and all of 500 and above
_NEVER = (401, 402, 403, 404, 405)
_LONGEST = 60.0  # seconds between two tries
_PATIENT = 600.0
_SHOWN = 200
_OTHER_FORM = (ValueError, KeyError, TypeError, IndexError, AttributeError)
_CHANCE = random.Random()


@dataclass(frozen=True)
class Limits:
    """What one command may spend on a server; None is no limit.

    Attributes:
        calls: Calls, those that failed among them.
        tokens: Tokens read and written, as the server counts them.
        cost: In the currency of the prices.
        prices: For a million tokens read, and for a million written.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None
    prices: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Server:
    """A server that speaks as OpenAI's does.

    Attributes:
        base_url: Up to and with ``/v1``.
        key: The environment variable that holds the key; None sends none.
        concurrency: Calls at the same time.
        timeout: Seconds to wait for an answer.
        tries: Calls for one answer at most.
        pause: Seconds before the second try; each further pause is twice as long, up to a minute,
            and all are shortened by chance, by half at most.
        limits: What one command may spend.

    Raises:
        InputError: If the address holds a password, or a number is not above 0.
    """

    base_url: str
    key: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    tries: int = 6
    pause: float = 0.5
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check address and numbers."""
        check_positive(concurrency=self.concurrency, tries=self.tries, timeout=self.timeout)
        scheme, _, rest = self.base_url.partition("://")
        if scheme not in ("http", "https") or not rest:
            raise InputError(
                "Expected base_url to begin with http:// or https://, but got another one. "
                "Correct it."
            )
        if "@" in rest.split("/")[0] or "?" in rest:
            raise InputError(
                "Expected base_url without a password or a query, as it is written to disk, but "
                "got one. Put the key into an environment variable and name that as key."
            )


class Unanswered(Exception):
    """A question that has no answer; the message is the reason."""


class Exchange:
    """Calls to one server, from any number of threads, and what they have cost so far."""

    def __init__(self, name: str, server: Server) -> None:
        self._httpx = need("httpx", "llm")
        self._name, self._server = name, server
        self._key = os.environ.get(server.key, "").strip() if server.key else ""
        if server.key and not (self._key.isascii() and self._key.isprintable() and self._key):
            raise InputError(
                f"Expected the key of teacher {name!r} in the environment variable {server.key}, "
                "but it is not set, or holds signs that no key has. Set it."
            )
        self._stopped = Event()
        self._lock = Lock()
        self._calls, self._tokens, self._cost = 0, 0, 0.0

    @contextmanager
    def connected(self) -> Iterator[Callable[..., Any]]:
        """`ask`, on connections that are kept open meanwhile."""
        server = self._server
        self._stopped.clear()
        with self._httpx.Client(
            base_url=server.base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=server.timeout,
            limits=self._httpx.Limits(max_connections=server.concurrency),
        ) as client:
            yield partial(self.ask, client)

    def stop(self) -> None:
        """End all waiting for further tries."""
        self._stopped.set()

    def ask(
        self, client: Any, path: str, body: Mapping[str, Any], read: Callable[[Any], Any]
    ) -> Any:
        """The answer to a question, as ``read`` makes it of the JSON that came back.

        Raises:
            Unanswered: If none came after so many tries, or the server refuses the question.
            CannotGoOn: If the limit is reached, the server is not there or refuses the caller.
        """
        reason, lost = "", False
        for attempt in range(self._server.tries):
            self._reserve()
            wait = min(self._server.pause * 2**attempt, _LONGEST) * _CHANCE.uniform(0.5, 1.0)
            try:
                response = client.post(path, json=body)
            except self._httpx.TimeoutException:
                reason, lost = f"no answer within {self._server.timeout:g} s", False
            except self._httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
                lost = isinstance(error, self._httpx.ConnectError)
            else:
                reason, lost = self._judge(response), False
                if not reason:
                    try:
                        return self._read(response, read)
                    except CannotGoOn:
                        raise
                    except _OTHER_FORM as error:
                        reason = f"an answer of another form: {type(error).__name__}: {error}"
                wait = max(wait, self._asked_to_wait(response))
            if attempt + 1 < self._server.tries and self._stopped.wait(wait):
                raise Unanswered("stopped")
        if lost:
            self._halt(f"none could be reached ({reason}). Start it and run the same command")
        raise Unanswered(self._clean(reason))

    def _judge(self, response: Any) -> str:
        """Why an answer is none, empty if it may be one; raises where a further try is useless."""
        status = response.status_code
        if status < 300:
            return ""
        told = f"HTTP {status}: {' '.join(self._clean(response.text).split())[:_SHOWN]}"
        if status in _NEVER:
            self._halt(f"got {told}. Correct base_url, model or key, and run the same command")
        if status in _AGAIN or status >= 500:
            return told
        raise Unanswered(told)

    def _reserve(self) -> None:
        limits = self._server.limits
        with self._lock:
            for what, spent, most in (
                ("calls", self._calls, limits.calls),
                ("tokens", self._tokens, limits.tokens),
                ("cost", self._cost, limits.cost),
            ):
                if most is not None and spent >= most:
                    raise CannotGoOn(
                        f"Expected teacher {self._name!r} to spend at most {most:g} ({what}), and "
                        f"{spent:g} are spent. All answers are kept: run the same command to go "
                        "on, or raise the limit."
                    )
            self._calls += 1

    def _read(self, response: Any, read: Callable[[Any], Any]) -> Any:
        said, limits = json.loads(self._clean(response.text)), self._server.limits
        usage = said.get("usage") or {}
        if not usage and (limits.tokens is not None or limits.cost is not None):
            self._halt("it does not count tokens. Limit calls, not tokens or cost")
        heard, written = (int(usage.get(f"{k}_tokens") or 0) for k in ("prompt", "completion"))
        with self._lock:
            self._tokens += heard + written
            self._cost += (heard * limits.prices[0] + written * limits.prices[1]) / 1e6
        return read(said)

    def _asked_to_wait(self, response: Any) -> float:
        """Seconds that the server asks to wait, as a number or a date; 0 if it does not."""
        told = response.headers.get("retry-after", "")
        try:
            seconds = float(told)
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError):
                return 0.0
        if seconds > _PATIENT:
            self._halt(f"it asks to wait for {seconds:,.0f} s. Run the same command then")
        return max(seconds, 0.0)

    def _halt(self, told: str) -> None:
        raise CannotGoOn(
            f"Expected a server for teacher {self._name!r} at {self._server.base_url}, but {told}."
        )

    def _clean(self, text: str) -> str:
        """Without the key, which servers may repeat."""
        return text.replace(self._key, "…") if self._key else text
