"""Requests that wait are answered together: one run of the graph for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_TIMED, _UNNOTICED = 5, 0.002  # runs, seconds

Found = dict[str, NDArray[Any]]
"""Outputs of the graph by name, each (example, ...)."""


@dataclass(frozen=True)
class Waiting:
    """A request that waits: what the graph reads, and who is to be told."""

    values: NDArray[Any]
    told: asyncio.Future[Found]


@dataclass(frozen=True)
class Batcher:
    """Runs the graph for all requests that came in the meantime.

    In a thread of its own, unless that takes less than handing it over may. Nothing waits for
    others to come: the batch is what queued while the last one ran.

    Attributes:
        session: That of onnxruntime.
        names: Outputs that are asked for.
        most_rows: Rows of a batch; one request of more goes alone.
        seen: Told the number of rows of each batch.
        most_at_once: Rows of a batch up to which no thread is asked.
    """

    session: onnxruntime.InferenceSession
    names: list[str]
    most_rows: int
    seen: Any
    most_at_once: int = 0
    _queue: deque[Waiting] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    async def ask(self, values: NDArray[Any]) -> Found:
        """All that the graph says of these examples, shape (example, ...)."""
        one = Waiting(values, asyncio.get_running_loop().create_future())
        self._queue.append(one)
        self._wake.set()
        return await one.told

    def run(self, values: NDArray[Any]) -> Found:
        """The same at once, in this thread."""
        outputs: Any = self.session.run(self.names, {"inputs": values})
        return dict(zip(self.names, outputs, strict=True))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While this lasts, requests are answered."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch = self._next()
            if not batch:
                self._wake.clear()
                continue
            values = np.concatenate([one.values for one in batch])
            self.seen(len(values))
            try:
                if len(values) <= self.most_at_once:
                    found = self.run(values)
                else:
                    found = await loop.run_in_executor(self._thread, self.run, values)
            except Exception as error:
                for one in batch:
                    _tell(one, error)
                continue
            start = 0
            for one in batch:
                stop = start + len(one.values)
                _tell(one, {name: value[start:stop] for name, value in found.items()})
                start = stop

    def _next(self) -> list[Waiting]:
        """Those that come next and fit into one batch; who gave up is left out."""
        batch: list[Waiting] = []
        rows = 0
        while self._queue and (not batch or rows + len(self._queue[0].values) <= self.most_rows):
            one = self._queue.popleft()
            if not one.told.done():
                batch.append(one)
                rows += len(one.values)
        return batch


def rows_at_once(session: onnxruntime.InferenceSession, example: NDArray[Any]) -> int:
    """How many examples the graph answers before others would notice that they wait.

    Args:
        session: That of onnxruntime, which is warm afterwards.
        example: One of them, shape (1, ...).
    """
    spent = []
    for _ in range(_TIMED):
        begun = perf_counter()
        session.run(None, {"inputs": example})
        spent.append(perf_counter() - begun)
    return int(_UNNOTICED / min(spent))


def _tell(one: Waiting, found: Found | Exception) -> None:
    if one.told.done():  # who asked has gone
        return
    if isinstance(found, Exception):
        one.told.set_exception(found)
    else:
        one.told.set_result(found)
