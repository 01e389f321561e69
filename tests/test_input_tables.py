"""Tables that people hand in: every format read alike, every fault named, memory bounded."""

import gzip
import re
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtbkd.inputs import opening, tables
from mtbkd.inputs.tables import read_arrays, read_table
from mtbkd.types import InputError

NAMES = ["key", "x", "flag", "note"]
ROWS = [["007", 1.5, True, "a"], ["b", -2e-3, False, ""], ["c", 3.0, True, "n, m"]]


def write(path, names=NAMES, rows=ROWS):
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    else:
        sign = "\t" if ".tsv" in path.name else ","
        lines = [sign.join(f'"{cell}"' for cell in row) for row in [names, *rows]]
        data = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.tsv", "t.csv.gz", "t.parquet", "t.npz"])
def test_every_format_gives_the_same_numbers_words_and_ids(name, tmp_path):
    table = read_table(write(tmp_path / name), "rows").with_ids("key", "")
    assert table.names == NAMES
    assert table.ids == ("007", "b", "c")
    assert table.words("note") == ["a", "", "n, m"]
    assert table.numbers("x").tolist() == [1.5, -2e-3, 3.0]
    assert table.numbers("flag").tolist() == [1, 0, 1]
    assert table.matrix(["flag", "x"]).dtype == np.float32
    found, partly = table.numeric(["x", "flag", "note"])
    assert found == ["x"]
    assert len(partly) == 1
    assert partly[0].startswith("'flag' (")
    assert table.lacking(["x", "y"]) == ["y"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
@pytest.mark.parametrize("sign", [",", ";"])
def test_text_as_it_is_found(end, start, sign, tmp_path):
    path = tmp_path / "t.csv"
    lines = [f"id{sign}x", f"007{sign} 1.50 ", "", f'"a{sign}\nb"{sign}']
    path.write_bytes((start + end.join(lines)).encode())
    table = read_table(path, "rows")
    assert table.words("id") == ["007", f"a{sign}\nb"]
    assert table.words("x") == [" 1.50 ", ""]
    np.testing.assert_array_equal(table.numbers("x", missing=True), [1.5, np.nan])


BYTES = {
    "a header only": (b"a,b\n", "{path}, but it has no rows. Add them."),
    "a header without an end": (b"a,b", "{path}, but it has no rows. Add them."),
    "nothing": (b"", "{path}, but it is empty. Name another file."),
    "blanks": (b"\n \r\n", "{path}, but it is empty."),
    "Latin-1": (b"a,b\r1,2\r3,\xe9\r", "as UTF-8 text in {path}, but line 3 is not. Save it as"),
    "UTF-16": ("a,b\n1,2".encode("utf-16"), "as UTF-8 text in {path}, but line 1 is not."),
    "zero bytes": (b"a,b\n1,\0\n", "as text in {path}, but line 2 holds zero bytes."),
    "ragged": (b"a,b\n1,2\n3\n4,5,6\n", "2 cells in each row of {path}, but got 1 in row 2 (2"),
    "twice": (b"a,a\n1,2\n", "every column once in {path}, but got 'a' more than once."),
    "a long name": (b"x" * 200_000, "{path}, but it cannot be read (field larger than"),
}  # fmt: skip


@pytest.mark.parametrize("case", BYTES)
@pytest.mark.parametrize("zipped", [False, True])
def test_text_that_is_no_table(case, zipped, tmp_path):
    data, message = BYTES[case]
    path = tmp_path / ("t.csv.gz" if zipped else "t.csv")
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(InputError, match=re.escape(message.format(path=path))) as caught:
        read_table(path, "rows")
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize("far", [False, True])
def test_lines_are_counted_over_the_whole_file(far, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_PIECE", 7)
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\r\n" + b"1,2\r\n" * 20 + (b"\r" * 4 if far else b"") + b"\xff,1\n")
    with pytest.raises(InputError, match=f"line {26 if far else 22} is not"):
        read_table(path, "rows")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npz", "t.npy", "t.csv.gz"])
def test_what_is_no_file(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(InputError, match=f"{name}, but it is not there. Name another file."):
        read_table(path, "rows")
    path.mkdir()
    with pytest.raises(InputError, match=f"{name}, but it is a folder. Name a file."):
        read_table(path, "rows")
    long = path.with_name("n" * 300 + path.name)
    with pytest.raises(InputError, match="cannot be read .File name too long.. Check the file."):
        read_table(long, "rows")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet", "t.npz", "t.npy"])
def test_files_that_were_cut_short(name, tmp_path):
    path = tmp_path / name
    if name == "t.npy":
        np.save(path, np.zeros((30, 3)))
    else:
        write(path, rows=ROWS * 30)
    data = path.read_bytes()
    for length in {0, 1, 5, len(data) // 2, len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=re.escape(str(path))) as caught:
            read_table(path, "rows")
        assert len(caught.value.faults) == 1


def test_no_one_is_told_to_unpickle(tmp_path):
    for name in ("t.npy", "t.npz"):
        (tmp_path / name).write_bytes(b"\x80\x04\x95 something else")
        with pytest.raises(InputError, match="cannot be read .it is another kind of file.. Check"):
            read_table(tmp_path / name, "rows")


GOOD = np.arange(6.0).reshape(3, 2)
ARRAYS = {
    "one number": (np.float64(3), "but got shape (). Give it one or two axes."),
    "three axes": (GOOD[None], "but got shape (1, 3, 2). Give it one or two axes."),
    "complex": (GOOD + 1j, "but got complex128. Convert it to float64."),
    "dates": (np.zeros((3, 2), "M8[s]"), "but got datetime64[s]. Convert it to float64."),
    "records": (np.zeros(3, [("a", "f8")]), "Convert it to float64."),
    "objects": (GOOD.astype(object), "it cannot be read (Object arrays cannot be loaded when"),
    "no rows": (GOOD[:0], "but it has no rows. Add them."),
    "no columns": (GOOD[:, :0], "but it has no rows. Add them."),
}


@pytest.mark.parametrize("case", ARRAYS)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_that_are_no_table(case, suffix, tmp_path):
    array, message = ARRAYS[case]
    path = tmp_path / f"t.{suffix}"
    if suffix == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, allow_pickle=True, x=array)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_table(path, "rows")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, ">f8", ">i4", "S8", "U8", bool])
def test_numbers_of_any_make(dtype, tmp_path):
    np.save(tmp_path / "t.npy", GOOD.astype(dtype))
    table = read_table(tmp_path / "t.npy", "rows")
    wanted = GOOD.astype(dtype) != 0 if dtype is bool else GOOD
    np.testing.assert_array_equal(table.matrix(["0", "1"]), wanted)
    assert read_arrays(tmp_path / "t.npy", "rows")[""].dtype.kind in "fiUb"


def test_cells_that_are_no_finite_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,w,x,y,z\nn,1,2e39,1,1\nm,inf,1,,abc\n")
    table = read_table(path, "rows")
    for ids, place in (((), "in row 2"), (("n", "m"), "for id 'm'")):
        if ids:
            table = table.with_ids("id", "")
        with pytest.raises(InputError) as caught:
            table.matrix(["w", "x", "y", "z", "v"])
        first = place.replace("2", "1").replace("'m'", "'n'")
        wanted = [
            f"Expected a finite number in column 'w' of {path}, but got infinity {place} (1 such)",
            f"single precision holds in column 'x' of {path}, but got 2e+39 {first} (1 such)",
            f"number in column 'y' of {path}, but got NaN or an empty cell {place} (1 such)",
            f"Expected numbers in column 'z' of {path}, but got 'abc' {place}. Correct it.",
            f"Expected a column 'v' in {path}, but got id, w, x, y, z. Correct its name, or add",
        ]
        for fault, words in zip(caught.value.faults, wanted, strict=True):
            assert words in fault
    assert table.numbers("w", infinite=True)[1] == np.inf
    assert table.numeric(["w", "z"]) == (["w"], ["'z' ('abc' for id 'm')"])


def test_a_text_cell_is_found_wherever_it_is(tmp_path):
    for row in range(9):
        cells = [str(i) for i in range(9)]
        cells[row] = "word"
        path = tmp_path / "t.csv"
        path.write_text("x\n" + "\n".join(cells) + "\n")
        with pytest.raises(InputError, match=f"but got 'word' in row {row + 1}. Correct"):
            read_table(path, "rows").numbers("x")


def test_large_integers_and_categories_of_parquet(tmp_path):
    columns = {"n": [2**60 + 1, 5], "c": pa.array(["u", "v"]).dictionary_encode()}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", "rows")
    assert table.numbers("n").tolist() == [2.0**60, 5]
    assert table.words("c") == ["u", "v"]
    assert table.words("n") == [str(2**60 + 1), "5"]


def test_rows_that_are_longer_than_a_piece(tmp_path):
    path, long = tmp_path / "t.csv", "n" * 5_000_000
    path.write_text(f"id,x\n{long},1\nb,2\n")
    table = read_table(path, "rows").with_ids("id", "")
    assert table.ids == (long, "b")


def test_a_wide_table_is_read_in_time(tmp_path):
    n = 20_000
    lines = [",".join(f"c{i}" for i in range(n)), ",".join(["1.5"] * n), ",".join(["2"] * n)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    table = read_table(tmp_path / "t.csv", "rows")
    assert len(table.numeric(table.names)[0]) == n
    assert table.matrix(table.names).sum() == 3.5 * n


def test_text_is_read_some_blocks_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", opening._PIECE)
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "0.25,some words\n" * 1_800_000)
    tracemalloc.start()
    table = read_table(path, "rows")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.cells.num_rows == 1_800_000
    assert path.stat().st_size > 26 * opening._PIECE
    assert peak < 13 * opening._PIECE
