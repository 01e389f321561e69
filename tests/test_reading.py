"""Proteins as biologists keep them: what is read, what is mended, what is refused and how."""

import csv
import gzip
import io
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbkd.inputs.proteins.features import sequence_features
from mtbkd.inputs.proteins.reading import Proteins, read_proteins
from mtbkd.types import InputError

LETTERS = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
GENE = "ATGCAGATCTTCGTGAAGACTCTGACTGGTAAGACCATCACCCTCGAGGTTGAGCCCAGTGACACC"


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: str | bytes, name: str = "a.fasta", **options) -> Proteins:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_proteins(path, **options)

    return write_and_read


def test_fasta_as_it_is_found(read):
    text = (
        "\ufeff; an old comment\r\n\r\n>sp|P0CG48|UBC_HUMAN Polyubiquitin-C OS=Homo sapiens\r\n"
        "MQIF VKTL\r\n\r\n; another\r\nTGK\tT\r\n>two\r\nmkvx\r\nuo*\r\n"
        "> three words here\nMK-V..A\r"
    )
    found = read(text)
    assert found.ids == ("sp|P0CG48|UBC_HUMAN", "two", "three")
    assert found.sequences == ("MQIFVKTLTGKT", "MKVXUO", "MKVA")
    assert found.table is None
    assert found.notes == (
        "1 of 3 sequences had lower-case letters, read as upper case.",
        "1 of 3 sequences had gaps ('-' or '.'), dropped.",
        "1 of 3 sequences had a stop codon '*' at the end, dropped.",
    )
    assert read(gzip.compress(text.encode()), "A.FA.gz") == found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "ACC,Kingdom,Sequence\n007,Fungi,MKV\nNA,,NA\n"),
        ("a.csv", "\ufeffKingdom;entry;SEQ\r\nFungi;007;MKV\r\n\r\n;NA;NA\r\n"),
        ("a.tsv", 'sequence\tKingdom\tid\n"M\nKV"\tFungi\t 007\nNA\t\tNA\n'),
    ],
)
def test_tables_of_text(name, text, read):
    found = read(text, name)
    assert found.ids == ("007", "NA")  # neither numbers nor gaps
    assert found.sequences == ("MKV", "NA")
    assert found.table is not None
    assert found.table.cells.to_pydict() == {"Kingdom": ["Fungi", ""]}
    assert read(gzip.compress(text.encode()), f"{name}.gz") == found


def test_parquet(read):
    file = io.BytesIO()
    columns = {"name": ["n", "m"], "id": [7, 8], "prot": ["MKV", "maa"], "y": [0.5, 1.5]}
    pq.write_table(pa.table(columns), file)
    found = read(file.getvalue(), "a.parquet", sequence_column="prot", needed=["y"])
    assert found.ids == ("7", "8")
    assert found.sequences == ("MKV", "MAA")
    assert found.table.cells.to_pydict() == {"name": ["n", "m"], "y": [0.5, 1.5]}


