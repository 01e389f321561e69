"""The whole DeepLoc 2.0 set: DTU's table, turned into the five files that recipes read.

The bytes that DTU serves are not pinned: what is compared is the content that matters, after it
was read. `CONTENT` is the sha256 of one line for each protein, sorted: accession, partition,
locations in alphabetical order with ``|`` between, and sequence, with tabs between.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from mtbkd.files import replacing
from mtbkd.types import InputError

LOCATIONS = (
    "Cytoplasm",
    "Nucleus",
    "Extracellular",
    "Cell membrane",
    "Mitochondrion",
    "Plastid",
    "Endoplasmic reticulum",
    "Lysosome/Vacuole",
    "Golgi apparatus",
    "Peroxisome",
)
PARTITIONS = 5
CONTENT = "6d62c2ebf002ae756c626f0f6993e99bf8e24a01560795d5ce7540f2afc152f6"

_COLUMNS = ("accession", "sequence", "label", "partition", "kingdom", "membrane")

Row = dict[str, str]
"""Of one protein, by the names in `_COLUMNS`."""


def partition_file(partition: int) -> str:
    """Name of the file of a partition."""
    return f"partition{partition}.csv.gz"


def content_hash(rows: Iterable[Row]) -> str:
    """sha256 of what recipes read, whatever the order of rows."""
    lines = sorted(
        f"{r['accession']}\t{r['partition']}\t{'|'.join(sorted(r['label'].split('|')))}"
        f"\t{r['sequence']}\n"
        for r in rows
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_whole(folder: Path) -> bool:
    """Whether the files of all partitions are there with the content they should have."""
    rows: list[Row] = []
    try:
        for partition in range(PARTITIONS):
            data = gzip.decompress((folder / partition_file(partition)).read_bytes())
            rows += csv.DictReader(io.StringIO(data.decode(), newline=""))
        return content_hash(rows) == CONTENT
    except (OSError, EOFError, ValueError, KeyError, AttributeError, csv.Error, zlib.error):
        return False


def convert(source: Path, folder: Path) -> None:
    """Write the files of the partitions from DTU's table, if it holds what it should.

    Rows are sorted by sequence and gzip holds no time, so the same content gives the same bytes.

    Raises:
        InputError: If it is another table; nothing is written then.
    """
    rows = read_table(source)
    found = content_hash(rows)
    if found != CONTENT:
        raise InputError(
            f"Expected {source.name.lstrip('.')} with the content {CONTENT} (sha256 of what is "
            f"read of it), but got {found} from {len(rows):,} proteins; it was removed. Try again; "
            "if this stays, the file was changed at its source."
        )
    rows.sort(key=lambda r: (r["sequence"], r["accession"]))
    with ExitStack() as files:  # all or none
        for partition in range(PARTITIONS):
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(_COLUMNS)
            inside = (r for r in rows if r["partition"] == str(partition))
            writer.writerows([r[column] for column in _COLUMNS] for r in inside)
            path = folder / partition_file(partition)
            held = files.enter_context(replacing(path, elsewhere="choose another place with --to"))
            held.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def read_table(source: Path) -> list[Row]:
    """Proteins of DTU's table: ACC, Kingdom, Partition, Membrane, ten locations, Sequence.

    Raises:
        InputError: If it is another table.
    """
    name = source.name.lstrip(".")
    try:
        text = source.read_text("utf-8-sig")
        table = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [cell.strip() for cell in next(table, [])]
        lines = [line for line in table if line]
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"Expected a table in {name}, but got: {error}; it was removed. Try again later."
        ) from None
    wanted = ("ACC", "Kingdom", "Partition", "Membrane", *LOCATIONS, "Sequence")
    missing = [column for column in wanted if column not in header]
    if missing:
        raise InputError(
            f"Expected the columns {', '.join(wanted)} in {name}, but {', '.join(missing)} is "
            f"missing, in a file that starts {text[:40]!r}; it was removed. Try again later."
        )
    place = {column: header.index(column) for column in wanted}
    rows = []
    try:
        for line in lines:
            cell = {column: line[n].strip() for column, n in place.items()}
            rows.append({
                "accession": cell["ACC"],
                "sequence": cell["Sequence"],
                "label": "|".join(sorted(each for each in LOCATIONS if float(cell[each]))),
                "partition": str(int(float(cell["Partition"]))),
                "kingdom": cell["Kingdom"],
                "membrane": str(float(cell["Membrane"])),
            })  # fmt: skip
    except (ValueError, OverflowError, IndexError) as error:
        raise InputError(
            f"Expected numbers for partition, membrane and locations in {name}, but row "
            f"{len(rows) + 1} gave: {error}; the file was removed. Try again later."
        ) from None
    return rows
