"""Scores of teachers and pools where teachers are silent or know some of the classes."""

import math
from dataclasses import replace

import pytest
import torch

from mtbkd.app.run.scoring import pool_of, pool_scores, teacher_scores
from mtbkd.outputs.aligned import align, make_table
from mtbkd.weights.rules import Weighting

IDS, CLASSES = ("a", "b", "c", "d"), ("x", "y", "z")
PROBS = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]
LABELS = torch.tensor([0, 1, 2, 0])


def outputs():
    full = make_table("full", PROBS, kind="probs", ids=IDS, classes=CLASSES)
    half = make_table(
        "half",
        [[0.9, 0.1], [0.5, 0.5]],
        kind="probs",
        ids=IDS[:2],
        classes=CLASSES[:2],
        partial=True,
    )
    return align([full, half], IDS, CLASSES, missing="mask")


def test_a_partial_teacher_is_scored_where_it_speaks_and_gives_the_rest_their_share():
    found = teacher_scores(outputs(), LABELS, None)
    assert found["full"]["accuracy"] == pytest.approx(0.75)
    expected = -(math.log(0.9 * 2 / 3) + math.log(0.5 * 2 / 3)) / 2
    assert found["half"]["nll"] == pytest.approx(expected, rel=1e-4)


def test_where_nobody_speaks_the_pool_is_flat_and_nobody_disagrees():
    told = outputs()
    silent = replace(told, mask=told.mask & torch.tensor([True, True, True, False]))
    pool = pool_of(silent, Weighting("uniform"), None, torch.zeros(len(silent.ids), 1))
    quarrel = pool["disagreement"]
    torch.testing.assert_close(pool["probs"][3], torch.full((3,), 1 / 3).double())
    torch.testing.assert_close(pool["probs"].sum(1), torch.ones(4).double())
    assert quarrel[3] == 0
    assert quarrel[1] > 0
    torch.testing.assert_close(quarrel[2], torch.zeros(()).double(), atol=1e-6, rtol=0)
    heard = pool_scores(silent, pool, LABELS, None)
    expected = -pool["probs"][:3].gather(1, LABELS[:3, None]).log().mean()
    assert heard["nll"] == pytest.approx(float(expected))


def test_a_teacher_that_never_speaks_has_no_scores():
    told = outputs()
    mask = told.mask.clone()
    mask[1] = False
    assert set(teacher_scores(replace(told, mask=mask), LABELS, None)) == {"full"}
