"""The cache of features: nothing is computed twice, and nothing wrong is ever taken from it."""

import errno
import json
import multiprocessing
import os
import shutil

import pytest
import torch
from tiny_backbones import write_esm, write_t5

from mtbkd import files
from mtbkd.inputs import cache as caches
from mtbkd.inputs.models import digest_of
from mtbkd.inputs.proteins.backbone import load_backbone
from mtbkd.inputs.proteins.embedding import embed
from mtbkd.inputs.proteins.source import find_protein_model
from mtbkd.types import InputError

pytest.importorskip("transformers")

PROTEINS = ["MKVLA", "ACDE", "MKVLA", "WYTSR", "GGH"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_esm(tmp_path_factory.mktemp("models") / "esm")


@pytest.fixture(scope="module")
def plain(folder):
    return embed(load_backbone(folder, device="cpu"), PROTEINS)


def counted(folder, **settings):
    """A backbone, and the list of how many proteins each of its calls was shown."""
    backbone, calls = load_backbone(folder, device="cpu", **settings), []
    loaded = backbone.loaded

    def hidden(tokens, mask):
        calls.append(len(tokens))
        return loaded.hidden(tokens, mask)

    backbone.__dict__["loaded"] = type(loaded)(loaded.alphabet, hidden)
    return backbone, calls


def shards(cache):
    return sorted((cache / "features").glob("*/*.safetensors"))


def test_a_second_run_asks_no_model(folder, plain, tmp_path):
    backbone, calls = counted(folder)
    torch.testing.assert_close(embed(backbone, PROTEINS, cache=tmp_path), plain)
    assert sum(calls) == 4  # one protein comes twice
    fresh = load_backbone(folder, device="cpu")
    found = embed(fresh, PROTEINS[::-1], cache=tmp_path)
    assert "loaded" not in fresh.__dict__
    torch.testing.assert_close(found.flip(0), plain)
    assert "loaded" not in fresh.__dict__


def test_only_new_proteins_are_computed(folder, tmp_path):
    backbone, calls = counted(folder)
    told = []
    embed(backbone, PROTEINS, cache=tmp_path)
    calls.clear()
    new = embed(backbone, ["NEW", "ACDE"], cache=tmp_path, report=lambda *t: told.append(t[1:]))
    assert calls == [1]
    assert told == [(1, 2), (2, 2)]
    torch.testing.assert_close(new, embed(backbone, ["NEW", "ACDE"]), rtol=0, atol=1e-5)


def test_models_limits_and_precisions_never_share(folder, tmp_path):
    models = [
        load_backbone(folder, device="cpu"),
        load_backbone(folder, device="cpu", limit=6),
        load_backbone(folder, device="cpu", precision="bfloat16"),
        load_backbone(write_esm(tmp_path / "a" / "esm", seed=1), device="cpu"),
        load_backbone(write_t5(tmp_path / "t5"), device="cpu"),
        load_backbone(write_t5(tmp_path / "other", seed=1), device="cpu"),
    ]
    assert len({model.key() for model in models}) == len(models)
    copied = shutil.copytree(folder, tmp_path / "copy")
    assert load_backbone(copied, device="cpu").key() == models[0].key()
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-5] ^= 1  # one bit of one weight
    (copied / "model.safetensors").write_bytes(weights)
    assert load_backbone(copied, device="cpu").key() != models[0].key()
    for model in models:
        expected = embed(model, PROTEINS)
        torch.testing.assert_close(embed(model, PROTEINS, cache=tmp_path / "c"), expected)
        torch.testing.assert_close(embed(model, PROTEINS, cache=tmp_path / "c"), expected)


def test_the_digest_of_large_files_is_remembered_until_they_change(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mtbkd.inputs.models._LARGE", 1)
    monkeypatch.setattr("mtbkd.inputs.models._SETTLED", -1.0)
    mine = shutil.copytree(folder, tmp_path / "model")
    first = digest_of(find_protein_model(mine), tmp_path / "digests")
    notes = list((tmp_path / "digests").iterdir())
    assert len(notes) == 4
    for note in notes:
        note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": "remembered"}))
    assert digest_of(find_protein_model(mine), tmp_path / "digests") != first
    (mine / "model.safetensors").write_bytes((mine / "model.safetensors").read_bytes())
    for note in notes:
        if json.loads(note.read_text())["file"].endswith("model.safetensors"):
            digest_of(find_protein_model(mine), tmp_path / "digests")
            assert json.loads(note.read_text())["sha256"] != "remembered"
        else:
            note.write_text("{")
    assert digest_of(find_protein_model(mine), tmp_path / "digests") == first


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:-1] + b"x", lambda _: b""])
def test_damaged_files_are_told_and_computed_again(folder, plain, tmp_path, damage):
    backbone, calls = counted(folder)
    embed(backbone, PROTEINS, cache=tmp_path)
    embed(backbone, ["NEW"], cache=tmp_path)
    victim = max(shards(tmp_path), key=lambda path: path.stat().st_size)
    victim.write_bytes(damage(victim.read_bytes()))
    calls.clear()
    with pytest.warns(UserWarning, match=f"{victim.name} are damaged .* computed again"):
        found = embed(backbone, [*PROTEINS, "NEW"], cache=tmp_path)
    assert sum(calls) == 4
    torch.testing.assert_close(found[:5], plain, rtol=0, atol=1e-5)
    calls.clear()
    embed(backbone, [*PROTEINS, "NEW"], cache=tmp_path)
    assert not calls


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_one_message(folder, plain, tmp_path, monkeypatch, code):
    backbone, _ = counted(folder)
    embed(backbone, PROTEINS, cache=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_sync", full)
    message = "no space left on the disk. Free" if code == errno.ENOSPC else "Permission denied"
    with pytest.raises(InputError, match=message) as caught:
        embed(backbone, [*PROTEINS, "NEW"], cache=tmp_path)
    assert "MTBKD_CACHE" in str(caught.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    monkeypatch.undo()
    found = embed(load_backbone(folder, device="cpu"), PROTEINS, cache=tmp_path)
    torch.testing.assert_close(found, plain)


def test_what_killed_processes_left_is_removed(folder, tmp_path):
    backbone, _ = counted(folder)
    embed(backbone, ["MKV"], cache=tmp_path)
    old, young = (shards(tmp_path)[0].parent / f".{n}.partial" for n in "ab")
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    embed(backbone, ["MKV"], cache=tmp_path)
    assert not old.exists()
    assert young.exists()


def _writer(folder, number):
    features = torch.full((1, 4), float(number))
    for i in range(30):
        caches.keep(folder, [caches.key_of(f"{number}-{i}")], features)
        caches.keep(folder, [caches.key_of(f"both-{i}")], torch.ones(1, 4))


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_writer, args=(tmp_path, n)) for n in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    keys = [caches.key_of(f"{n}-{i}") for n in (1, 2, 3) for i in range(30)]
    features, found = caches.recall(tmp_path, [*keys, caches.key_of("never")], 4)
    assert found[:-1].all()
    assert not found[-1]
    assert features[::30, 0].tolist() == [1.0, 2.0, 3.0, 0.0]
    assert not list(tmp_path.glob(".*"))


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path))
    assert caches.cache_root() == tmp_path
    monkeypatch.delenv("MTBKD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert "mtbkd" in str(caches.cache_root())