def test_columns_can_be_named(read):
    text = "id,gene,Sequence,mature\n1,0010,MKV,KV\n"
    found = read(text, "a.csv", id_column="gene", sequence_column="mature")
    assert (found.ids, found.sequences) == (("0010",), ("KV",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", ">p\nMK", r"ending in .fasta, .fa, .faa, .fas, .csv, .tsv, .* \(text also with"),
        ("a.parquet.gz", b"", r"\(text also with .gz\), but got 'a.parquet.gz'. Convert"),
        ("a.fasta", "", "it is empty"),
        ("a.fasta", " \n\n", "it is empty"),
        ("a.fasta", "; only a comment\n", "Expected FASTA in .*, but got ''"),
        ("a.fasta", "MKKL\n", "Expected FASTA in .* but got 'MKKL\\\\n'. Mend the file"),
        ("a.fasta", "MKKL\n>p\nMK\n", "Expected FASTA"),
        ("a.fasta", b">p\nMK\n>\xff\nMK", "UTF-8 text in .*, but line 3 is not"),
        ("a.fasta", b">p\nM\0K", "holds zero bytes"),
        ("a.fasta.gz", ">p\nMK\n", "Not a gzipped file"),
        (
            "a.fasta.gz",
            gzip.compress(b">p\nMK\n", mtime=0)[:-9],
            "Expected proteins in .* cannot be read",
        ),
        ("a.fasta", ">p\nMK\n>\nMK\n>  \nMA\n", "an id in every row .*row 2 has none"),
        ("a.fasta", ">p\nMK\n>q\nMV\n>p x\nMA\n", "every id once in .*, but got 'p' more"),
        ("a.csv", "Entry,Length\np,3\n", "column of sequences in .*the columns are Entry, Length"),
        ("a.csv", "id,seq,SEQ\np,M,K\n", "one column of sequences in .*, but got 2 named 'seq'"),
        ("a.csv", "id,seq\np,MK,K\n", "Expected 2 cells in each row of .*, but got 3 in row 1"),
        ("a.csv", "id,seq\n", "it has no rows"),
        ("a.csv", "id,seq\n,MK\np,MK\n", "row 1 has none"),
        ("a.parquet", "id,seq\np,MK\n", "Parquet magic bytes not found"),
    ],
)
def test_files_that_hold_no_proteins(name, content, message, read):
    with pytest.raises(InputError, match=message) as error:
        read(content, name)
    assert len(error.value.faults) == 1
    assert "\n" not in str(error.value)


def test_no_file_and_no_column(read, tmp_path):
    (tmp_path / "folder.fasta").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    for name in ("folder.fasta", "folder.parquet"):
        with pytest.raises(InputError, match=f"{name}, but it is a folder. Name a file"):
            read_proteins(tmp_path / name)
    with pytest.raises(InputError, match="none.parquet, but it is not there"):
        read_proteins(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="Expected a table with the columns Label, but .* FASTA"):
        read(">p\nMK\n", needed=["Label"])
    with pytest.raises(InputError) as error:
        read("a,b\n1,2\n", "a.csv", id_column="ID", needed=["a", "Label"])
    ids, sequences, label = error.value.faults
    assert "a column of ids in" in ids
    assert "named ID, but the columns are a, b" in ids
    assert "named sequence or seq or protein_sequence, but the columns are a, b" in sequences
    assert "Label is missing" in label
    file = io.BytesIO()
    pq.write_table(pa.table({"id": ["p"], "seq": [["M", "K"]]}), file)
    with pytest.raises(InputError, match="text in the column 'seq' of .*, but got list"):
        read(file.getvalue(), "a.parquet")


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("", "the sequence of 'p' is empty"),
        ("--*", "the sequence of 'p' is empty"),
        ("MK-V A*MK*", r"an inner stop codon '\*' at residue 5 of 'p'. Translate the right frame"),
        ("*MKV", r"an inner stop codon '\*' at residue 1 of 'p'"),
        ("mkv1aa", "but got '1' at residue 4 of 'p'"),
        ("mkvä", "but got 'ä' at residue 4 of 'p'"),
        ("MK/V", "but got '/' at residue 3 of 'p'"),
        ("X" * 30, "at least 20% known residues .*30 of the 30 of 'p' are X"),
        ("MXBZJX", "5 of the 6 of 'p' are X, B, Z or J"),
        (GENE, "the sequence of 'p' looks like DNA or RNA. Translate to protein first"),
        (GENE.lower().replace("t", "u"), "looks like DNA or RNA"),
        (GENE + "nnnRY", "looks like DNA or RNA"),
    ],
)
def test_sequences_that_are_no_proteins(sequence, message, read):
    with pytest.raises(InputError, match=message) as error:
        read(f">p\n{sequence}\n")
    assert len(error.value.faults) == 1


