"""One file from the web: continued where it stopped, checked, then renamed."""

from __future__ import annotations

import http
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests

from mtbkd.types import InputError, Report

_BLOCK = 1 << 16
_BUSY = (408, 429)


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        timeout: Seconds to wait for a connection, and for each next byte.
        attempts: Of one file.
        wait: Seconds before the second attempt; twice as many before each next.
    """

    timeout: float = 30.0
    attempts: int = 4
    wait: float = 1.0


class _TryAgainError(Exception):
    """An attempt failed in a way that may pass; says how, in words."""


def fetch(
    url: str,
    path: Path,
    sha256: str | None,
    patience: Patience | None = None,
    report: Report | None = None,
) -> None:
    """Download a file unless it is there already, with this hash.

    What arrives is kept in ``.NAME.partial`` beside it until it is whole, so that an attempt, or
    a later call, goes on where the last one stopped, if the server can and its file is the same.

    Args:
        url: Of the file.
        path: Its final name.
        sha256: What it must hold; any file that is there will do if not given.
        patience: How long to try.
        report: Told how far it is, where the server says how long the file is.

    Raises:
        InputError: If it cannot be fetched or written, or has another hash; nothing of the latter
            is left behind.
    """
    known = None if sha256 is None else f"sha256:{sha256}"
    download: Any = partial(
        _download, path=path, sha256=sha256, patience=patience or Patience(), report=report
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            pooch.retrieve(url, known, path.name, path.parent, downloader=download)
    except OSError as error:
        raise InputError(
            f"Expected to write {path}, but got: {error.strerror or 'no leave'}. Choose another "
            "place with --to."
        ) from None


def _download(
    url: str,
    output: str,
    _: Any,
    *,
    path: Path,
    sha256: str | None,
    patience: Patience,
    report: Report | None,
) -> None:
    """As pooch calls it: put the file at ``output``, which pooch renames."""
    held = path.with_name(f".{path.name}.partial")
    told = _teller(path.name, report)
    reason = ""
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.wait * 2 ** (attempt - 1))
        try:
            _attempt(url, held, patience.timeout, told)
            break
        except _TryAgainError as error:
            reason = str(error)
        except requests.RequestException as error:
            reason = _reason(error, patience.timeout)
    else:
        raise InputError(
            f"Expected to download {path.name.lstrip('.')} from {urlsplit(url).netloc}, but got "
            f"{reason} in the last of {patience.attempts} attempts. Check the network, then give "
            "the same command again: it goes on where it stopped."
        )
    _mark(held).unlink(missing_ok=True)
    found = pooch.file_hash(str(held), "sha256")
    if sha256 is not None and found != sha256:
        held.unlink()
        raise InputError(
            f"Expected {path.name} from {url} with the sha256 {sha256}, but got {found}; it was "
            "removed. Try again; if this stays, the file was changed at its source."
        )
    os.replace(held, output)


def _attempt(url: str, held: Path, timeout: float, told: Callable[[int, int], None]) -> None:
    """Fetch what is missing of a file that is partly held.

    Raises:
        _TryAgainError: If the connection ended early, or the server is busy or cannot go on.
        InputError: If the server refuses.
    """
    mark = _mark(held)
    same = mark.read_text("utf-8") if mark.exists() and held.exists() else ""
    start = held.stat().st_size if same else 0
    # as the bytes are, so that lengths and ranges are those of the file
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": same}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        code = answer.status_code
        continued = code == 206 and _continues(answer, start, same)
        if code == 416 or (code == 206 and not continued):
            held.unlink(missing_ok=True)
            raise _TryAgainError("another part of the file than asked for")
        if code in _BUSY or code >= 500:
            raise _TryAgainError(f"the answer {_status(code)}")
        if code not in (200, 206):
            raise InputError(
                f"Expected {url}, but the server answered {_status(code)}. The file may have "
                "moved: see docs/data.md for where it comes from."
            )
        if not continued:
            start = 0
            held.unlink(missing_ok=True)
            mark.write_text(_validator(answer), "utf-8")
        total = _total(answer, start)
        # so that what came before a connection ended is kept; lengths are compared below
        answer.raw.enforce_content_length = False
        with held.open("ab" if continued else "wb") as file:
            for block in answer.iter_content(_BLOCK):
                file.write(block)
                start += len(block)
                told(start, total or 0)
    if total is not None and start != total:
        raise _TryAgainError(f"{start:,} of its {total:,} bytes")


def _continues(answer: requests.Response, start: int, same: str) -> bool:
    """Whether a partial answer starts where it should, in the file whose start is held."""
    place = answer.headers.get("Content-Range", "")
    return place.startswith(f"bytes {start}-") and _validator(answer) in ("", same)


def _validator(answer: requests.Response) -> str:
    """What tells this version of the file from others; empty if it cannot be continued."""
    if "Content-Encoding" in answer.headers:
        return ""
    tag = answer.headers.get("ETag", "")
    strong = tag and not tag.startswith("W/")
    return tag if strong else answer.headers.get("Last-Modified", "")


def _total(answer: requests.Response, start: int) -> int | None:
    """Length of the whole file, where the server says so."""
    length = answer.headers.get("Content-Length", "")
    known = length.isdigit() and "Content-Encoding" not in answer.headers
    return start + int(length) if known else None


def _mark(held: Path) -> Path:
    """Where the validator of a partly held file is kept."""
    return held.with_suffix(".version")


def _reason(error: requests.RequestException, timeout: float) -> str:
    """An error of the connection, in words."""
    # one that stops in the middle of a file is not a Timeout for requests
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"nothing for {timeout:g} s"
    for kind, words in (
        (requests.exceptions.ChunkedEncodingError, "a connection that ended early"),
        (requests.exceptions.SSLError, "no certificate to trust"),
        (requests.exceptions.ProxyError, "no way through the proxy"),
        (requests.ConnectionError, "no connection"),
    ):
        if isinstance(error, kind):
            return words
    return f"a faulty answer ({type(error).__name__})"


def _status(code: int) -> str:
    known = code in set(http.HTTPStatus)
    return f"{code} {http.HTTPStatus(code).phrase}" if known else str(code)


def _teller(name: str, report: Report | None) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if report is not None and total:
            report(name, done // 1000, total // 1000)

    return told


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what pooch logs of each file."""
    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
