"""Class maps: renaming, merging, covering and dropping a teacher's own classes."""

import re

import numpy as np
import pytest
import torch

from mtbkd.outputs.aligned import LOG_FLOOR, align, make_table
from mtbkd.types import InputError

IDS, CLASSES = ("p", "q", "r"), ("cat", "dog", "cow")
OWN = ("felis", "canis", "bos", "sus")
PROBS = np.random.default_rng(3).dirichlet([1.0] * 4, len(IDS))


def table(class_map, own=OWN, name="ann", **changes):
    probs = PROBS[:, : len(own)] / PROBS[:, : len(own)].sum(1, keepdims=True)
    settings = {"kind": "probs", "ids": IDS, "classes": own} | changes
    return make_table(name, settings.pop("values", probs), class_map=class_map, **settings)


def test_classes_are_renamed_and_columns_follow():
    ours = table({"felis": "cat", "bos": "cow"}, own=("bos", "dog", "felis"))
    outputs = align([ours], IDS, CLASSES)
    expected = PROBS[:, [2, 1, 0]] / PROBS[:, :3].sum(1, keepdims=True)
    torch.testing.assert_close(outputs.values[0].exp(), torch.from_numpy(expected).float())
    assert outputs.blocks is None


@pytest.mark.parametrize("kind", ["probs", "log_probs", "logits"])
def test_merging_adds_probabilities(kind):
    given = {"probs": PROBS, "log_probs": np.log(PROBS), "logits": np.log(PROBS) + 800}[kind]
    meaning = {"felis": "cat", "canis": "dog", "bos": "cow", "sus": "cat"}
    ours = table(meaning, merge=True, values=given, kind=kind)
    summed = np.column_stack([PROBS[:, 0] + PROBS[:, 3], PROBS[:, 1], PROBS[:, 2]])
    direct = make_table("bob", summed, kind="probs", ids=IDS, classes=CLASSES)
    outputs = align([ours, direct], IDS, CLASSES)
    torch.testing.assert_close(outputs.values[0], outputs.values[1])


def test_merging_logits_far_apart_stays_finite():
    values = np.array([[0.0, 2000.0, 2000.0], [2000.0, 0.0, 0.0], [-2000.0, -2000.0, 0.0]])
    ours = table({"cow": "cat"}, CLASSES, values=values, kind="logits", merge=True).values
    wanted = torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(ours.exp(), wanted, atol=1e-6, rtol=0)


def test_an_unmapped_class_merges_with_one_mapped_to_its_name():
    ours = table({"felis": "cat"}, own=("cat", "felis", "dog", "cow"), merge=True)
    assert ours.classes == CLASSES
    torch.testing.assert_close(
        ours.values[:, 0].exp(), torch.from_numpy(PROBS[:, 0] + PROBS[:, 1]).float()
    )


def test_dropping_renormalises_the_rest_and_makes_the_table_partial():
    ours = table({"felis": "cat", "canis": "dog", "bos": None, "sus": None})
    assert ours.partial
    assert ours.classes == ("cat", "dog")
    outputs = align([ours], IDS, CLASSES)
    expected = PROBS[:, :2] / PROBS[:, :2].sum(1, keepdims=True)
    torch.testing.assert_close(outputs.values[0, :, :2].exp(), torch.from_numpy(expected).float())
    assert (outputs.values[0, :, 2] == LOG_FLOOR).all()
    assert outputs.blocks is not None
    assert outputs.blocks.tolist() == [[0, 1, -1]]


def test_what_is_left_when_all_mass_is_dropped_is_finite_and_keeps_its_order():
    values = np.array([[1e5, 1.0, 0.0]] * 3)
    left = table({"cat": None}, own=CLASSES, values=values, kind="logits").values
    torch.testing.assert_close(left[0], torch.log_softmax(torch.tensor([1.0, 0.0]), 0))
    certain = np.array([[1.0, 0.0, 0.0]] * 3)
    flat = table({"cat": None}, own=CLASSES, values=certain).values
    torch.testing.assert_close(flat.exp(), torch.full((3, 2), 0.5))


def test_a_dropped_background_class_leaves_no_gap():
    ours = table({"sus": None, "felis": "cat", "canis": "dog", "bos": "cow"})
    assert align([ours], IDS, CLASSES).blocks is None


def test_a_class_that_stands_for_several_is_a_block_in_its_first_column():
    ours = table({"pet": ["dog", "cat"]}, own=("cow", "pet"))
    assert ours.covers == {"pet": ("dog", "cat")}
    outputs = align([ours, table({}, own=CLASSES, name="bob")], IDS, CLASSES)
    assert outputs.blocks is not None
    assert outputs.blocks.tolist() == [[0, 0, 2], [0, 1, 2]]
    probs = torch.from_numpy(PROBS[:, :2] / PROBS[:, :2].sum(1, keepdims=True)).float()
    torch.testing.assert_close(outputs.values[0, :, [2, 0]].exp(), probs)
    assert (outputs.values[0, :, 1] == LOG_FLOOR).all()


