"""One file from the web: fetched by pooch, again if need be, checked, then renamed."""

from __future__ import annotations

import http
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mtbkd.types import InputError, Report

_BLOCK = 1 << 16
_BUSY = (408, 429)


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        timeout: Seconds to wait for a connection, and for each next byte.
        attempts: How often one file is tried.
        wait: Seconds before the second attempt; twice as many before each next.
    """

    timeout: float = 30.0
    attempts: int = 4
    wait: float = 1.0


@dataclass
class _Bar:
    """A progress bar as pooch calls it."""

    name: str
    report: Report
    total: int = 0
    done: int = 0

    def update(self, n: int) -> None:
        """So many bytes more."""
        self.done = min(self.done + n, self.total)
        if self.total:
            self.report(self.name, self.done // 1000, self.total // 1000)

    def reset(self) -> None:
        """Before pooch says that all is there."""
        self.done = 0

    def close(self) -> None:
        """Nothing is held."""


def fetch(
    url: str,
    path: Path,
    sha256: str | None,
    patience: Patience | None = None,
    report: Report | None = None,
) -> None:
    """Download a file unless it is there already, with this hash.

    Without a hash any file that is there will do. How far it is, is reported where the server says
    how long the file is.

    Raises:
        InputError: If it cannot be fetched or written, or has another hash; nothing of it is left
            behind.
    """
    import requests

    patience, reason = patience or Patience(), ""
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.wait * 2 ** (attempt - 1))
        try:
            _attempt(url, path, sha256, patience.timeout, report)
            return
        except requests.HTTPError as error:
            code = 0 if error.response is None else error.response.status_code
            if code not in _BUSY and code < 500:
                raise InputError(
                    f"Expected {url}, but the server answered {_status(code)}. The file may have "
                    "moved: see docs/data.md for where it comes from."
                ) from None
            reason = f"the answer {_status(code)}"
        except requests.RequestException as error:
            reason = _reason(error, patience.timeout)
        except OSError as error:
            raise InputError(
                f"Expected to write {path}, but got: {error.strerror or 'no leave'}. Choose "
                "another place with --to."
            ) from None
        except ValueError as error:
            found = re.findall(r"[0-9a-f]{64}", str(error))
            if not found:
                raise
            raise InputError(
                f"Expected {path.name} from {url} with the sha256 {sha256}, but got {found[-1]}; "
                "it was removed. Try again; if this stays, the file was changed at its source."
            ) from None
    raise InputError(
        f"Expected to download {path.name.lstrip('.')} from {urlsplit(url).netloc}, but got "
        f"{reason} in the last of {patience.attempts} attempts. Check the network, then give "
        "the same command again."
    )


def _attempt(
    url: str, path: Path, sha256: str | None, timeout: float, report: Report | None
) -> None:
    import pooch  # slow to import, as requests is

    path.parent.mkdir(parents=True, exist_ok=True)
    bar: Any = False if report is None else _Bar(path.name, report)
    # as the bytes are, so that lengths are those of the file
    plain = {"Accept-Encoding": "identity"}
    downloader: Any = pooch.HTTPDownloader(
        bar, chunk_size=_BLOCK, timeout=timeout, headers=plain, allow_redirects=True
    )
    with _quiet(pooch.get_logger()):
        known = None if sha256 is None else f"sha256:{sha256}"
        pooch.retrieve(url, known, path.name, path.parent, downloader=downloader)


def _reason(error: Exception, timeout: float) -> str:
    """An error of the connection, in words."""
    import requests

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


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Without what pooch logs of each file."""
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
