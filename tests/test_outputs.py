"""Teacher outputs: declared kinds, alignment by name, the store, and a message for each fault."""

import re

import numpy as np
import pytest
import torch

from mtbkd.outputs.aligned import LOG_FLOOR, align, make_table, make_top_table
from mtbkd.outputs.store import align_to, load_outputs
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
        "Expected the kind of teacher 'ann''s outputs among logits, probs, log_probs, counts, "
        "but got 'prob'. Declare one of them.",
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
        "['hen']. Rename its columns to the data's class names, map them with class_map, or pass "
        "partial=True if it knows only some.",
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
    "unknown ids": (
        [{"values": PROBS[:2], "ids": ("x", "y")}],
        "mask",
        "Expected ids of the data from teacher 'ann', but got 'x' (2 such). Check the ids.",
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
    assert "Expected ids of the data from teacher 'bob', but got 'x' (1 such)" in unknown
    assert "Expected teacher 'cid' to know the classes" in classes


def test_a_table_of_more_rows_serves_a_part_of_them(tmp_path):
    told = "1 of 4 rows of teacher 'ann' are not used, as the data have no such ids: 'q' is the"
    ids = ("s", "r", "p")
    with pytest.warns(UserWarning, match=re.escape(told)) as caught:
        part = align([table(), table("bob", values=PROBS[:3], ids=ids)], ids, CLASSES)
    assert len(caught) == 1
    whole = align([table()], IDS, CLASSES)
    assert torch.equal(part.values[:1], whole.values[:, [3, 2, 0]])
    with pytest.warns(UserWarning, match=re.escape(told)):
        align_to(tmp_path, [table()], ids, CLASSES)
    assert torch.equal(load_outputs(tmp_path).values, part.values[:1])
    with pytest.warns(UserWarning, match="3 of 4 rows of teacher 'ann' are not used"):
        masked = align([table()], ("s", "other"), CLASSES, missing="mask")
    assert masked.mask.tolist() == [[True, False]]


def test_outputs_are_picked_by_id():
    outputs = align([table(), table("bob")], IDS, CLASSES)
    part = outputs.at(("s", "p"))
    assert part.ids == ("s", "p")
    assert torch.equal(part.values, outputs.values[:, [3, 0]])
    message = "Expected teacher outputs for every example, but got none for id 'x' (2 such). Label"
    with pytest.raises(InputError, match=re.escape(message)):
        outputs.at(("s", "x", "y"))


def test_examples_that_follow_each_other_are_not_copied():
    outputs = align([table(), table("bob")], IDS, CLASSES, top=2)
    assert outputs.at(list(IDS)) is outputs
    run = outputs.at(("q", "r"))
    assert outputs.kept is not None
    assert run.kept is not None
    for part, whole in ((run.values, outputs.values), (run.mask, outputs.mask)):
        assert part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    assert torch.equal(run.values, outputs.values[:, 1:3])
    assert torch.equal(run.kept, outputs.kept[:, 1:3])
    assert outputs.at(()).values.shape == (2, 0, 3)
    picked = outputs.at(("r", "q")).kept
    assert picked is not None
    assert torch.equal(picked, outputs.kept[:, [2, 1]])


def both(values, family="multilabel", kind="logits", **changes):
    settings = {"ids": IDS, "classes": CLASSES} | changes
    return make_table("ann", values, kind=kind, family=family, **settings)


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_labels_become_log_probabilities_of_no_and_yes(kind):
    yes = 1 / (1 + np.exp(-LOGITS))
    ours = both(yes if kind == "probs" else LOGITS, kind=kind).values
    expected = torch.from_numpy(np.stack([1 - yes, yes], -1)).float()
    torch.testing.assert_close(ours.exp(), expected)
    certain = both([[0.0, 1.0]], kind="probs", ids=("p",), classes=("a", "b")).values[0]
    sure, never = pytest.approx(0.0, abs=1e-6), pytest.approx(LOG_FLOOR, abs=1e-4)
    assert certain.tolist() == [[sure, never], [never, sure]]


@pytest.mark.parametrize(
    ("variance", "expected"),
    [
        (0.25, [0.25] * 3),
        ([1.0, 4.0, 0.5], [1.0, 4.0, 0.5]),
        (np.tile([1.0, 4.0, 0.5], (4, 1)), [1.0, 4.0, 0.5]),
        (None, [np.nan] * 3),
    ],
)
def test_targets_become_means_and_log_variances(variance, expected):
    ours = both(LOGITS, "regression", "mean", variance=variance).values
    torch.testing.assert_close(ours[..., 0], torch.from_numpy(LOGITS).float())
    wanted = torch.tensor([expected] * 4).log()
    torch.testing.assert_close(ours[..., 1], wanted, equal_nan=True)


def test_one_target_may_be_given_as_a_list():
    ours = both([1, 2, 3, 4], "regression", "mean", classes=("y",), variance=[1, 2, 3, 4]).values
    torch.testing.assert_close(ours[:, 0, 0], torch.tensor([1.0, 2, 3, 4]))
    torch.testing.assert_close(ours[:, 0, 1].exp(), torch.tensor([1.0, 2, 3, 4]))


@pytest.mark.parametrize(("family", "kind"), [("multilabel", "logits"), ("regression", "mean")])
def test_labels_that_a_teacher_does_not_know_are_masked(family, kind):
    short = both(LOGITS[:2, :2], family, kind, ids=("s", "q"), classes=("cow", "cat"), partial=True)
    outputs = align([short], IDS, CLASSES, missing="mask")
    assert outputs.family == family
    assert outputs.blocks is None
    assert outputs.mask[0].tolist() == [[row in "qs", False, row in "qs"] for row in IDS]
    said = outputs.values[0][[3, 1]][:, [2, 0]]
    torch.testing.assert_close(said, short.values, equal_nan=True)
    unsaid = outputs.values[~outputs.mask]
    flat = -np.log(2) if family == "multilabel" else 0.0
    torch.testing.assert_close(unsaid, torch.full_like(unsaid, flat))


def test_a_partial_teacher_has_blocks_and_is_flat_over_them_where_masked():
    values = PROBS[:2, :2] / PROBS[:2, :2].sum(1, keepdims=True)
    known = table("bob", values=values, ids=IDS[:2], classes=("cow", "cat"), partial=True)
    outputs = align([table(), known], IDS, CLASSES, missing="mask")
    assert outputs.blocks is not None
    assert outputs.blocks.dtype == torch.int16
    assert outputs.blocks.tolist() == [[0, 1, 2], [0, -1, 2]]
    torch.testing.assert_close(outputs.values[1, :2][:, [2, 0]], known.values)
    assert (outputs.values[1, :, 1] == LOG_FLOOR).all()
    assert outputs.values[1, 2:][:, [0, 2]].exp().flatten().tolist() == pytest.approx([0.5] * 4)


def test_a_partial_teacher_that_knows_all_is_like_any_other():
    outputs = align([table(), table("bob", partial=True)], IDS, CLASSES)
    assert outputs.blocks is None
    assert torch.equal(outputs.values[0], outputs.values[1])


@pytest.mark.parametrize("top", [None, 2, 3])
def test_the_order_of_rows_and_columns_does_not_matter(top):
    generator = np.random.default_rng(0)
    rows, columns = generator.permutation(4), generator.permutation(3)
    ids, names = [IDS[i] for i in rows], [CLASSES[i] for i in columns]
    shuffled = table(values=PROBS[rows][:, columns], ids=ids, classes=names)
    first, second = (align([t], IDS, CLASSES, top=top) for t in (table(), shuffled))
    assert torch.equal(first.values, second.values)
    assert top is None or torch.equal(first.kept, second.kept)


def topped(name="ann", **changes):
    settings = {
        "values": [[0.6, 0.3], [0.5, 0.5], [0.2, 0.7], [0.9, 0.4]],
        "kept": [[0, 2], [1, 2], [1, 0], [2, -1]],
        "tail": [0.1, 0.0, 0.1, 0.1],
        "kind": "probs",
        "ids": IDS,
        "classes": CLASSES,
    } | changes
    return make_top_table(
        name, settings.pop("values"), settings.pop("kept"), settings.pop("tail"), **settings
    )


def test_kept_classes_come_from_the_most_probable_on():
    outputs = align([topped()], IDS, CLASSES)
    assert outputs.kept is not None
    assert outputs.kept.tolist() == [[[0, 2], [1, 2], [0, 1], [2, -1]]]
    wanted = [[0.6, 0.3, 0.1], [0.5, 0.5, 0.0], [0.7, 0.2, 0.1], [0.9, 0.0, 0.1]]
    torch.testing.assert_close(outputs.values[0].exp(), torch.tensor(wanted), atol=1e-6, rtol=0)
    assert outputs.values[0, 3, 1] == LOG_FLOOR
    named = topped(
        kept=[["cow", "dog"], ["cat", "dog"], ["cat", "cow"], ["dog", ""]],
        classes=("cow", "cat", "dog"),
    )
    again = align([named], IDS, ("cow", "cat", "dog"))
    assert again.kept is not None
    assert torch.equal(again.kept, outputs.kept)
    moved = align([named], IDS, CLASSES).kept
    assert moved is not None
    assert moved.tolist() == [[[2, 1], [0, 1], [2, 0], [1, -1]]]


def test_other_teachers_are_cut_to_the_largest_number_kept():
    outputs = align([topped(), table("bob")], IDS, CLASSES)
    assert outputs.kept is not None
    ranked = np.argsort(-PROBS[[0, 2, 3]], 1)
    assert outputs.kept[1, [0, 2, 3]].tolist() == ranked[:, :2].tolist()
    ordered = np.take_along_axis(PROBS[[0, 2, 3]], ranked, 1)
    torch.testing.assert_close(
        outputs.values[1, [0, 2, 3]].exp(), torch.from_numpy(ordered).float()
    )
    narrower = align([topped(), table("bob")], IDS, CLASSES, top=1)
    assert torch.equal(narrower.values, outputs.values)
    wider = align([topped(), table("bob")], IDS, CLASSES, top=3)
    assert wider.kept is not None
    assert wider.kept[0].tolist() == [[0, 2, -1], [1, 2, -1], [0, 1, -1], [2, -1, -1]]
    torch.testing.assert_close(wider.values[0, :, [0, 1, 3]], outputs.values[0])
    assert (wider.values[1, :, 3] == LOG_FLOOR).all()


def test_a_masked_row_keeps_nothing():
    one = table("bob", values=PROBS[:1], ids=("q",))
    outputs = align([one], IDS, CLASSES, missing="mask", top=2)
    assert outputs.kept is not None
    assert (outputs.kept[0, [0, 2, 3]] == -1).all()
    assert outputs.values[0, [0, 2, 3]].tolist() == [[LOG_FLOOR, LOG_FLOOR, 0.0]] * 3
