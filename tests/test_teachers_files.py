"""Outputs from CSV, Parquet, NPZ and safetensors files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from mtbkd.teachers.files import from_table, read_outputs
from mtbkd.types import InputError

IDS = ["007", "b", "c"]  # ids that look like numbers stay what they are
PROBS = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
CLASSES = ["cat", "dog", "3"]


def write(path, ids=IDS, values=PROBS, classes=CLASSES, **more):
    if path.suffix == ".csv":
        rows = [["id", *classes], *([key, *row] for key, row in zip(ids, values, strict=True))]
        path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    elif path.suffix == ".parquet":
        columns = {c: values[:, i] for i, c in enumerate(classes)}
        pq.write_table(pa.table({"id": ids} | columns), path)
    elif path.suffix == ".npz":
        np.savez(path, ids=np.array(ids), classes=np.array(classes), values=values, **more)
    else:
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in more.items()}
        tensors["values"] = torch.from_numpy(np.ascontiguousarray(values))
        save_file(tensors, path, {"ids": json.dumps(ids), "classes": json.dumps(classes)})
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz", "safetensors"])
def test_every_format_gives_the_same_table(tmp_path, suffix):
    path = write(tmp_path / f"t.{suffix}")
    table = from_table("t", path, kind="probs", held_out=False)
    assert table.ids == tuple(IDS)
    assert table.classes == tuple(CLASSES)
    assert not table.held_out
    assert torch.allclose(table.values.exp().double(), torch.from_numpy(PROBS), atol=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz", "safetensors"])
def test_faults_of_numbers_name_the_file(tmp_path, suffix):
    path = write(tmp_path / f"t.{suffix}", values=PROBS * 2)
    with pytest.raises(InputError, match=rf"t\.{suffix}: Expected probs of teacher 't' .* '007'"):
        from_table("t", path, kind="probs")
    write(path, ids=["b", "b", "c"])
    with pytest.raises(InputError, match=r"Expected every id once .* 'b' more than"):
        from_table("t", path, kind="probs")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=rf"t\.{suffix}"):
        from_table("t", path, kind="probs")
    path.unlink()
    with pytest.raises(InputError, match=rf"t\.{suffix}, but it is not there"):
        from_table("t", path, kind="probs")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_variances_of_targets(tmp_path, suffix):
    numbers = np.column_stack([PROBS[:, :2], PROBS[:, 1:]])
    names = ["u", "v", "variance.u", "variance.v"]
    path = write(tmp_path / f"t.{suffix}", values=numbers, classes=names)
    table = from_table("t", path, kind="mean", family="regression")
    assert table.classes == ("u", "v")
    assert torch.allclose(table.values[..., 0].double(), torch.from_numpy(PROBS[:, :2]))
    assert torch.allclose(table.values[..., 1].double().exp(), torch.from_numpy(PROBS[:, 1:]))
    write(path, values=numbers, classes=["u", "v", "variance.u", "w"])
    with pytest.raises(InputError, match="variance of every target in .* none of 'v'. Add the col"):
        from_table("t", path, kind="mean", family="regression")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_arrays_beside_the_values(tmp_path, suffix):
    kept = np.array([[0, 1], [1, 2], [2, 0]])
    tail = np.array([0.25, 0.1, 0.2])
    top = np.array([[0.5, 0.25], [0.8, 0.1], [0.6, 0.2]])
    path = write(tmp_path / f"t.{suffix}", values=top, kept=kept, tail=tail)
    table = from_table("t", path, kind="probs")
    assert table.kept.tolist() == kept.tolist()
    expected = torch.from_numpy(np.column_stack([top, tail]))
    assert torch.allclose(table.values.double().exp(), expected, atol=1e-6)
    write(path, values=top, kept=kept)
    with pytest.raises(InputError, match="Expected the tail mass of teacher 't'"):
        from_table("t", path, kind="probs")
    write(path, variance=PROBS + 1)
    table = from_table("t", path, kind="mean", family="regression")
    assert torch.allclose(table.values[..., 1].double().exp(), torch.from_numpy(PROBS + 1))


def test_half_precision_of_safetensors(tmp_path):
    metadata = {"ids": json.dumps(IDS), "classes": json.dumps(CLASSES)}
    save_file({"values": torch.from_numpy(PROBS).bfloat16()}, tmp_path / "t.safetensors", metadata)
    assert np.allclose(read_outputs(tmp_path / "t.safetensors").values, PROBS, atol=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,a,b\nx,1,2\ny,1,two\n", "in column 'b' of .*t.csv, but got 'two' for id 'y'"),
        ("id,a,b\nx,1,2\ny,,2\n", "in column 'a' of .*, but got NaN or an empty cell for id 'y'"),
        ("id,a,b\nx,1,2\ny,1\n", "Expected 3 cells in each row of .*t.csv, but got 2 in row 2"),
        ("id,a,a\nx,1,2\n", "every column once in .*t.csv, but got 'a' more than once"),
        ("key,a,b\nx,1,2\n", "a column 'id' of ids in .*t.csv, but got key, a, b"),
        ("id\nx\n", "a column for each class in .*t.csv, but got none"),
        ("", "t.csv"),
    ],
)
def test_faults_of_csv_files(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        from_table("t", path, kind="logits")


def test_several_faults_are_told_at_once_and_the_id_column_can_be_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufeffkey,a,b\nx,one,2\ny,1,two\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_outputs(path, id_column="key")
    assert len(caught.value.faults) == 2
    path.write_text("\ufeffkey,a,b\nx,1,2\n", encoding="utf-8")
    assert read_outputs(path, id_column="key").ids == ("x",)


def test_other_faults(tmp_path):
    with pytest.raises(InputError, match=r".csv, .tsv, .parquet, .npz, .safetensors \(text"):
        read_outputs(tmp_path / "t.pkl")
    table = pa.table({"id": ["x", "y"], "a": [1.0, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'a' of .*t.parquet, but got NaN or an empty cell"):
        read_outputs(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", ids=np.array([object()]), classes=["a"], values=[[1.0]])
    with pytest.raises(InputError, match="t.npz, but it cannot be read .*allow_pickle=False"):
        read_outputs(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", values=[[1.0]], classes=["a"])
    with pytest.raises(InputError, match="t.npz, but ids is missing"):
        read_outputs(tmp_path / "t.npz")
    save_file({"values": torch.zeros(1, 1)}, tmp_path / "t.safetensors", {"ids": '["x"]'})
    with pytest.raises(InputError, match="t.safetensors, .* but classes is missing"):
        read_outputs(tmp_path / "t.safetensors")
    with pytest.raises(InputError, match="wide.npz"):
        from_table("t", write(tmp_path / "wide.npz", classes=["cat", "dog"]), kind="probs")