def test_classes_that_stand_for_the_same_several_are_added():
    ours = table(
        {"felis": ["cat", "dog"], "canis": ["dog", "cat"], "bos": "cow"}, OWN[:3], merge=True
    )
    assert ours.classes == ("felis", "cow")
    expected = PROBS[:, :2].sum(1) / PROBS[:, :3].sum(1)
    torch.testing.assert_close(ours.values[:, 0].exp(), torch.from_numpy(expected).float())


@pytest.mark.parametrize("family", ["multilabel", "regression"])
def test_labels_and_targets_are_renamed(family):
    values = PROBS[:, :2]
    kind = {"multilabel": "probs", "regression": "mean"}[family]
    ours = table({"felis": "cat"}, ("felis", "dog"), values=values, kind=kind, family=family)
    assert ours.classes == ("cat", "dog")


def test_dropped_labels_leave_the_others_alone():
    settings = {"values": PROBS[:, :2], "kind": "probs", "family": "multilabel"}
    ours = table({"dog": None}, ("dog", "cat"), **settings)
    torch.testing.assert_close(ours.values[:, 0, 1].exp(), torch.from_numpy(PROBS[:, 1]).float())
    assert align([ours], IDS, CLASSES).mask.tolist() == [[[True, False, False]] * 3]


LABELS = {"family": "multilabel", "values": PROBS[:, :3]}
TARGETS = {"family": "regression", "values": PROBS[:, :3], "kind": "mean"}
FAULTS = {
    "unknown key": (
        {"lynx": "cat"},
        {},
        "Expected classes of teacher 'ann' as keys of its class map, but got 'lynx', which is none "
        "of its classes. Correct the key.",
    ),
    "merging": (
        {"cat": "dog"},
        {},
        "Expected one class of teacher 'ann' for each class of the data, but its class map gives "
        "'dog' both 'cat' and 'dog'. Pass merge=True to add their probabilities, or correct it.",
    ),
    "overlap": (
        {"cat": ["dog", "lynx"]},
        {"merge": True},
        "gives 'dog' both 'cat' and 'dog'. Only classes that mean exactly the same are merged",
    ),
    "none of several": ({"cat": []}, {}, "Expected class 'cat' of teacher 'ann' to be mapped to a"),
    "twice": ({"cat": ["a", "a"]}, {}, "or to different ones, but got ['a', 'a']. Map it to None"),
    "all dropped": (
        dict.fromkeys(CLASSES),
        {},
        "Expected teacher 'ann' to know a class of the data, but its class map drops all. Map one",
    ),
    "name taken": (
        {"cat": ["lynx", "lion"], "dog": "cat"},
        {},
        "Expected class 'cat' of teacher 'ann', which stands for lynx, lion, to have a name of its "
        "own, but another class is mapped to that name. Rename its column.",
    ),
    "labels do not add": (
        {"cat": "dog"},
        LABELS | {"merge": True},
        "Expected one label of teacher 'ann' for each label of the data, but its class map gives "
        "'dog' both 'cat' and 'dog'. Probabilities of labels do not add; map one of them to None.",
    ),
    "labels stand for one": (
        {"cat": ["a", "b"]},
        LABELS,
        "Expected label 'cat' of teacher 'ann' to be mapped to one label, but got a, b. Map it to",
    ),
    "targets do not add": (
        {"cat": "dog"},
        TARGETS | {"merge": True},
        "gives 'dog' both 'cat' and 'dog'. Targets can only be renamed; leave one of them out.",
    ),
    "targets are not dropped": (
        {"cat": None},
        TARGETS,
        "Expected target 'cat' of teacher 'ann' to be mapped to a target of the data, or to "
        "different ones, but got None. Leave the column out.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_class_map_has_its_message(fault):
    class_map, changes, message = FAULTS[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        table(class_map, CLASSES, **changes)
    assert len(caught.value.faults) == 1


def test_a_mapped_class_that_the_data_lacks_is_refused():
    ours = table({"felis": "lynx"}, ("felis", "dog", "cow"))
    message = "but it lacks ['cat'] and adds ['lynx']. Rename its columns"
    with pytest.raises(InputError, match=re.escape(message)):
        align([ours], IDS, CLASSES)
    covering = table({"pet": ["cat", "lynx"]}, ("pet", "dog", "cow"))
    with pytest.raises(InputError, match=re.escape("but it lacks none and adds ['lynx'].")):
        align([covering], IDS, CLASSES)
