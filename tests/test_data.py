"""Data sets: every fault has its message, and nothing else is refused."""

import re

import numpy as np
import pytest
import torch

from mtbkd.data import check_splits, make_dataset
from mtbkd.types import InputError, check_positive

INPUTS = np.arange(12.0).reshape(4, 3)
GOOD = {"inputs": INPUTS, "classes": ["cat", "dog"], "ids": "pqrs", "labels": [0, 1, 1, 0]}


def make(**changes):
    settings = GOOD | changes
    return make_dataset(settings.pop("inputs"), **settings)


def with_value(value):
    inputs = INPUTS.copy()
    inputs[2, 1] = value
    return inputs


FAULTS = {
    "duplicate class": (
        {"classes": ["cat", "dog", "cat"]},
        "Expected every class of the data set once, but got 'cat' more than once (1 such). Make",
    ),
    "one class": (
        {"classes": ["cat"], "labels": None},
        "Expected two classes or more in the data set, but got 1. Name every class.",
    ),
    "duplicate id": (
        {"ids": "pqqs"},
        "Expected every id of the data set once, but got 'q' more than once (1 such). Make them",
    ),
    "ids that become the same": (
        {"ids": [1, "1", 2, 3]},
        "Expected every id of the data set once, but got '1' more than once",
    ),
    "too few ids": (
        {"ids": "pqr"},
        "Expected 4 ids, one for each row of the data set, but got 3. Give each example one id.",
    ),
    "NaN": (
        {"inputs": with_value(np.nan)},
        "Expected finite inputs in the data set, but got NaN or infinity for id 'r'. Remove or",
    ),
    "infinity": (
        {"inputs": with_value(np.inf)},
        "Expected finite inputs in the data set, but got NaN or infinity for id 'r'. Remove or",
    ),
    "NaN in a vector": (
        {"inputs": INPUTS[:, 0] * [1, np.nan, 1, 1]},
        "Expected finite inputs in the data set, but got NaN or infinity for id 'q'. Remove or",
    ),
    "too many labels": (
        {"labels": [0, 1, 1, 0, 0]},
        "Expected 4 labels in the data set, but got 5. Give one for each example, -1 where it is",
    ),
    "label above the classes": (
        {"labels": [0, 2, 1, 3]},
        "Expected labels among the 2 classes of the data set, but got 2 for id 'q' (2 such). Cor",
    ),
    "label below": (
        {"labels": [0, 1, -2, 0]},
        "Expected labels among the 2 classes of the data set, but got -2 for id 'r' (1 such).",
    ),
    "unknown name": (
        {"labels": ["cat", "cow", "dog", ""]},
        "Expected labels among the 2 classes of the data set, but got 'cow' for id 'q' (1 such).",
    ),
    "half a label": (
        {"labels": [0, 0.5, 1, 0]},
        "Expected labels among the 2 classes of the data set, but got 0.5 for id 'q' (1 such).",
    ),
    "empty": (
        {"inputs": np.empty((0, 3)), "ids": "", "labels": []},
        "Expected at least one example in the data set, but got none. Check the file or the split.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_message(fault):
    changes, message = FAULTS[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        make(**changes)
    assert len(caught.value.faults) == 1


def test_all_faults_are_reported_at_once():
    with pytest.raises(InputError) as caught:
        make(
            classes=["cat", "cat"], ids="ppr", labels=[0, 9, 0, 0], inputs=with_value(np.nan),
            name="test set",
        )  # fmt: skip
    expected = ("every class", "every id", "4 ids", "finite inputs", "labels among")
    assert len(caught.value.faults) == len(expected)
    for fault, words in zip(caught.value.faults, expected, strict=True):
        assert fault.startswith("Expected " + words)
        assert "test set" in fault
    assert str(caught.value) == "\n".join(caught.value.faults)


@pytest.mark.parametrize(
    "labels",
    [
        ["dog", None, "", "cat"],
        [1, -1, None, 0],
        np.array([1, -1, -1, 0]),
        np.array([1.0, -1.0, -1.0, 0.0]),
        torch.tensor([1, -1, -1, 0]),
    ],
)
def test_labels_may_be_names_or_indices_and_may_be_missing(labels):
    data = make(labels=labels)
    assert data.labels.tolist() == [1, -1, -1, 0]
    assert data.labels.dtype == torch.int64
    assert data.n_labelled == 2


def test_ids_and_labels_may_be_left_out():
    data = make(ids=None, labels=None)
    assert data.ids == ("0", "1", "2", "3")
    assert data.n_labelled == 0
    assert len(data) == 4


KEPT = {
    np.float64: torch.float32,
    np.float32: torch.float32,
    np.bool_: torch.float32,
    np.int64: torch.int64,
    np.int32: torch.int32,
    np.uint16: torch.int64,
    np.uint8: torch.uint8,
}


@pytest.mark.parametrize("kind", KEPT)
def test_arrays_become_the_students_numbers_and_whole_ones_stay(kind):
    data = make(inputs=INPUTS.astype(kind))
    assert data.inputs.dtype == KEPT[kind]
    assert data.inputs.tolist() == INPUTS.astype(kind).tolist()
    assert make(inputs=torch.from_numpy(INPUTS)).inputs.dtype == torch.float32


def test_subset_keeps_rows_together_and_in_order():
    part = make().subset([3, 1])
    assert part.ids == ("s", "q")
    assert part.inputs.tolist() == INPUTS[[3, 1]].tolist()
    assert part.labels.tolist() == [0, 1]


def test_labels_are_removed_from_a_copy():
    data = make()
    assert data.without_labels([1, 3]).labels.tolist() == [0, -1, 1, -1]
    assert data.labels.tolist() == [0, 1, 1, 0]


def test_empty_splits_are_refused_together():
    data = make()
    none = data.subset([])
    check_splits(train=data, test=data)
    with pytest.raises(InputError, match="Expected at least one example in the split `test`") as e:
        check_splits(train=data, calibration=none, test=none)
    assert len(e.value.faults) == 2


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_settings_must_be_positive(value):
    check_positive(draws=1, chains=0.5)
    with pytest.raises(
        InputError, match="Expected draws above 0, but got .*\nExpected chains"
    ) as e:
        check_positive(draws=value, fine=1, chains=value)
    assert len(e.value.faults) == 2
