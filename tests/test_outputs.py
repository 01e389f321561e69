"""Teacher outputs: declared kinds, alignment by name, the store, and a message for each fault."""

import re

import numpy as np
import pytest
import torch

from mtbkd.outputs import LOG_FLOOR, align, load_outputs, make_table, save_outputs
from mtbkd.types import InputError

IDS, CLASSES = ("p", "q", "r", "s"), ("cat", "dog", "cow")
LOGITS = np.array([[0.3, -1.2, 2.0], [1.0, 1.0, 1.0], [-4.0, 0.1, 0.0], [2.5, 0.0, -0.5]])
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
GOOD = {"values": PROBS, "kind": "probs", "ids": IDS, "classes": CLASSES}


def table(name="ann", **changes):
    settings = GOOD | changes
    return make_table(name, settings.pop("values"), **settings)


def with_value(values, value):
    changed = values.copy()
    changed[2, 1] = value
    return changed


FAULTS = {
    "sum": (
        {"values": with_value(PROBS, 0.9)},
        "Expected probs of teacher 'ann' to be distributions, but got sum 1.3",
    ),
    "negative": (
        {"values": PROBS + [[0, 0, 0], [0.5, -0.5, 0], [0, 0, 0], [0, 0, 0]]},
        "smallest value -0.1667 for id 'q' (1 such rows). Normalise them, or declare kind='log",
    ),
    "logits as probs": (
        {"values": LOGITS},
        "Expected probs of teacher 'ann' to be distributions, but got sum 1.1 and smallest value "
        "-1.2 for id 'p' (4 such rows). Normalise them, or declare kind='logits' if",
    ),
    "probs as logits": (
        {"kind": "logits"},
        "Expected logits from teacher 'ann', but got rows that are all probabilities (>= 0, sum "
        "1). Declare kind='probs'.",
    ),
    "probs as log_probs": (
        {"kind": "log_probs"},
        "Expected log_probs of teacher 'ann' to be distributions, but got sum ",
    ),
    "logits as log_probs": (
        {"values": LOGITS, "kind": "log_probs"},
        "for id 'p' (4 such rows). Normalise them, or declare kind='logits' or kind='probs' if",
    ),
    "NaN": (
        {"values": with_value(PROBS, np.nan)},
        "Expected finite outputs from teacher 'ann', but got NaN or infinity for id 'r' (1 such",
    ),
    "infinite logits": (
        {"values": with_value(LOGITS, -np.inf), "kind": "logits"},
        "Expected finite outputs from teacher 'ann', but got NaN or infinity for id 'r' (1 such",
    ),
    "infinite log_probs": (
        {"values": with_value(np.log(PROBS), np.inf), "kind": "log_probs"},
        "Expected finite outputs from teacher 'ann', but got NaN or infinity for id 'r' (1 such",
    ),
    "unknown kind": (
        {"kind": "prob"},
        "Expected the kind of teacher 'ann''s outputs among logits, probs, log_probs, but got "
        "'prob'. Declare one of them.",
    ),
    "rows": (
        {"ids": IDS[:3]},
        "Expected 3 rows and 3 columns from teacher 'ann', one for each id and class, but got 4 "
        "and 3. Check the file's header and rows.",
    ),
    "columns": (
        {"classes": CLASSES[:2]},
        "Expected 4 rows and 2 columns from teacher 'ann', one for each id and class, but got 4 ",
    ),
    "duplicate id": (
        {"ids": ("p", "q", "q", "s")},
        "Expected every id once from teacher 'ann', but got 'q' more than once. Remove the dup",
    ),
    "duplicate class": (
        {"classes": ("cat", "dog", "dog")},
        "Expected every class once from teacher 'ann', but got 'dog' more than once. Remove",
    ),
    "axes": (
        {"values": PROBS[0]},
        "Expected outputs of teacher 'ann' as (example, class), but got 1 axes. Give a table.",
    ),
    "empty": (
        {"values": np.empty((0, 3)), "ids": ()},
        "Expected outputs from teacher 'ann', but got none. Check the file.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_table_has_its_message(fault):
    changes, message = FAULTS[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        table(**changes)
    assert len(caught.value.faults) == 1


def test_all_faults_of_a_table_are_reported_at_once():
    with pytest.raises(InputError) as caught:
        table(ids=("p", "p"), classes=("cat", "cat"))
    expected = ("Expected 2 rows and 2 columns", "Expected every id", "Expected every class")
    assert len(caught.value.faults) == len(expected)
    assert all(map(str.startswith, caught.value.faults, expected))


@pytest.mark.parametrize(
    ("kind", "values"),
    [("probs", PROBS), ("log_probs", np.log(PROBS)), ("logits", LOGITS), ("logits", LOGITS + 50)],
)
def test_each_kind_gives_the_same_log_probabilities(kind, values):
    ours = table(values=values, kind=kind).values
    torch.testing.assert_close(ours, torch.from_numpy(np.log(PROBS)).float())


@pytest.mark.parametrize(
    ("kind", "row"),
    [("probs", [1, 0, 0]), ("log_probs", [0, -np.inf, -np.inf]), ("logits", [1e5, -1e5, 0])],
)
def test_certainty_is_floored_and_stays_finite(kind, row):
    ours = table(values=np.array([row]), kind=kind, ids=("p",)).values[0]
    assert ours.exp().sum().item() == pytest.approx(1.0)
    assert ours[0].item() == pytest.approx(0.0, abs=1e-6)
    assert ours[1:].tolist() == pytest.approx([LOG_FLOOR] * 2, abs=1e-4)


def test_alignment_is_by_id_and_class_name():
    rows, columns = [2, 0, 3, 1], [1, 2, 0]
    shuffled = table(
        "bob",
        values=PROBS[rows][:, columns],
        ids=[IDS[i] for i in rows],
        classes=[CLASSES[i] for i in columns],
    )
    outputs = align([table(), shuffled], IDS, CLASSES)
    assert outputs.names == ("ann", "bob")
    assert outputs.mask.all()
    torch.testing.assert_close(outputs.values[0], torch.from_numpy(np.log(PROBS)).float())
    torch.testing.assert_close(outputs.values[1], outputs.values[0])


@pytest.mark.parametrize("others", [(True, True), (True, False)])
def test_outputs_are_held_out_only_if_every_teacher_is(others):
    tables = [table(str(i), held_out=held) for i, held in enumerate(others)]
    assert align(tables, IDS, CLASSES).held_out is all(others)


def test_unknown_rows_are_masked_and_flat():
    short = table("bob", values=PROBS[[3, 1]], ids=("s", "q"))
    outputs = align([table(), short], IDS, CLASSES, missing="mask")
    assert outputs.mask.tolist() == [[True] * 4, [False, True, False, True]]
    expected = torch.from_numpy(np.log(PROBS)).float()
    expected[[0, 2]] = -np.log(3)
    torch.testing.assert_close(outputs.values[1], expected)


ALIGNMENT_FAULTS = {
    "no teachers": ([], "error", "Expected one teacher or more, but got none. Name a teacher."),
    "other classes": (
        [{"classes": ("cat", "dog", "hen")}],
        "error",
        "Expected teacher 'ann' to know the classes cat, dog, cow, but it lacks ['cow'] and adds "
        "['hen']. Rename its columns to the data's class names.",
    ),
    "fewer classes": (
        [{"values": [[0.5, 0.5]] * 4, "classes": ("cat", "dog")}],
        "error",
        "but it lacks ['cow'] and adds none. Rename",
    ),
    "fewer rows": (
        [{"values": PROBS[:3], "ids": IDS[:3]}],
        "error",
        "Expected 4 rows from teacher 'ann', one for each example, but got 3. Give all of them, "
        "or pass missing='mask' if it does not know some.",
    ),
    "unknown id": (
        [{"values": PROBS[:2], "ids": ("p", "x")}],
        "mask",
        "Expected only ids of the data from teacher 'ann', but got 'x' (1 such). Remove them or",
    ),
    "same name": (
        [{}, {}],
        "error",
        "Expected teachers with different names, but got 'ann' more than once. Rename one.",
    ),
}


@pytest.mark.parametrize("fault", ALIGNMENT_FAULTS)
def test_each_fault_of_an_alignment_has_its_message(fault):
    tables, missing, message = ALIGNMENT_FAULTS[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        align([table(**changes) for changes in tables], IDS, CLASSES, missing=missing)
    assert len(caught.value.faults) == 1


def test_faults_of_all_teachers_are_reported_at_once():
    swapped = table("bob", ids=("p", "q", "r", "x"))
    other = table("cid", classes=("cat", "dog", "hen"))
    with pytest.raises(InputError) as caught:
        align([swapped, other], IDS, CLASSES)
    missing, unknown, classes = caught.value.faults
    assert "Expected every example from teacher 'bob', but id 's' is missing (1 such)" in missing
    assert "Expected only ids of the data from teacher 'bob', but got 'x' (1 such)" in unknown
    assert "Expected teacher 'cid' to know the classes" in classes


def test_outputs_are_picked_by_id():
    outputs = align([table(), table("bob")], IDS, CLASSES)
    part = outputs.at(("s", "p"))
    assert part.ids == ("s", "p")
    assert torch.equal(part.values, outputs.values[:, [3, 0]])
    message = "Expected teacher outputs for every example, but got none for id 'x' (2 such). Label"
    with pytest.raises(InputError, match=re.escape(message)):
        outputs.at(("s", "x", "y"))


@pytest.fixture
def stored(tmp_path):
    short = table("bob", values=PROBS[:2], ids=IDS[:2], held_out=False)
    outputs = align([table(), short], IDS, CLASSES, missing="mask")
    save_outputs(tmp_path / "store", outputs)
    return tmp_path / "store", outputs


def test_store_round_trip(stored):
    folder, outputs = stored
    loaded = load_outputs(folder)
    for name in ("names", "ids", "classes", "held_out"):
        assert getattr(loaded, name) == getattr(outputs, name)
    assert torch.equal(loaded.values, outputs.values)
    assert torch.equal(loaded.mask, outputs.mask)
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "outputs.safetensors"]


def test_changed_store_is_refused(stored):
    shard = stored[0] / "outputs.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="but its bytes were changed .* and label again"):
        load_outputs(stored[0])


@pytest.mark.parametrize("name", ["manifest.json", "outputs.safetensors"])
def test_incomplete_store_is_refused(stored, name):
    (stored[0] / name).unlink()
    with pytest.raises(InputError, match="but it is incomplete .*Delete it and label again"):
        load_outputs(stored[0])


@pytest.mark.parametrize("content", ["", "{}", '{"sha256": '])
def test_broken_manifest_is_refused(stored, content):
    (stored[0] / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="Expected a store of teacher outputs in .* incomplete"):
        load_outputs(stored[0])
