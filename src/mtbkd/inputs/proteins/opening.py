"""Files of proteins: which format, and their text."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from mtbkd.types import InputError

FASTA = (".fasta", ".fa", ".faa", ".fas")
TABLES = (".csv", ".tsv")


def kind_of(path: Path) -> str:
    """The suffix that says the format, without .gz.

    Raises:
        InputError: If it is none of those known.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    kind = (suffixes[:-1] if zipped else suffixes)[-1:]
    known = FASTA + TABLES if zipped else (*FASTA, *TABLES, ".parquet")
    if not kind or kind[0] not in known:
        raise InputError(
            f"Expected proteins in a file ending in {', '.join(FASTA + TABLES)} (each also with "
            f".gz) or .parquet, but got {path.name!r}. Rename it."
        )
    return kind[0]


def text_of(path: Path) -> str:
    """Text of a file, unzipped, with newlines as line ends and without a byte-order mark.

    Raises:
        InputError: If there is none.
    """
    data = b""
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"Expected UTF-8 text in {path}, but line {place} is not. Save it as UTF-8."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None
    if "\0" in text:
        raise InputError(
            f"Expected text in {path}, but it holds zero bytes. Is it another kind of file?"
        )
    if not text.strip():
        raise InputError(f"Expected proteins in {path}, but it is empty. Name another file.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def unreadable(path: Path, error: Exception) -> InputError:
    """What to tell the user whose file gave an error."""
    if path.is_dir():
        return InputError(f"Expected a file of proteins, but {path} is a folder. Name a file.")
    if not path.exists():
        return InputError(f"Expected a file of proteins, but {path} is not there. Name a file.")
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return InputError(f"Expected proteins in {path}, but got: {reason}. Name another file.")
