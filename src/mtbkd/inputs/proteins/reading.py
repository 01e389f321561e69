"""Proteins from files: FASTA, or tables with a column of sequences."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mtbkd.inputs.columns import Table, few, first_faults
from mtbkd.inputs.opening import suffix_of, text_of
from mtbkd.inputs.proteins.cleaning import clean
from mtbkd.inputs.tables import TABLES, read_table
from mtbkd.types import InputError, refuse

ID_COLUMNS = ("id", "acc", "accession", "entry", "protein_id", "name")
"""Names of the column of ids, whatever their case; the first that is there is taken."""
SEQUENCE_COLUMNS = ("sequence", "seq", "protein_sequence")

_FASTA = (".fasta", ".fa", ".faa", ".fas")
_COMMENT = re.compile(r"^;.*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Proteins:
    """Proteins of a file, in its order.

    Attributes:
        ids: The first word of each FASTA header as it is, or the column of ids.
        sequences: In upper case, letters only.
        table: All other columns of a table, in the same order; None for FASTA.
        notes: What was changed in the sequences, one sentence for each kind.
    """

    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    table: Table | None = None
    notes: tuple[str, ...] = ()


def read_proteins(
    path: str | Path,
    *,
    id_column: str | None = None,
    sequence_column: str | None = None,
    needed: Sequence[str] = (),
) -> Proteins:
    """Read and clean the proteins of a file; its suffix says the format.

    FASTA is .fasta, .fa, .faa or .fas, also gzipped (.fasta.gz); tables are as `read_table` reads
    them.

    Args:
        path: The file.
        id_column: Name of the column of ids; one of `ID_COLUMNS` if not given.
        sequence_column: Name of the column of sequences; one of `SEQUENCE_COLUMNS` if not given.
        needed: Other columns that a table must have, such as labels.

    Raises:
        InputError: With one message for each fault: the file cannot be read, a column is missing,
            an id is missing or there twice, a sequence is no protein.
    """
    path = Path(path)
    fasta = suffix_of(path, (*_FASTA, *TABLES), "proteins") in _FASTA
    if fasta and needed:
        raise InputError(
            f"Expected a table with the columns {', '.join(needed)}, but {path} is FASTA. Give a "
            ".csv, .tsv or .parquet file."
        )
    table = _fasta(path) if fasta else read_table(path, "proteins")
    asked = (None, None) if fasta else (id_column, sequence_column)
    ids, sequences = _columns(table, asked, needed)
    faults: list[str] = []
    try:
        names = table.with_ids(ids, "Name it.").ids
    except InputError as error:
        faults += error.faults
        names = tuple(name or f"row {n}" for n, name in enumerate(table.words(ids), 1))
    cleaned = clean(names, table.words(sequences), str(path))
    faults += cleaned.faults
    if faults:
        raise InputError(*first_faults(faults, str(path)))
    others = table.cells.drop_columns([ids, sequences])
    return Proteins(
        ids=names,
        sequences=cleaned.sequences,
        table=None if fasta else Table(path, others, names),
        notes=cleaned.notes,
    )


def _fasta(path: Path) -> Table:
    """Ids and sequences as written; an id is empty where the header is."""
    try:
        from Bio.SeqIO.FastaIO import SimpleFastaParser
    except ModuleNotFoundError:
        raise InputError(
            "Expected Biopython, which reads FASTA, but it is not installed. Run: pip install "
            "'mtbkd[proteins]'."
        ) from None
    text = _COMMENT.sub("", "".join(text_of(path, "proteins"))).lstrip()
    if not text.startswith(">"):
        raise InputError(
            f"Expected FASTA in {path}, with a line starting with '>' before each sequence, but "
            f"got {text[:20]!r}. Mend the file, or name it .csv if it is one."
        )
    entries = list(SimpleFastaParser(io.StringIO(text)))
    ids = [next(iter(title.split(maxsplit=1)), "") for title, _ in entries]
    return Table(path, pa.table({"id": ids, "sequence": [letters for _, letters in entries]}))


def _columns(
    table: Table, asked: tuple[str | None, str | None], needed: Sequence[str]
) -> tuple[str, str]:
    """The names of the columns of ids and of sequences."""
    names, path = table.names, table.path
    there_are = f"the columns are {few(names)}"
    faults: list[str] = []
    found: list[str] = []
    for what, named, usual in zip(
        ("ids", "sequences"), asked, (ID_COLUMNS, SEQUENCE_COLUMNS), strict=True
    ):
        candidates = [named] if named is not None else list(usual)
        keys = names if named is not None else [_plain(n) for n in names]
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
        found.append(names[there[0]] if there else "")
    missing = table.lacking(needed)
    if missing:
        faults.append(
            f"Expected the columns {', '.join(needed)} in {path}, but {', '.join(missing)} is "
            f"missing; {there_are}. Add it."
        )
    refuse(*faults)
    for name in found:
        if pa.types.is_nested(kind := table.cells.schema.field(name).type):
            raise InputError(
                f"Expected text in the column {name!r} of {path}, but got {kind}. Convert it, or "
                "name another column."
            )
    return found[0], found[1]


def _plain(name: str) -> str:
    return name.strip().casefold()
