"""Proteins from files: FASTA, CSV and Parquet."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mtbkd.inputs.proteins.cleaning import clean, first_faults, repeated
from mtbkd.inputs.proteins.opening import FASTA, kind_of, text_of, unreadable
from mtbkd.types import InputError

ID_COLUMNS = ("id", "acc", "accession", "entry", "protein_id", "name")
"""Names of the column of ids, whatever their case; the first that is there is taken."""
SEQUENCE_COLUMNS = ("sequence", "seq", "protein_sequence")

_LARGEST_BLOCK = 1 << 30
_COMMENT = re.compile(r"^;.*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Proteins:
    """Proteins of a file, in its order.

    Attributes:
        ids: The first word of each FASTA header as it is, or the column of ids.
        sequences: In upper case, letters only.
        table: All other columns of a CSV or Parquet file, in the same order; None for FASTA.
        notes: What was changed in the sequences, one sentence for each kind.
    """

    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    table: pa.Table | None = None
    notes: tuple[str, ...] = ()


def read_proteins(
    path: str | Path,
    *,
    id_column: str | None = None,
    sequence_column: str | None = None,
    needed: Sequence[str] = (),
) -> Proteins:
    """Read and clean the proteins of a file; its suffix says the format.

    FASTA is .fasta, .fa, .faa or .fas, a table .csv, .tsv or .parquet; all but the last may be
    gzipped (.fasta.gz).

    Args:
        path: The file.
        id_column: Name of the column of ids; one of `ID_COLUMNS` if not given.
        sequence_column: Of the sequences; one of `SEQUENCE_COLUMNS` if not given.
        needed: Other columns that a table must have, such as labels.

    Raises:
        InputError: With one message for each fault: the file cannot be read, a column is missing,
            an id is missing or there twice, a sequence is no protein.
    """
    path = Path(path)
    kind = kind_of(path)
    table = None
    if kind in FASTA:
        if needed:
            raise InputError(
                f"Expected a table with the columns {', '.join(needed)}, but {path} is FASTA. Give "
                "a .csv, .tsv or .parquet file."
            )
        ids, written = _fasta(path)
    else:
        asked = (id_column, sequence_column)
        read = _parquet(path) if kind == ".parquet" else _csv(path, kind, asked)
        ids, written, table = _columns(read, path, *asked, needed)
    if not ids:
        raise InputError(f"Expected proteins in {path}, but it holds none. Name another file.")
    cleaned = clean([name or f"row {n}" for n, name in enumerate(ids, 1)], written, str(path))
    faults = [
        *_nameless(ids, path, "row" if table is not None else "header"),
        *repeated([name for name in ids if name], str(path)),
        *cleaned.faults,
    ]
    if faults:
        raise InputError(*first_faults(faults, str(path)))
    return Proteins(tuple(ids), cleaned.sequences, table, cleaned.notes)


def _fasta(path: Path) -> tuple[list[str], list[str]]:
    """Ids and sequences as written; an id is empty where the header is.

    Raises:
        InputError: If the file is not FASTA, or Biopython is not installed.
    """
    try:
        from Bio.SeqIO.FastaIO import SimpleFastaParser
    except ModuleNotFoundError:
        raise InputError(
            "Expected Biopython, which reads FASTA, but it is not installed. Run: pip install "
            "'mtbkd[proteins]'."
        ) from None
    text = _COMMENT.sub("", text_of(path)).lstrip()
    if not text.startswith(">"):
        raise InputError(
            f"Expected FASTA in {path}, with a line starting with '>' before each sequence, but "
            f"got {text[:20]!r}. Mend the file, or name it .csv if it is one."
        )
    entries = list(SimpleFastaParser(io.StringIO(text)))
    ids = [next(iter(title.split(maxsplit=1)), "") for title, _ in entries]
    return ids, [sequence for _, sequence in entries]


def _csv(path: Path, kind: str, asked: tuple[str | None, ...]) -> pa.Table:
    """A table with separators; columns that may be ids or sequences stay text.

    Raises:
        InputError: If it is not one.
    """
    text = text_of(path).lstrip("\n")
    header, _, _ = text.partition("\n")
    delimiter = "\t" if kind == ".tsv" else ","
    if kind == ".csv" and "," not in header and ";" in header:
        delimiter = ";"
    data = text.encode()
    try:
        parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        read = pa_csv.ReadOptions(block_size=min(len(data) + 1, _LARGEST_BLOCK))
        names = pa_csv.open_csv(io.BytesIO(data), read, parse).schema.names
        usual = (*ID_COLUMNS, *SEQUENCE_COLUMNS)
        kept = [n for n in names if n in asked or _plain(n) in usual]
        convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(kept, pa.string()))
        return pa_csv.read_csv(io.BytesIO(data), read, parse, convert)
    except pa.ArrowException as error:
        raise unreadable(path, error) from None


def _parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(path.read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def _columns(
    table: pa.Table,
    path: Path,
    id_column: str | None,
    sequence_column: str | None,
    needed: Sequence[str],
) -> tuple[list[str], list[str], pa.Table]:
    """Ids and sequences as written, and the other columns."""
    names = table.column_names
    there_are = f"the columns are {', '.join(names[:20])}{' …' if len(names) > 20 else ''}"
    faults: list[str] = []
    places = []
    for what, asked, usual in (
        ("ids", id_column, ID_COLUMNS),
        ("sequences", sequence_column, SEQUENCE_COLUMNS),
    ):
        candidates = [asked] if asked is not None else list(usual)
        keys = names if asked is not None else [_plain(n) for n in names]
        key = next((c for c in candidates if c in keys), None)
        there = [n for n, k in enumerate(keys) if k == key]
        if key is None:
            faults.append(
                f"Expected a column of {what} in {path}, named {' or '.join(candidates)}, but "
                f"{there_are}. Rename one, or say which it is."
            )
        elif len(there) > 1:
            faults.append(
                f"Expected one column of {what} in {path}, but got {len(there)} named {key!r}. "
                "Remove or rename all but one."
            )
        places.append(there[0] if there else -1)
    missing = [name for name in needed if name not in names]
    if missing:
        faults.append(
            f"Expected the columns {', '.join(needed)} in {path}, but {', '.join(missing)} is "
            f"missing; {there_are}. Add it."
        )
    if faults:
        raise InputError(*faults)
    values = []
    for place in places:
        try:
            column = table.column(place).cast(pa.string()).to_pylist()
        except (pa.ArrowException, NotImplementedError):
            raise InputError(
                f"Expected text in the column {names[place]!r} of {path}, but got "
                f"{table.schema.field(place).type}. Convert it, or name another column."
            ) from None
        values.append([(value or "").strip() for value in column])
    others = [n for n in range(len(names)) if n not in places]
    return values[0], values[1], table.select(others)


def _nameless(ids: Sequence[str], path: Path, what: str) -> list[str]:
    """One message if ids are missing."""
    rows = [str(n) for n, name in enumerate(ids, 1) if not name]
    if not rows:
        return []
    rest = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return [
        f"Expected an id for each protein in {path}, but {what} {', '.join(rows[:5])}{rest} has "
        "none. Give each a name of its own."
    ]


def _plain(name: str) -> str:
    return name.strip().casefold()
