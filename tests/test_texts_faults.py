"""Broken texts: one message for each kind of fault, which names row and file."""

import gzip
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_data import call
from texts_data import write_news

from mtbkd.inputs.texts.reading import LONGEST, read_texts, texts_of
from mtbkd.types import InputError

GOOD = ["a ball", "the bank, of course", "Überraschung 👍", "星 moon", 'he said "no"']


def read(path, column="text"):
    return texts_of(read_texts(path, "id", column), column)


def write_parquet(path, cells):
    ids = pa.array([f"n{i}" for i in range(len(cells))])
    pq.write_table(pa.table({"id": ids, "text": cells}), path)
    return path


def test_lines_are_texts_with_their_numbers_as_ids(tmp_path):
    path = tmp_path / "new.txt"
    path.write_bytes("\ufeffone ball\r\ntwo\tmoons\r\n\n".encode())
    table = read_texts(path, "key", "words")
    assert table.ids == ("1", "2")
    assert texts_of(table, "words") == ["one ball", "two\tmoons"]
    zipped = tmp_path / "new.txt.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert texts_of(read_texts(zipped, "key", "words"), "words") == ["one ball", "two\tmoons"]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("", "Expected a text in every row, but got none"),
        (None, "Expected a text in every row, but got none"),
        (" \n\t\u2003", "Expected a text in every row, but got none"),
        ("a\0b", "Expected texts without the character NUL, but got one"),
        ("x" * 10_000_000, f"Expected texts of at most {LONGEST:,} characters, but got more"),
    ],
)
def test_a_broken_cell_is_named(tmp_path, cell, told):
    path = write_parquet(tmp_path / "t.parquet", pa.array([*GOOD, cell, *GOOD, cell], pa.string()))
    with pytest.raises(InputError) as refused:
        read(path)
    assert refused.value.faults == (
        f"{told} in column 'text' of {path} for id 'n5' (2 such). Correct it, or leave the row "
        "out.",
    )


def test_all_kinds_of_faults_are_told_at_once(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", pa.array(["", "a\0", "x" * (LONGEST + 1)]))
    with pytest.raises(InputError) as refused:
        read(path)
    assert [fault.split("for id ")[1][:4] for fault in refused.value.faults] == [
        "'n0'", "'n1'", "'n2'"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([1, 2]),
        pa.array([None, None]),
        pa.array([["a"], ["b"]]),
        pa.array([b"\xff", b"a"]),
        pa.array([{"a": 1}, {"a": 2}]),
    ],
)
def test_a_column_of_something_else_is_refused(tmp_path, cells):
    path = write_parquet(tmp_path / "t.parquet", cells)
    with pytest.raises(InputError, match=f"Expected texts in column 'text' of {path}, but got"):
        read(path)


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    data = pa.array([b"fine", b"also", b"caf\xe9"]).cast(pa.binary())
    wrong = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    path = write_parquet(tmp_path / "t.parquet", wrong)
    with pytest.raises(InputError, match="UTF-8 in column 'text' of .* for id 'n2'"):
        read(path)
    path = tmp_path / "t.csv"
    path.write_bytes("id,text\n1,fine\n2,café\n".encode("latin-1"))
    with pytest.raises(InputError, match="line 3 is not"):
        read(path)


def test_half_a_pair_of_surrogates_is_refused(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, id=np.array(["a", "b"]), text=np.array(["fine", "\ud800"]))
    with pytest.raises(
        InputError, match=f"array 'text' of {path}, but got half a character in row 2"
    ):
        read(path)


def test_a_column_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,texts\n1,a ball\n")
    with pytest.raises(InputError, match="Expected a column 'text' in .*Did you mean 'texts'"):
        read(path)


def broken(chance: random.Random) -> tuple[str, bytes]:
    """A file with texts that may be broken: its suffix, and its bytes."""
    cells = [chance.choice(GOOD) for _ in range(chance.randrange(1, 6))]
    bad = ["", " ", "\0", "\u200b", "\ufeff", "\ud83d", "x" * 1_000_001, ",", '"', "\n", "\r", "\t"]
    for _ in range(chance.randrange(3)):
        cells[chance.randrange(len(cells))] += chance.choice(bad)
        if chance.random() < 0.3:
            cells[chance.randrange(len(cells))] = chance.choice(bad)
    suffix = chance.choice([".csv", ".tsv", ".txt", ".csv.gz", ".txt.gz", ".pdf"])
    mark = "\t" if "tsv" in suffix else ","
    quote = chance.random() < 0.7
    rows = [f'{i}{mark}"{c}"' if quote else f"{i}{mark}{c}" for i, c in enumerate(cells)]
    header = chance.choice([f"id{mark}text", f"id{mark}text", "id", "text", ""])
    text = "\n".join(cells if ".txt" in suffix else [header, *rows])
    coding = chance.choice(["utf-8"] * 4 + ["utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32"])
    data = text.encode(coding, "surrogatepass" if coding.startswith("utf") else "replace")
    if chance.random() < 0.2:
        place = chance.randrange(len(data) + 1)
        data = data[:place] + chance.randbytes(3) + data[place:]
    if suffix.endswith(".gz"):
        data = gzip.compress(data)
        data = data[: chance.randrange(len(data))] if chance.random() < 0.3 else data
    return suffix, data


def test_three_hundred_broken_files(tmp_path):
    chance = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for number in range(300):
        suffix, data = broken(chance)
        path = tmp_path / f"t{number}{suffix}"
        path.write_bytes(data)
        try:
            cells = read(path)
        except InputError as error:
            outcomes["refused"] += 1
            for fault in error.faults:
                assert fault.startswith("Expected ")
                assert path.name in fault
                assert len(fault) < 600
        else:
            outcomes["read"] += 1
            assert all(cell.strip() and "\0" not in cell and len(cell) <= LONGEST for cell in cells)
            for cell in cells:
                cell.encode()
    assert min(outcomes.values()) > 30


def test_the_command_line_refuses_them_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    path, run = write_news(tmp_path), tmp_path / "run"
    examples = tmp_path / "examples.csv"
    whole = examples.read_text()
    lines = whole.splitlines()
    for spoilt, told in (
        ([*lines, "n99,,sport"], "a text in every row"),
        ([*lines, "n99,a\0b,sport"], "zero bytes"),
        (["id,word,label", *lines[1:]], "'words'"),
    ):
        examples.write_text("\n".join(spoilt))
        code, out, err = call(monkeypatch, capsys, "teach", path, "--out", run)
        assert (code, out) == (2, "")
        assert told in err
        assert str(examples) in err
        assert "Traceback" not in err
        assert [p.name for p in run.rglob("*") if p.is_file()] in ([], ["config.yaml"])
