"""Labelling in shards: resumed after a kill, failures named, changed bytes refused."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mtbkd.outputs.aligned import make_table
from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.teachers.labelling.asking import Examples
from mtbkd.teachers.labelling.label import label, load_table
from mtbkd.types import InputError

ROWS = 103
INPUTS = np.random.default_rng(0).normal(size=(ROWS, 4))
IDS = [f"e{row}" for row in range(ROWS)]
WEIGHTS = np.random.default_rng(1).normal(size=(4, 3)) * 5
SOURCE = Examples(IDS, lambda start, stop: INPUTS[start:stop])
SETTINGS = {"shard_rows": 20, "batch_size": 8}


def logits(inputs):
    return np.asarray(inputs) @ WEIGHTS


def probs(inputs):
    return torch.from_numpy(logits(inputs)).softmax(-1)


def linear(function=logits, **declared) -> Teacher:
    declared = {"kind": "logits", "classes": "abc"} | declared
    return from_callable("linear", function, **declared)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("function", "kind"), [(logits, "logits"), (probs, "probs")])
def test_table_is_that_of_all_outputs_at_once(tmp_path, function, kind):
    table = label(linear(function, kind=kind), SOURCE, tmp_path, **SETTINGS)
    expected = make_table("linear", function(INPUTS), kind=kind, ids=IDS, classes="abc")
    assert table.ids == expected.ids
    assert table.classes == ("a", "b", "c")
    torch.testing.assert_close(table.values, expected.values, rtol=0, atol=2e-6)
    assert float(table.values.min()) < -15  # the floor was reached
    again = load_table(tmp_path)
    assert torch.equal(again.values, table.values)
    assert again.ids == table.ids
    assert len(list(tmp_path.glob("shard-*.safetensors"))) == 6
    assert not list(tmp_path.glob(".*"))


def test_a_teacher_may_use_its_memory_again(tmp_path):
    buffer = np.empty((8, 3))

    def reusing(inputs):
        buffer[: len(inputs)] = logits(inputs)
        return buffer[: len(inputs)]

    table = label(linear(reusing), SOURCE, tmp_path / "reusing", **SETTINGS)
    assert torch.equal(table.values, label(linear(), SOURCE, tmp_path / "new", **SETTINGS).values)


def test_families_and_half_precision(tmp_path):
    odds = linear(family="multilabel")
    table = label(odds, SOURCE, tmp_path / "labels", **SETTINGS, dtype="float16")
    assert table.values.dtype == torch.float16
    assert table.family == "multilabel"
    expected = torch.from_numpy(logits(INPUTS)).sigmoid()
    assert torch.allclose(table.values[..., 1].double().exp(), expected, atol=2e-3)
    both = linear(
        lambda x: (logits(x), np.abs(logits(x)) + 1),
        kind="mean",
        family="regression",
        variance=True,
    )
    table = label(both, SOURCE, tmp_path / "targets", **SETTINGS)
    assert torch.allclose(table.values[..., 0].double(), torch.from_numpy(logits(INPUTS)))
    log_variance = np.log(np.abs(logits(INPUTS)) + 1)
    assert torch.allclose(table.values[..., 1].double(), torch.from_numpy(log_variance), atol=1e-6)
    mean = linear(kind="mean", family="regression")
    assert label(mean, SOURCE, tmp_path / "mean").values[..., 1].isnan().all()
    huge = linear(lambda x: logits(x) * 1e6, kind="mean", family="regression")
    with pytest.raises(InputError, match="that float16 can hold, but got .*dtype='float32'"):
        label(huge, SOURCE, tmp_path / "huge", dtype="float16")


def test_most_probable_classes_only(tmp_path):
    table = label(linear(top=2), SOURCE, tmp_path, **SETTINGS)
    full = make_table("linear", logits(INPUTS), kind="logits", ids=IDS, classes="abc").values
    assert table.values.shape == (ROWS, 3)
    assert torch.equal(table.kept.long(), full.argsort(-1, descending=True)[:, :2])
    assert torch.allclose(table.values[:, :2], full.sort(-1, descending=True)[0][:, :2], atol=1e-5)
    assert torch.allclose(table.values.exp().sum(1), torch.ones(ROWS), atol=1e-5)


def fails_on(rows, error=True):
    bad = INPUTS[list(rows)]

    def function(inputs):
        hit = (np.asarray(inputs)[:, None] == bad[None]).all(-1).any(1)
        if error and hit.any():
            raise RuntimeError("no such protein")
        return np.where(hit[:, None], np.nan, logits(inputs))

    return function


@pytest.mark.parametrize("error", [True, False])
def test_rows_that_fail_are_missing_and_named(tmp_path, error):
    teacher = linear(fails_on([5, 41], error))
    table = label(teacher, SOURCE, tmp_path, **SETTINGS, most_failures=0.02)
    known = [row for row in range(ROWS) if row not in (5, 41)]
    assert table.ids == tuple(IDS[row] for row in known)
    expected = make_table("linear", logits(INPUTS), kind="logits", ids=IDS, classes="abc")
    torch.testing.assert_close(table.values, expected.values[known], rtol=0, atol=2e-6)
    named = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [(n["id"], n["row"], n["shard"]) for n in named] == [("e5", 5, 0), ("e41", 41, 2)]
    assert named[0]["error"] == ("RuntimeError: no such protein" if error else "NaN or infinity")
    assert load_table(tmp_path).ids == table.ids


def test_too_many_failures_stop_and_keep_what_is_finished(tmp_path):
    with pytest.raises(
        InputError,
        match=r"at most 1.00% of the rows to fail for teacher 'linear', but 2 of 100 did; the "
        r"first: RuntimeError: no such protein for id 'e5'",
    ):
        label(linear(fails_on([5, 97])), SOURCE, tmp_path, **SETTINGS)
    assert len(list(tmp_path.glob("shard-*"))) == 4
    with pytest.raises(InputError, match="Mend the teacher or these examples and delete"):
        label(linear(fails_on([5, 97])), SOURCE, tmp_path, **SETTINGS)
    assert len(label(linear(), SOURCE, tmp_path, **SETTINGS, most_failures=0.02).ids) == ROWS - 1
    always = linear(fails_on(range(ROWS)))
    with pytest.raises(InputError, match="but every row failed; the first: RuntimeError"):
        label(always, SOURCE, tmp_path / "always", **SETTINGS, most_failures=1.0)


def test_too_few_rows_are_not_judged_before_the_end(tmp_path):
    few = Examples(IDS[:30], SOURCE.read)
    with pytest.raises(InputError, match="but 1 of 30 did"):
        label(linear(fails_on([0])), few, tmp_path, **SETTINGS)
    assert len(list(tmp_path.glob("shard-*"))) == 2


def test_a_width_that_changes_always_stops(tmp_path):
    narrow = linear(lambda x: logits(x)[:, : 3 - (len(x) != 8)])
    with pytest.raises(InputError, match="3 columns .* in every batch, .* 2 in rows 16 to 19"):
        label(narrow, SOURCE, tmp_path, **SETTINGS, most_failures=1.0)
    short = linear(lambda x: logits(x)[1:])
    with pytest.raises(InputError, match="the first: ValueError: 0 rows for 1 example"):
        label(short, SOURCE, tmp_path / "short", **SETTINGS)


def test_other_teachers_and_other_data_are_refused(tmp_path):
    label(linear(), SOURCE, tmp_path, **SETTINGS)
    before = files(tmp_path)
    other = replace(linear(), fingerprint="trained again", held_out=False)
    with pytest.raises(InputError) as caught:
        label(other, SOURCE, tmp_path, **SETTINGS)
    assert [f.split(", but")[0].rsplit("with ")[1] for f in caught.value.faults] == [
        "held_out True",
        "fingerprint ''",
    ]
    with pytest.raises(InputError, match=r"labels in .*, but ids differ"):
        label(linear(), Examples(IDS[::-1], SOURCE.read), tmp_path, **SETTINGS)
    with pytest.raises(InputError, match="but shard_rows differ: 20 there and 30 now"):
        label(linear(), SOURCE, tmp_path, shard_rows=30)
    assert files(tmp_path) == before
    with pytest.raises(InputError, match="different ids, but got 'b' more than once"):
        Examples(["a", "b", "b"], SOURCE.read)
    with pytest.raises(InputError, match="Declare one of them"):
        label(linear(kind="percent"), SOURCE, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_harmed_shard_is_named_and_labelled_again(tmp_path, harm):
    label(linear(), SOURCE, tmp_path, **SETTINGS)
    before = files(tmp_path)
    shard = tmp_path / "shard-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-30] ^= 1
    shard.unlink() if harm == "delete" else shard.write_bytes(
        data[: None if harm == "flip" else -9]
    )
    with pytest.raises(InputError, match=r"Expected .*shard-00002.*Delete it and label again"):
        load_table(tmp_path)
    if harm != "delete":
        with pytest.raises(InputError, match=r"shard-00002.*bytes were changed.*Delete it"):
            label(linear(), SOURCE, tmp_path, **SETTINGS)
        shard.unlink()
    asked = []
    label(linear(lambda x: (asked.append(len(x)), logits(x))[1]), SOURCE, tmp_path, **SETTINGS)
    assert sum(asked) == 20
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["journal.jsonl", "ids.arrow", "values.safetensors"])
def test_a_flipped_bit_is_found_in_every_other_file(tmp_path, name):
    table = label(linear(), SOURCE, tmp_path, **SETTINGS)
    path = tmp_path / name
    good = path.read_bytes()
    values = table.values.clone()  # before its file changes
    for position in np.random.default_rng(2).integers(len(good), size=25):
        data = bytearray(good)
        data[position] ^= 4
        path.write_bytes(data)
        if name == "values.safetensors":  # made of the shards, so it is made again
            assert torch.equal(load_table(tmp_path).values, values)
            assert path.read_bytes() == good
        else:
            with pytest.raises(InputError, match=name):
                load_table(tmp_path)


def test_unfinished_labels_are_not_loaded(tmp_path):
    with pytest.raises(InputError, match="there are none. Label first"):
        load_table(tmp_path)
    label(linear(), SOURCE, tmp_path, **SETTINGS)
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:9])
    with pytest.raises(InputError, match="Expected 6 shards in .*, but 5 are finished"):
        load_table(tmp_path)


def test_values_are_mapped_and_progress_is_told(tmp_path):
    told = []
    table = label(linear(), SOURCE, tmp_path, **SETTINGS, report=lambda *t: told.append(t))
    assert told == [("linear", n, ROWS) for n in (0, 20, 40, 60, 80, 100, 103)]
    if Path("/proc/self/maps").exists():
        assert str(tmp_path / "values.safetensors") in Path("/proc/self/maps").read_text()
    assert table.values.shape == (ROWS, 3)


SCRIPT = """
import sys, time
from pathlib import Path
from test_labelling import SETTINGS, SOURCE, fails_on, label, linear
log = open(sys.argv[2], "a")
function = fails_on([5, 41])
def slow(x):
    print(len(x), file=log, flush=True)
    time.sleep(0.002)
    return function(x)
