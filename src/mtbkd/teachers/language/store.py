"""Answers of servers, kept by content so that no question is asked twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from mtbkd.files import append_bytes
from mtbkd.teachers.labelling.shards import from_line, to_line

_FILE = "answers.jsonl"


def key_of(path: str, body: Mapping[str, Any]) -> str:
    """What an answer is found by: a hash of all that was asked, nothing of who asks."""
    return hashlib.sha256(json.dumps([path, body], sort_keys=True).encode()).hexdigest()


class Store:
    """Answers in a folder, one on each line of a file, with its checksum.

    A line that a kill tore is left out, and the next one begins a line of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._lock = Lock()

    @cached_property
    def _known(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        lines = self._path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            append_bytes(self._path, b"\n")
        found = filter(None, map(from_line, lines))
        return {record["key"]: record["answer"] for record in found if "key" in record}

    def get(self, key: str) -> Any:
        """The answer, or None if there is none."""
        with self._lock:
            return self._known.get(key)

    def put(self, key: str, answer: Any) -> None:
        """Keep an answer; it is on disk when this returns.

        Raises:
            InputError: If the disk is full, or the folder cannot be written.
        """
        with self._lock:
            self._known[key] = answer
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_bytes(self._path, to_line({"key": key, "answer": answer}))
