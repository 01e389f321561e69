"""The store: round trips, mapped tensors, sizes, streaming, and damage that is found."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtbkd.files import sealed
from mtbkd.outputs.aligned import align, make_table, make_top_table
from mtbkd.outputs.store import align_to, load_outputs, save_outputs
from mtbkd.types import InputError

IDS, CLASSES = tuple(f"x{i}" for i in range(60)), ("cat", "dog", "cow", "hen")
FILES = ["ids.parquet", "manifest.json", "outputs.safetensors"]


def tables(family, seed=0):
    generator = np.random.default_rng(seed)
    kind = "mean" if family == "regression" else "logits"
    settings = {"kind": kind, "family": family}
    values = generator.normal(size=(60, 4)) * 3
    rows, columns = generator.permutation(60)[:41], [2, 0, 3]
    few = {
        "ids": [IDS[i] for i in rows],
        "classes": [CLASSES[i] for i in columns],
        "partial": True,
        "held_out": False,
    }
    variance = {"variance": 0.5} if family == "regression" else {}
    return [
        make_table("ann", values, ids=IDS, classes=CLASSES, **settings, **variance),
        make_table("bob", values[rows][:, columns] + 1, **few, **settings),
    ]


def mixed():
    generator = np.random.default_rng(1)
    probs = -np.sort(-generator.dirichlet([0.5] * 4, 60))
    kept = np.array([generator.permutation(4)[:2] for _ in IDS])
    whole = tables("classification")[0]
    few = make_top_table(
        "cid", probs[:, :2], kept, probs[:, 2:].sum(1), kind="probs", ids=IDS, classes=CLASSES
    )
    return [whole, few]


CASES = {
    "classification": (lambda: tables("classification"), None),
    "multilabel": (lambda: tables("multilabel"), None),
    "regression": (lambda: tables("regression"), None),
    "top": (mixed, 3),
}


def same(first, second):
    torch.testing.assert_close(first.values, second.values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(first.mask, second.mask)
    for name in ("blocks", "kept"):
        ours, theirs = getattr(first, name), getattr(second, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)
    for name in ("names", "ids", "classes", "held_out", "family"):
        assert getattr(first, name) == getattr(second, name)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_round_trip(tmp_path, case, dtype):
    make, top = CASES[case]
    outputs = align(make(), IDS, CLASSES, missing="mask", top=top)
    save_outputs(tmp_path, outputs, dtype)
    loaded = load_outputs(tmp_path)
    same(loaded, replace(outputs, values=outputs.values.to(getattr(torch, dtype))))
    assert loaded.blocks is None or loaded.blocks.dtype == torch.int16
    assert sorted(contents(tmp_path)) == FILES


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_streaming_writes_the_same_bytes(tmp_path, case, dtype, monkeypatch):
    make, top = CASES[case]
    save_outputs(tmp_path / "a", align(make(), IDS, CLASSES, missing="mask", top=top), dtype)
    monkeypatch.setattr("mtbkd.outputs.pieces._PIECE", 28)
    align_to(tmp_path / "b", make(), IDS, CLASSES, missing="mask", top=top, dtype=dtype)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_store_can_be_written_over_while_it_is_mapped(tmp_path):
    outputs = align(mixed(), IDS, CLASSES)
    save_outputs(tmp_path, outputs)
    save_outputs(tmp_path, load_outputs(tmp_path).at(IDS[10:30]), "float16")
    again = load_outputs(tmp_path)
    same(again, replace(outputs.at(IDS[10:30]), values=outputs.values[:, 10:30].half()))


def test_many_classes_take_wider_integers(tmp_path):
    classes = tuple(map(str, range(2**15)))
    table = make_top_table(
        "ann", [[0.5]], [[2**15 - 1]], [0.5], kind="probs", ids=("a",), classes=classes
    )
    outputs = align([table], ("a",), classes)
    assert outputs.kept is not None
    assert outputs.kept.dtype == torch.int32
    for dtype in ("float32", "float16"):
        save_outputs(tmp_path, outputs, dtype)
        kept = load_outputs(tmp_path).kept
        assert kept is not None
        assert kept.dtype == torch.int32
        assert kept.tolist() == [[[2**15 - 1]]]


def test_padding_takes_no_probability():
    kept, classes = np.full((1, 5_000), -1), tuple(map(str, range(5_000)))
    kept[0, :2] = 7, 3
    values = np.where(kept < 0, np.nan, 0.5)
    table = make_top_table("ann", values, kept, [0], kind="probs", ids=("a",), classes=classes)
    assert table.values[0, :2].exp().tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_ten_thousand_classes_cut_to_32_are_small(tmp_path, dtype):
    generator = torch.Generator().manual_seed(0)
    ids, classes = tuple(f"example{i:07}" for i in range(5_000)), tuple(map(str, range(10_000)))
    kept = torch.randint(9_000, (5_000, 1), generator=generator) + torch.arange(32)
    values = torch.rand(5_000, 32, generator=generator) / 32
    table = make_top_table(
        "ann", values, kept, 1 - values.sum(1), kind="probs", ids=ids, classes=classes
    )
    align_to(tmp_path, [table], ids, classes, dtype=dtype)
    sizes = {name: len(content) for name, content in contents(tmp_path).items()}
    assert 10 * (sizes[FILES[0]] + sizes[FILES[2]]) + sizes[FILES[1]] <= 16e6


MEMORY = """
import resource, sys, torch
from pathlib import Path
from mtbkd.outputs import TeacherTable
from mtbkd.outputs.store import align_to, load_outputs
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(l.split()[1]) / 1024 for l in lines if l.startswith("RssAnon"))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
folder, rows, classes = Path(sys.argv[1]), 20_000, tuple(map(str, range(1_000)))
ids = tuple(map(str, range(rows)))
values = torch.full((1, 1), -6.9).expand(rows, 1_000)
table = TeacherTable("ann", values, ids, classes)
before = peak()
align_to(folder, [table, TeacherTable("bob", values, ids, classes)], ids, classes)
wrote = peak() - before
before = anonymous()
outputs = load_outputs(folder)
loaded = anonymous() - before
part = outputs.at(ids[100:200])
print(outputs.values.numel() * 4 / 2**20, wrote, loaded, part.values.sum().item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_neither_writing_nor_loading_holds_the_values_in_memory(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    size, wrote, loaded, total = map(float, run.stdout.split())
    assert size > 150
    assert wrote < 60
    assert loaded < 20
    assert total == pytest.approx(-6.9 * 2 * 100 * 1000, rel=1e-4)


def test_values_that_half_precision_cannot_hold_are_refused_and_nothing_is_left(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("mtbkd.outputs.pieces._PIECE", 1)
    table = make_table(
        "ann", [[1.0], [7e4]], kind="mean", ids=("a", "b"), classes=("y",), family="regression"
    )
    message = "Expected values of teacher 'ann' that half precision holds, but got 7e.04 for id 'b'"
    with pytest.raises(InputError, match=message):
        align_to(tmp_path, [table], ("a", "b"), ("y",), dtype="float16")
    assert contents(tmp_path) == {}
    with pytest.raises(InputError, match="Expected dtype among float32, float16, but got 'int8'"):
        align_to(tmp_path, [table], ("a", "b"), ("y",), dtype="int8")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="Expected to write .*file/store/manifest.json, but got"):
        save_outputs(tmp_path / "file" / "store", align(mixed(), IDS, CLASSES))


@pytest.fixture
def stored(tmp_path):
    save_outputs(tmp_path / "store", align(mixed(), IDS, CLASSES))
    return tmp_path / "store"


@pytest.mark.parametrize("name", FILES)
def test_changed_file_is_refused(stored, name):
    content = bytearray((stored / name).read_bytes())
    content[-3] ^= 1
    (stored / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} .*and label again"):
        load_outputs(stored)


@pytest.mark.parametrize("name", FILES)
def test_incomplete_store_is_refused(stored, name):
    (stored / name).unlink()
    with pytest.raises(InputError, match=f"{name} as it was written, but it is missing. Delete"):
        load_outputs(stored)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"sha256": ', "[" * 100_000])
def test_broken_manifest_is_refused(stored, content):
    (stored / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="manifest.json as it was written, but .*and label again"):
        load_outputs(stored)


def test_files_of_two_stores_are_not_one(stored, tmp_path):
    manifest = json.loads((stored / "manifest.json").read_bytes())
    manifest.pop("own_sha256")
    (stored / "manifest.json").write_bytes(sealed(manifest | {"names": ["ann"]}))
    message = "Expected values of shape .1, 60, 3. in .*outputs.safetensors, as manifest.json says"
    with pytest.raises(InputError, match=message):
        load_outputs(stored)