@pytest.mark.parametrize(
    "sequence",
    [
        "M",
        "GAGAGAGAGAGAGAGAGAGAGAGAGAGA",  # silk
        "AATAATAATAATAATAATAATAATAATAATAATAAT",  # antifreeze glycopeptide
        "ACGTACGTACGTACGTAC",  # too short to tell
        "MXXXX",
        "MBZJUOX",
        "G" * 34350,
    ],
)
def test_sequences_that_might_be_proteins(sequence, read):
    assert read(f">p\n{sequence}\n").sequences == (sequence,)


def test_genes_among_proteins_are_named(read):
    genes = "".join(f">g{n}\n{GENE}\n" for n in range(7))
    with pytest.raises(InputError, match="all 7 sequences look like DNA"):
        read(genes)
    with pytest.raises(InputError) as error:
        read(f">p\n{UBIQUITIN}\n{genes}")
    assert "7 of 8 sequences ('g0', 'g1', 'g2', 'g3', 'g4' and 2 more) look" in str(error.value)


def test_all_faults_at_once_but_not_all_of_them_shown(read):
    few = ">a\nM1K\n>a\nMK\n>b\n\n"
    with pytest.raises(InputError) as error:
        read(few)
    assert len(error.value.faults) == 3
    with pytest.raises(InputError) as error:
        read("".join(f">p{n}\nMK1\n" for n in range(31)))
    assert len(error.value.faults) == 9
    assert "'p7'" in error.value.faults[7]
    assert error.value.faults[8].startswith("… and 23 more such faults in ")


def test_biopython_is_named_where_it_is_missing(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "Bio.SeqIO.FastaIO", None)
    with pytest.raises(InputError, match=r"pip install 'mtbkd\[proteins\]'"):
        read(">p\nMK\n")
    assert read("id,seq\np,MK\n", "a.csv").ids == ("p",)


proteins = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_|.]{1,12}", fullmatch=True),
    # at least two known residues of five
    st.text(LETTERS, max_size=60).map(lambda s: "MK" + s.replace("X", "L").replace("Z", "W")),
    min_size=1,
    max_size=6,
)


@given(proteins, st.integers(1, 70), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_is_written_is_read(tmp_path_factory, wanted, width, end, zipped):
    folder = tmp_path_factory.getbasetemp()
    lines = []
    for name, s in wanted.items():
        lines += [f">{name} some words", *(s[k : k + width] for k in range(0, len(s), width))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([["id", "sequence"], *wanted.items()])
    for name, data in (("round.fasta", end.join(lines)), ("round.csv", text.getvalue())):
        path = folder / f"{name}{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data.encode()) if zipped else data.encode())
        found = read_proteins(path)
        assert dict(zip(found.ids, found.sequences, strict=True)) == wanted
        assert found.notes == ()


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('>;,*-\nMKx1\t" \r\ufeff', max_size=60).map(str.encode),
        st.binary(max_size=100).map(lambda b: b"id,seq\n" + b),
        st.binary(max_size=100).map(lambda b: b">p\n" + b),
        st.binary(max_size=100).map(gzip.compress),
    ),
    st.sampled_from(["r.fasta", "r.csv", "r.tsv", "r.parquet", "r.fa.gz", "r.csv.gz"]),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    faults, sequences = (), ("M",)
    try:
        sequences = read_proteins(path).sequences
    except InputError as error:
        faults = error.faults
    assert all(fault.startswith(("Expected", "…")) for fault in faults)
    assert all(s.isascii() and s.isalpha() and s.isupper() for s in sequences)
    assert np.isfinite(sequence_features(sequences)).all()


def test_no_real_protein_is_refused(data_folder):
    found = [read_proteins(data_folder / f"deeploc2_full/partition{n}.csv.gz") for n in range(5)]
    assert sum(len(each.ids) for each in found) == 28303
    assert [each.notes for each in found] == [()] * 5
    assert max(len(s) for each in found for s in each.sequences) == 34350
    paper = read_proteins(data_folder / "deeploc2_mtbkd/data_our_test.csv", needed=["Label"])
    assert paper.ids[0] == "Q9R0N5"