label(linear(slow), SOURCE, Path(sys.argv[1]), **SETTINGS, most_failures=0.5)
"""


def run(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    where = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]
    script = f"import sys; sys.path[:0] = {where!r}\n{SCRIPT}"
    return subprocess.Popen([sys.executable, "-c", script, str(folder), str(log)])


def test_killed_at_any_moment_and_resumed_ends_in_the_same_bytes(tmp_path):
    calm = tmp_path / "calm"
    assert run(calm, tmp_path / "calm.log").wait() == 0
    rows = [int(line) for line in (tmp_path / "calm.log").read_text().split()]
    killed, log = tmp_path / "killed", tmp_path / "killed.log"
    log.touch()
    stops, kills, before = iter([6, 30]), 0, 0
    while True:
        process, stop = run(killed, log), next(stops, None)
        while stop and process.poll() is None and log.read_bytes().count(b"\n") < before + stop:
            time.sleep(0.0005)
        if stop is None or process.poll() is not None:
            assert process.wait() == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills, before = kills + 1, log.read_bytes().count(b"\n")
    assert kills == 2
    assert files(killed) == files(calm)
    # a batch that raises is asked again row by row, so a shard of 20 rows takes 36 at most
    asked = sum(int(line) for line in log.read_text().split())
    assert sum(rows) <= asked <= sum(rows) + kills * 36


def test_a_class_map_is_applied_before_it_is_stored(tmp_path):
    pets = linear(class_map={"a": "pet", "b": "pet", "c": ["emu", "ostrich"]}, merge=True)
    table = label(pets, SOURCE, tmp_path, **SETTINGS)
    assert table.classes == ("pet", "c")
    assert dict(table.covers) == {"c": ("emu", "ostrich")}
    pet = probs(INPUTS)[:, :2].sum(1)
    assert torch.allclose(table.values[:, 0].double().exp(), pet, atol=1e-5)
    assert load_table(tmp_path).covers == table.covers
    other = replace(pets, merge=False, class_map={"b": None})
    with pytest.raises(InputError, match="with class_map"):
        label(other, SOURCE, tmp_path, **SETTINGS)
