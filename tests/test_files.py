"""The one way to disk."""

import errno
import os

import pytest
import torch
from safetensors.torch import load_file

from mtbkd import InputError
from mtbkd.files import (
    load_tensors,
    read_json,
    read_sealed,
    replacing,
    save_json,
    save_rows,
    save_sealed,
    save_tensors,
    sha256_of,
    write_bytes,
)

TENSORS = {
    "single": torch.arange(12.0).reshape(3, 4),
    "none": torch.zeros(0, 3),
    "number": torch.tensor(2.5, dtype=torch.float64),
    "mask": torch.tensor([True, False]),
    "half": torch.arange(10.0).reshape(5, 2).half().T,
    "brain": torch.ones(3, dtype=torch.bfloat16),
    "one of many": torch.ones(1).expand(4),
    "state": torch.arange(7, dtype=torch.uint8),
}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_tensors_come_back_and_other_readers_read_them(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    save_tensors(path, TENSORS)
    for found in (load_tensors(path), load_tensors(path, sha256_of(path)), load_file(path)):
        assert set(found) == set(TENSORS)
        for name, tensor in TENSORS.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
    assert names(path.parent) == ["x.safetensors"]


def test_rows_are_those_of_the_whole(tmp_path):
    path, whole = tmp_path / "x.safetensors", TENSORS["single"]
    save_rows(path, "single", 3, whole.split(2))
    split = path.read_bytes()
    save_tensors(path, {"single": whole})
    assert path.read_bytes() == split


def test_every_bit_of_a_file_of_tensors_counts(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {name: TENSORS[name] for name in ("single", "mask")})
    content = path.read_bytes()
    for position in range(8 * len(content)):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"x.safetensors as it was written, but"):
            load_tensors(path)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"x.safetensors as it was written, but"):
            load_tensors(path)


def test_one_file_is_not_taken_for_another(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_tensors(tmp_path / f"{name}.safetensors", {"x": torch.tensor(value)})
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"b.safetensors as it was written, but got other bytes"):
        load_tensors(tmp_path / "b.safetensors")


def test_every_bit_of_sealed_json_counts(tmp_path):
    path, record = tmp_path / "x.json", {"a": [1, None, "Ä"], "b": {"c": 0.1}}
    save_sealed(path, record)
    assert read_sealed(path) == record
    content = path.read_bytes()
    for position in range(8 * len(content)):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"x.json as it was written, but"):
            read_sealed(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "it is missing. Run the same command again."),
        (b"", "it is empty. Delete it and run the same command again."),
        (b"{", "got Expecting"),
        (b"[" * 100_000, "got maximum recursion"),
        (b"\xff\xfe{}", "got "),
    ],
)
def test_why_a_file_cannot_be_read_is_told(content, told, tmp_path):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    for read in (read_json, read_sealed, load_tensors):
        if read is load_tensors and content is not None:
            told = "it is empty" if not content else "got "
        with pytest.raises(InputError, match=rf"Expected .*x.json as it was written, but {told}"):
            read(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="but got Is a directory"):
        load_tensors(tmp_path)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOSPC, "there is no space left on the disk. Free some space, or choose another"),
        (errno.EROFS, "got: Read-only file system. Make it writable, or choose another place."),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(code, told, tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    save_json(path, 1)
    before = path.read_bytes()

    def fail(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=f"Expected to write {path}, but {told}"):
        save_json(path, 2)
    assert (names(tmp_path), path.read_bytes()) == (["x.json"], before)


def test_a_name_that_is_too_long_is_told(tmp_path):
    with pytest.raises(InputError, match="but its name is too long. Choose a shorter one, or"):
        write_bytes(tmp_path / ("x" * 300), b"")
    assert names(tmp_path) == []


def test_nothing_is_left_where_the_writer_fails(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "x") as partial:  # noqa: PT012
        partial.write_bytes(b"half")
        raise RuntimeError
    assert names(tmp_path) == []


def test_bytes_are_on_disk_before_they_have_the_name(tmp_path, monkeypatch):
    """After a power cut a name never stands for bytes that were not yet there."""
    path, seen = tmp_path / "x", []
    real = os.fsync

    def look(handle):
        seen.append((os.readlink(f"/proc/self/fd/{handle}"), path.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", look)
    write_bytes(path, b"1")
    assert seen == [(str(tmp_path / ".x.partial"), False), (str(tmp_path), True)]


def test_a_file_of_this_name_is_replaced_as_everywhere(tmp_path, monkeypatch):
    """Windows renames onto no file that exists."""

    def rename(self, target):
        raise FileExistsError(target)

    monkeypatch.setattr("pathlib.Path.rename", rename)
    for content in (b"1", b"2"):
        write_bytes(tmp_path / "x", content)
    assert (tmp_path / "x").read_bytes() == b"2"
