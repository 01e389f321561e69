"""Teachers that share their mistakes: two copies of one are worth what one is, everywhere."""

import numpy as np
import pytest
import torch
from torch import nn

import mtbkd
from mtbkd.distillation.choose import choose_weighting, read_weighting
from mtbkd.distillation.evidence import disagreement_evidence
from mtbkd.outputs.aligned import align, make_table
from mtbkd.outputs.store import load_outputs, save_outputs
from mtbkd.student.student import make_student
from mtbkd.training import TrainingSet
from mtbkd.weights.rules import log_alike, pool_log_probs, uniform_weights

N = 240
CLASSES = ("a", "b", "c")


def said(seed: int, skill: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % 3
    return skill * nn.functional.one_hot(labels, 3) + torch.randn(N, 3, generator=generator)


def outputs(copies: int, group: str = "model"):
    """A weak teacher, so often, and a better one."""
    ids = tuple(f"r{i}" for i in range(N))
    tables = [
        make_table(f"weak {k}", said(0, 0.5), kind="logits", ids=ids, classes=CLASSES, group=group)
        for k in range(copies)
    ]
    good = make_table("good", said(1, 2.0), kind="logits", ids=ids, classes=CLASSES)
    return align([*tables, good], ids, CLASSES)


def data(known: int):
    labels = [CLASSES[i % 3] if i < known else None for i in range(N)]
    x = torch.randn(N, 2, generator=torch.Generator().manual_seed(3))
    return mtbkd.make_dataset(x, labels=labels, classes=CLASSES, ids=[f"r{i}" for i in range(N)])


def pool(teachers, weighting):
    found = weighting.apply(teachers.values, teachers.mask)
    return pool_log_probs(found.log_weights, teachers.values).exp(), found.log_weights.exp()


@pytest.mark.parametrize("rule", ["uniform", "entropy", "stacked"])
def test_copies_of_a_teacher_change_no_weight(rule):
    examples = data(200)
    alone, twice, apart = outputs(1), outputs(2), outputs(2, group="")
    assert alone.groups is None
    assert apart.groups is None
    weighings = [choose_weighting(rule, examples, o, None, None) for o in (alone, twice, apart)]
    ours, (pool_twice, weights), (pool_apart, _) = (
        pool(o, w) for o, w in zip((alone, twice, apart), weighings, strict=True)
    )
    assert (pool_twice - ours[0]).abs().max() < 1e-4
    assert (pool_apart - ours[0]).abs().max() > 1e-3
    assert torch.allclose(weights[0], weights[1], atol=1e-4)
    if rule == "stacked":  # priors too: as free as one is
        assert weighings[0].stacked.scale == weighings[1].stacked.scale > 0


def test_only_those_that_speak_share_a_weight():
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    groups = torch.tensor([0, 0, 2])
    assert torch.allclose(
        uniform_weights(mask, groups).exp(), torch.tensor([[0.25, 0.5], [0.25, 0.0], [0.5, 0.5]])
    )
    assert log_alike(mask, None).abs().sum() == 0


def test_copies_are_no_evidence():
    """By disagreement, two copies beside another teacher are two teachers, not three."""
    log_probs = torch.tensor([[[p, 1 - p]] for p in (0.2, 0.2, 0.4)]).log().expand(-1, 50, -1)
    mask = torch.ones(3, 50, dtype=torch.bool)

    def evidence(rows, groups):
        weights = uniform_weights(mask[rows], groups)
        mean = float((weights.exp() * log_probs[rows, :, 0].exp()).sum(0)[0])
        train = TrainingSet(torch.zeros(50, 1), torch.full((50,), -1), log_probs[rows], weights,
                            groups=groups)  # fmt: skip
        student = make_student(nn.Sequential(nn.Linear(1, 2)), weight_scale=2.0)
        best = torch.tensor([0.0, 0.0, np.log(mean), np.log(1 - mean)]).float()
        return disagreement_evidence(student, student.standardised(best), train)

    alone = evidence([0, 2], None)
    assert evidence([0, 1, 2], torch.tensor([0, 0, 2])) == pytest.approx(alone, rel=1e-4)
    assert evidence([0, 1, 2], None) > 1.5 * alone


def test_groups_are_kept(tmp_path):
    twice = outputs(2)
    assert twice.groups is not None
    assert twice.groups.tolist() == [0, 0, 2]
    save_outputs(tmp_path / "teachers", twice)
    again = load_outputs(tmp_path / "teachers")
    assert torch.equal(again.groups, twice.groups)
    assert again.at(again.ids[:5]).groups is not None
    made = choose_weighting("uniform", data(0), twice, None, tmp_path)
    assert read_weighting(tmp_path / "weights.json").groups.tolist() == made.groups.tolist()
