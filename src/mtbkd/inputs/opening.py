"""Files that people hand in: found, unzipped and decoded, or refused by name."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtbkd.types import InputError

TEXT = (".csv", ".tsv", ".txt", ".fasta", ".fa", ".faa", ".fas")
"""Formats that may be gzipped."""

_PIECE = 1 << 20
_LINE_END = re.compile(rb"\r\n?|\n")


def suffix_of(path: Path, known: Sequence[str], what: str) -> str:
    """The suffix that says the format, in lower case and without ``.gz``.

    ``what`` says what is expected in the file, in the plural, for messages: "proteins".

    Raises:
        InputError: If it is none of those known.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    suffix = "".join(suffixes[-2:-1] if zipped else suffixes[-1:])
    if suffix not in known or (zipped and suffix not in TEXT):
        raise InputError(
            f"Expected {what} in a file ending in {', '.join(known)} (text also with .gz), but got "
            f"{path.name!r}. Convert it, or correct its name."
        )
    return suffix


def open_file(path: Path, what: str) -> Any:
    """The bytes of a file, unzipped if it ends in ``.gz``.

    Raises:
        InputError: If it is not there, is no regular file or may not be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
    except FileNotFoundError:
        raise InputError(
            f"Expected {what} in {path}, but it is not there. Name another file."
        ) from None
    except (OSError, ValueError) as error:
        raise unreadable(path, what, error) from None
    kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
    raise InputError(f"Expected {what} in {path}, but it is {kind}. Name a file.")


def text_of(path: Path, what: str) -> Iterator[str]:
    r"""Text of a file in pieces, with ``\n`` as line ends and without a byte-order mark.

    Raises:
        InputError: If the file cannot be read, is empty, or holds something else than text.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), True)
    lines, blank = 1, True
    with open_file(path, what) as file:
        while True:
            try:
                data = file.read(_PIECE)
                piece = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                lines += len(_LINE_END.findall(error.object[: error.start]))
                raise InputError(
                    f"Expected {what} as UTF-8 text in {path}, but line {lines} is not. Save it as "
                    "UTF-8."
                ) from None
            except Exception as error:  # of a damaged gzip file there is no common class
                raise unreadable(path, what, error) from None
            if "\0" in piece:
                raise InputError(
                    f"Expected {what} as text in {path}, but line "
                    f"{lines + piece[: piece.index(chr(0))].count(chr(10))} holds zero bytes. Save "
                    "it as text, or name another file."
                )
            lines += piece.count("\n")
            blank = blank and not piece.strip()
            if piece:
                yield piece
            if not data:
                break
    if blank:
        raise InputError(f"Expected {what} in {path}, but it is empty. Name another file.")


def unreadable(path: Path, what: str, error: BaseException) -> InputError:
    """What to tell the user whose file gave an error."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return InputError(
        f"Expected {what} in {path}, but it cannot be read ({reason or type(error).__name__}). "
        "Check the file."
    )
