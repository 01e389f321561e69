"""Generated bad inputs for the command line, and a judge of what it says to them.

`python tests/bad_inputs.py 1000` runs so many of seed 0 and prints those that are not refused as
they should be.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import yaml
from own_data import CLASSES, FAST, points, write_config, write_csv, write_examples, write_table
from own_proteins_data import PLACES, sequences, write_protein_config, write_proteins
from safetensors.numpy import save_file

from mtbkd.app import cli

SECONDS, LONGEST = 10.0, 120.0  # of the processor, and by the clock where others use it too
TINY = [
    f"--set={name}={value}"
    for name, value in (
        ("map.epochs", 2),
        ("sampler.burn_in", 10),
        ("sampler.draws", 6),
        ("sampler.thinning", 2),
        ("chains", 2),
        ("baselines", "none"),
    )
]


class Case(NamedTuple):
    """One bad input.

    Attributes:
        name: What is bad, in words.
        arguments: Of the command line.
        made: What may be there afterwards, if the answer is right.
    """

    name: str
    arguments: list[str]
    made: Path


class Answer(NamedTuple):
    """What the command line said."""

    code: int
    out: str
    err: str
    seconds: float


class Runs(NamedTuple):
    """Small runs that are finished, to predict with."""

    columns: Path
    numbers: Path
    proteins: Path


def ask(arguments: list[str]) -> Answer:
    """Run the command line in this process, with the warnings of a user's and an alarm."""

    def late(*_: object) -> None:
        raise RuntimeError(f"no answer within {LONGEST} s")

    before, old = sys.argv, signal.signal(signal.SIGALRM, late)
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv, start = ["mtbkd", *arguments], time.process_time()
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        sys.argv = before
    return Answer(code, out.getvalue(), err.getvalue(), time.process_time() - start)


def prepare(folder: Path) -> Runs:
    """Finish three runs: of columns by name, of columns by order, and of proteins."""
    runs = Runs(*(folder / name / "run" for name in Runs._fields))
    for run in runs:
        run.parent.mkdir(parents=True)
    write_examples(runs.columns.parent)
    write_table(runs.columns.parent)
    columns = write_config(runs.columns.parent, {"old": {"table": "old.csv", "kind": "probs"}})
    place = runs.proteins.parent
    write_proteins(place)
    said = [[f"p{i}", *(0.8 * np.eye(2)[i // 3 % 2] + 0.1)] for i in range(len(sequences()))]
    write_csv(place / "old.csv", ["id", *PLACES], said)
    proteins = write_protein_config(place, teachers={"old": {"table": "old.csv", "kind": "probs"}})
    for arguments in (
        [str(columns), "--out", str(runs.columns)],
        ["synthetic", *TINY, "--out", str(runs.numbers)],
        [str(proteins), "--out", str(runs.proteins)],
    ):
        answer = ask(["run", *arguments])
        if answer.code:
            raise RuntimeError(answer.err)
    return runs


def cases(runs: Runs, folder: Path, seed: int, wanted: list[int]) -> Iterator[tuple[Case, Path]]:
    """The cases of these numbers, each in a folder of its own that is empty before and after."""
    for number in wanted:
        chance = random.Random(seed * 1_000_003 + number)
        place = folder / f"case-{number}"
        place.mkdir(parents=True)
        kinds = (_table_case, _table_case, _array_case, _fasta_case, _own_case, _own_case)
        make = [*kinds, _config_case, _option_case][number % 8]
        yield make(chance, runs, place), place
        shutil.rmtree(place)


def faults_of(case: Case, answer: Answer, before: set[Path], place: Path) -> list[str]:
    """What is wrong with an answer."""
    told = [line for line in answer.err.splitlines() if line.strip()]
    faults = [f"an answer after {answer.seconds:.0f} s"] if answer.seconds > SECONDS else []
    if "Traceback" in answer.err or "this is a bug" in answer.err:
        faults.append(f"traceback: {told[-2] if len(told) > 1 else told}")
    if answer.code not in (0, 2):
        faults.append(f"exit code {answer.code}")
    if answer.code == 2 and not told:
        faults.append("no message")
    left = {p for p in place.rglob("*") if p.is_file()} - before
    if any(".partial" in p.name for p in left):
        faults.append(f"half-written: {sorted(p.name for p in left if '.partial' in p.name)}")
    if answer.code == 2 and {p for p in left if p.name != "config.yaml"}:
        faults.append(f"files in spite of a refusal: {sorted(p.name for p in left)}")
    if answer.code == 0 and case.arguments[0] == "predict":
        faults += _not_finite(case.made)
    return faults


def check(runs: Runs, folder: Path, seed: int, wanted: list[int]) -> list[str]:
    """One line for each of these cases that is not answered as it should be."""
    found = []
    for case, place in cases(runs, folder, seed, wanted):
        before = {p for p in place.rglob("*") if p.is_file()}
        answer = ask(case.arguments)
        for fault in faults_of(case, answer, before, place):
            found.append(f"{place.name} ({case.name}): {' '.join(case.arguments)[:300]}: {fault}")
    return found


def _not_finite(path: Path) -> list[str]:
    if not path.exists():
        return ["no answers"]
    table = pa_csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    numbers = [c for c in table.column_names if pa.types.is_floating(table.schema.field(c).type)]
    wrong = [c for c in numbers if not np.isfinite(table[c].drop_null().to_numpy()).all()]
    return [f"answers that are not finite: {wrong}"] if wrong else []


# ---- files


def _spoil_cells(chance: random.Random, header: list[str], rows: list[list[Any]]) -> str:
    """Change cells, rows or columns in place; returns what was changed."""
    row, column = chance.randrange(len(rows)), chance.randrange(len(header))
    cells = ("abc", "", " ", "nan", "NaN", "inf", "-inf", "1e39", "1e400", "0x10", "1_000", "１",
             "1,5", '"', '"x', "\n", "é", "=1+1", "1 2", "--", "1e", "∞", "-0", "00", "a" * 200_000,
             "None", "TRUE", "2024-01-01")  # fmt: skip
    how = chance.choice(
        ["cell", "cell", "cell", "column", "ragged", "twice", "name", "ids", "rows"]
    )
    if how == "cell":
        rows[row][column] = chance.choice(cells)
        return f"cell {str(rows[row][column])[:20]!r}"
    if how == "column":
        header.pop(column)
        for each in rows:
            each.pop(column)
    elif how == "ragged":
        rows[row] = rows[row][:-1] if chance.random() < 0.5 else [*rows[row], 1]
    elif how == "twice":
        header[column] = header[column - 1]
    elif how == "name":
        header[column] = chance.choice(["", "ID", " id", "x" * 5000, "a,b", '"', "é", "\t"])
    elif how == "ids":
        for each in rows:
            each[0] = chance.choice(["a", "b"])
    else:
        del rows[chance.randrange(1, 3) - 1 :]
    return how


def _spoil_bytes(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Other bytes, and what was done to them."""
    place = chance.randrange(max(len(data), 1))
    text = data.decode("latin-1")
    ways: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "blank": lambda: b"\n \n\r\n",
        "cut": lambda: data[:place],
        "flipped": lambda: data[:place] + bytes(b ^ 255 for b in data[place : place + 1])
        + data[place + 1 :],
        "zeros": lambda: data[:place] + b"\0" * 9 + data[place:],
        "noise": lambda: chance.randbytes(500),
        "latin-1": lambda: data[:place] + b"\xe9" + data[place:],
        "utf-16": lambda: text.encode("utf-16"),
        "utf-16 without a mark": lambda: text.encode("utf-16-le"),
        "carriage returns": lambda: data.replace(b"\n", b"\r"),
        "header": lambda: data.partition(b"\n")[0],
        "quotes": lambda: data[:place] + b'"' + data[place:],
        "wide": lambda: b",".join(b"c%d" % i for i in range(100_000)) + b"\n" + b"1,1," * 49_999
        + b"1,1\n",
        "long line": lambda: b"x" * 3_000_000,
        "gzip": lambda: gzip.compress(data, mtime=0),
        "twice": lambda: data + data,
        "pickle": lambda: b"\x80\x04\x95" + data,
        "as it is": lambda: data,
    }  # fmt: skip
    way = chance.choice(list(ways))
    return ways[way](), way


def _write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """A table in the format of the suffix; what a format cannot hold is left out."""
    name = path.name.lower()
    if ".csv" in name or ".tsv" in name:
        sign = "\t" if ".tsv" in name else ","
        text = "\n".join(sign.join(map(str, row)) for row in [header, *rows]) + "\n"
        data = text.encode("utf-8", "surrogatepass")
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return
    columns: dict[str, Any] = {}
    for i, key in enumerate(header):
        values = [row[i] if i < len(row) else None for row in rows]
        same = len({isinstance(v, str) for v in values}) == 1
        columns[key] = values if same else list(map(str, values))
    if name.endswith(".parquet"):
        pq.write_table(pa.table(columns), path)
    else:
        np.savez(path, **{k or "none": np.array(v) for k, v in columns.items()})


def _place_for(chance: random.Random, place: Path, names: list[str]) -> Path:
    return place / chance.choice(names)


TABLE_NAMES = ["t.csv", "t.csv", "t.tsv", "t.csv.gz", "t.parquet", "t.npz", "t.CSV"]


def _spoilt_table(
    chance: random.Random, path: Path, header: list[str], rows: list[list[Any]]
) -> str:
    """Write a table with cells or bytes changed, or something that is no file."""
    how = chance.random()
    if how < 0.08:
        path.mkdir()
        return "folder"
    told = _spoil_cells(chance, header, rows) if how < 0.6 else ""
    _write(path, header, rows)
    if not told:
        data, told = _spoil_bytes(chance, path.read_bytes())
        path.write_bytes(data)
    return told


def _predict(run: Path, source: Path | str, place: Path) -> list[str]:
    return ["predict", str(run), str(source), "--out", str(place / "answers.parquet")]


def _table_case(chance: random.Random, runs: Runs, place: Path) -> Case:
    named = chance.random() < 0.5
    path = _place_for(chance, place, TABLE_NAMES)
    header = ["id", *(["x1", "x2"] if named else ["a", "b", "c", "d"])]
    rows = [[f"r{i}", *(chance.gauss(0, 1) for _ in header[1:])] for i in range(6)]
    told = _spoilt_table(chance, path, header, rows)
    if chance.random() < 0.05:
        path = chance.choice([place / f"{'n' * 300}.csv", place / "lost.csv", place / "t.txt"])
    run = runs.columns if named else runs.numbers
    return Case(f"{path.suffix} {told}", _predict(run, path, place), place / "answers.parquet")


def _array_case(chance: random.Random, runs: Runs, place: Path) -> Case:
    good = np.random.default_rng(chance.randrange(1000)).normal(size=(5, 4))
    arrays: dict[str, Any] = {
        "number": np.float64(3),
        "text": good.astype(str),
        "bytes": good.astype("S8"),
        "text of 0 axes": np.array("x"),
        "longdouble": good.astype(np.longdouble) * chance.choice([1, np.longdouble("1e4000")]),
        "complex": good + 1j,
        "objects": good.astype(object),
        "records": np.zeros(5, [("a", "f8"), ("b", "i4")]),
        "dates": np.zeros((5, 4), "M8[s]"),
        "half": good.astype(np.float16),
        "other byte order": good.astype(">f8"),
        "booleans": good > 0,
        "no rows": good[:0],
        "no columns": good[:, :0],
        "one axis": good[0],
        "three axes": good[None],
        "columns": good[:, :3],
        "nan": np.where(good == good.max(), np.nan, good),
        "infinite": np.where(good == good.max(), np.inf, good),
        "large": good * 1e39,
        "integers": (good * 1e18).astype(np.int64),
        "as it is": good,
    }
    name = chance.choice(list(arrays))
    if chance.random() < 0.5:
        path = place / "a.npy"
        np.save(path, arrays[name], allow_pickle=True)
        run = runs.numbers
    else:
        path, run = place / "a.npz", runs.columns
        more = {"id": np.arange(5).astype(str), "x2": good[:, 0]}
        first = arrays[name][:, 0] if np.ndim(arrays[name]) == 2 and name != "no columns" else None
        np.savez(path, allow_pickle=True, x1=arrays[name] if first is None else first, **more)
    told = name
    if chance.random() < 0.4:
        data, how = _spoil_bytes(chance, path.read_bytes())
        path.write_bytes(data)
        told += f", {how}"
    return Case(f"{path.suffix} {told}", _predict(run, path, place), place / "answers.parquet")


def _fasta_case(chance: random.Random, runs: Runs, place: Path) -> Case:
    path = _place_for(chance, place, ["p.fasta", "p.fa", "p.faa.gz", "p.FAS", "p.csv", "p.tsv.gz"])
    found = chance.sample(sequences(), 4)
    odd = ("", "*", "MK*LL", "M1K", "X" * 40, "ACGT" * 20, "é", "M K\tL", "mkv", "M-K..", ">", ";x",
           "\0", "M" * 100_000, "＞MK", "MKV*", "-", "\ufeffMKV")  # fmt: skip
    heads = (">", "> ", ">a b", ">p1", "", ">>x", "> p9", ">" + "n" * 100_000, ";c", ">é", "p")
    entries = [[f"p{i}", s] for i, s in enumerate(found)]
    told = "cells"
    if ".csv" in path.name or ".tsv" in path.name:
        header = ["acc", "seq"]
        entries[chance.randrange(4)][1] = chance.choice(odd)
        told = _spoilt_table(chance, path, header, entries)
    else:
        lines = [line for name, s in entries for line in (f">{name} made up", s[:20], s[20:])]
        for _ in range(chance.randrange(1, 3)):
            row = chance.randrange(len(lines))
            lines[row] = chance.choice(heads if lines[row].startswith(">") else odd)
        data = ("\n".join(lines) + "\n").encode()
        if chance.random() < 0.4:
            data, told = _spoil_bytes(chance, data)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        if path.suffix == ".gz" and chance.random() < 0.3:
            path.write_bytes(path.read_bytes()[: chance.randrange(40)])
    return Case(
        f"{path.name} {told}", _predict(runs.proteins, path, place), place / "answers.parquet"
    )


# ---- configurations of one's own

ODD: list[Any] = [None, True, 0, -1, 3.5, float("nan"), float("inf"), 2**70, "", "x", "é" * 400,
                  [], [1], ["x1", "x1"], [[]], {}, {"a": 1}, "nan", "../..", "/", "\0", [None],
                  ["id"], {"a": {"b": []}}, "2020-01-01", 1e308, "~", "x1"]  # fmt: skip


def _own_case(chance: random.Random, runs: Runs, place: Path) -> Case:
    del runs
    x, label = points()
    header = ["id", "x1", "x2", "label"]
    rows: list[list[Any]] = [[f"e{i}", *x[i].tolist(), CLASSES[label[i]]] for i in range(len(x))]
    said: list[list[Any]] = [
        [f"e{i}", *(0.5 * np.eye(3)[label[i]] + 0.5 / 3).tolist()] for i in range(len(x))
    ]
    columns = ["id", *CLASSES]
    examples = _place_for(chance, place, TABLE_NAMES)
    table = place / f"said-{chance.choice([*TABLE_NAMES[:5], 's.npz', 's.safetensors'])}"
    own: dict[str, Any] = {"features": ["x1", "x2"], "examples": examples.name}
    teacher: dict[str, Any] = {"table": table.name, "kind": "probs"}
    told = []
    which = chance.random()
    if which < 0.35:
        told.append("examples " + _spoilt_table(chance, examples, header, rows))
        _write_outputs(table, columns, said)
    else:
        _write(examples, header, rows)
        if which < 0.65:
            told.append("outputs " + _spoilt_outputs(chance, table, columns, said))
        else:
            _write_outputs(table, columns, said)
            keys = ["labels", "id", "features", "family", "split", "group", "classes", "missing",
                    "sequence", "encoder", "examples", "folder", "teachers"]  # fmt: skip
            more = ["kind", "class_map", "merge", "partial", "held_out", "variance", "id", "table",
                    "top", "reads", "factory", "onnx", "backbone", "hugging_face"]  # fmt: skip
            for _ in range(chance.randrange(1, 4)):
                target, key = chance.choice(
                    [(own, chance.choice(keys)), (teacher, chance.choice(more))]
                )
                target[key] = chance.choice(ODD)
                told.append(f"{key}: {target[key]!r}"[:60])
    if chance.random() < 0.2:
        own.pop("features", None)
    section = {"labels": "label", "teachers": {"old": teacher}} | own
    path = place / "my.yaml"
    path.write_text(yaml.safe_dump({"recipe": "own", **FAST, "own": section}))
    return Case(", ".join(told), ["teach", str(path), "--out", str(place / "run")], place / "run")


def _arrays_of(columns: list[str], rows: list[list[Any]]) -> dict[str, np.ndarray]:
    return {
        "ids": np.array([row[0] for row in rows]),
        "classes": np.array(columns[1:]),
        "values": np.array([row[1:] for row in rows], np.float64),
    }


def _write_outputs(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    held = _arrays_of(columns, rows) if path.suffix in (".npz", ".safetensors") else {}
    if path.suffix == ".npz":
        np.savez(path, **held)
    elif path.suffix == ".safetensors":
        metadata = {key: json.dumps(held[key].tolist()) for key in ("ids", "classes")}
        save_file({"values": held["values"]}, path, metadata)
    else:
        _write(path, columns, rows)


def _spoilt_outputs(
    chance: random.Random, path: Path, columns: list[str], rows: list[list[Any]]
) -> str:
    if path.suffix not in (".npz", ".safetensors"):
        return _spoilt_table(chance, path, columns, rows)
    if chance.random() < 0.4 or path.suffix == ".safetensors":
        _write_outputs(path, columns, rows)
        data, told = _spoil_bytes(chance, path.read_bytes())
        path.write_bytes(data)
        return told
    held: dict[str, Any] = dict(_arrays_of(columns, rows))
    key = chance.choice(list(held))
    odd = [np.float64(1), np.array([]), held[key][:-1], held[key].astype("S5"), held[key][None],
           held[key].astype(object), np.zeros((60, 3), complex), np.full((60, 3), np.nan),
           np.zeros((60, 3)), np.full((60, 3), 2.0), None]  # fmt: skip
    held[key] = chance.choice(odd)
    held |= chance.choice([{}, {"kept": np.zeros((60, 3))}, {"tail": np.ones(60)}, {"x": "y"}])
    np.savez(path, allow_pickle=True, **{k: v for k, v in held.items() if v is not None})
    return f"array {key}"


# ---- configurations, overrides and options

PATHS = ["seed", "chains", "recipe", "data", "scenario", "device", "baselines", "prior", "student",
         "prior.concentration", "prior.power", "prior.discount", "prior.evidence", "prior.weights",
         "student.hidden", "student.weight_scale", "map.epochs", "map.batch_size",
         "map.learning_rate", "sampler.engine", "sampler.burn_in", "sampler.draws", "predict",
         "sampler.thinning", "sampler.batch_size", "sampler.step_size", "sampler.temperature",
         "predict.level", "predict.point", "own", "own.labels", "backbones", "colour", "", ".",
         "seed.x", "student.hidden.0", "a.b.c.d"]  # fmt: skip
VALUES = ["[", "{", "{a: ", "'", "\t", "!!python/object:os.system x", "&a [*a]", "[10**9]", "-1",
          "1e400", ".inf", "-.inf", ".nan", "1e308", "1e30", "9223372036854775808", "true", "null",
          "", "~", "x", "[]", "[0]", "[-1]", "[[1]]", "{}", "{a: 1}", "2020-01-01", "0", "0.5",
          "[4, x]", "'1'", "é", "*a", "? x", "- a", "[1.5]", "1" * 30, "[" * 2000]  # fmt: skip


def _config_case(chance: random.Random, runs: Runs, place: Path) -> Case:
    del runs
    write_examples(place)
    write_table(place)
    path = write_config(place, {"old": {"table": "old.csv", "kind": "probs"}})
    arguments = ["run", str(path), "--out", str(place / "run")]
    told = []
    if chance.random() < 0.5:
        for _ in range(chance.randrange(1, 3)):
            sign = "=" if chance.random() < 0.95 else ""
            told.append(f"{chance.choice(PATHS)}{sign}{chance.choice(VALUES)}")
            arguments += ["--set", told[-1]]
    elif chance.random() < 0.5:
        data, how = _spoil_bytes(chance, path.read_bytes())
        path.write_bytes(data)
        told.append(how)
    else:
        values: dict[str, Any] = {"recipe": "own", **FAST, "own": {}}
        values |= yaml.safe_load(path.read_text())
        for _ in range(chance.randrange(1, 4)):
            target, key = values, chance.choice(list(values))
            if isinstance(values[key], dict) and values[key] and chance.random() < 0.6:
                target, key = values[key], chance.choice(list(values[key]))
            target[key] = chance.choice(ODD)
            told.append(f"{key}: {target[key]!r}"[:60])
        path.write_text(yaml.safe_dump(values, allow_unicode=True))
    return Case(", ".join(told)[:80], arguments, place / "run")


def _option_case(chance: random.Random, runs: Runs, place: Path) -> Case:
    source = place / "new.csv"
    source.write_text("id,x1,x2\na,1,2\n")
    (place / "folder.parquet").mkdir()
    outs = ["a.xlsx", "a", f"{'n' * 300}.csv", "no/such/a.csv", "folder.parquet", "new.csv", "",
            "a.csv/b.csv", "new.csv/b.csv", ".", "..", "a.PARQUET"]  # fmt: skip
    words = ["-1", "0", "x", "1.5", "nan", "inf", "", "9" * 30, "1e3", "--", "-"]
    out = str(place / "run")
    word = chance.choice(words)
    choices = [
        ["predict", str(runs.columns), str(source), "--out", str(place / chance.choice(outs))],
        ["predict", str(chance.choice([place, source, place / "no"])), str(source)],
        ["predict", str(runs.columns), str(source), "--level", word],
        ["run", "digits", "--seed", chance.choice(["-1", "x", "9" * 30, "1.5", ""]), "--out", out],
        ["run", "digits", "--out", str(source)],
        ["run", chance.choice(["digit", "", "x.yaml", str(place), "\n", "n" * 300, "/dev/null"])],
        ["teach", "digits", "--out", out, "--shard-rows", word],
        ["teach", "digits", "--out", out, "--most-failures", word],
        ["diagnose", str(runs.numbers), "--factor", chance.choice(["-1", "0", "x", "nan", "inf"])],
        ["diagnose", str(runs.numbers), "--reference", chance.choice(["x", "", "laplace"])],
        [chance.choice(["evaluate", "report", "diagnose"]), str(chance.choice([place, source]))],
        ["recipes", "copy", chance.choice(["x", "", "own"]), str(place / chance.choice(outs[2:6]))],
        ["data", "get", chance.choice(["x", ""]), "--to", str(source)],
        ["data", "list", "--to", chance.choice([str(source), "n" * 300])],
        [word or "x"],
        ["report"],
    ]
    arguments = chance.choice(choices)
    made = Path(arguments[-1]) if arguments[0] == "predict" else place / "run"
    return Case("options", arguments, made)


def main() -> None:
    """Run so many cases and print what is wrong."""
    first, last = int(sys.argv[2]) if len(sys.argv) > 2 else 0, int(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        runs = prepare(Path(name))
        found = check(runs, Path(name), 0, list(range(first, last)))
    print("\n".join(found))
    print(f"{last - first} inputs, {len(found)} faults", file=sys.stderr)


if __name__ == "__main__":
    main()
