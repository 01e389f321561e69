"""Teachers that are counts, such as people's votes: few are worth less than many."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from own_data import call
from test_images import configure
from torch.distributions import Dirichlet

from mtbkd.data import make_dataset
from mtbkd.distillation.claim import claim
from mtbkd.observation import CATEGORICAL
from mtbkd.outputs.aligned import align, make_table
from mtbkd.outputs.counts import shares
from mtbkd.outputs.store import load_outputs, save_outputs
from mtbkd.outputs.teacher_outputs import joined_outputs
from mtbkd.prior.mixture import counted_concentration, mixture_log_density
from mtbkd.prior.settings import Prior
from mtbkd.student.student import make_student
from mtbkd.training import Minibatches, TrainingSet, prior_terms
from mtbkd.types import InputError

CLASSES = ("a", "b", "c")
IDS = tuple("uvwxyz")


def votes(n: int = 400, each: int = 20, seed: int = 0, total: float = 2.0) -> np.ndarray:
    """Of shares that a Dirichlet distribution with these counts in all gives."""
    chance = np.random.default_rng(seed)
    p = chance.dirichlet(total * np.array([0.5, 0.3, 0.2]), n)
    return chance.multinomial(each, p).astype(float)


def table(counts, ids=IDS, **more):
    return make_table("people", counts, kind="counts", ids=ids, classes=CLASSES, **more)


def test_shares_are_the_conjugate_mean_and_the_prior_is_found_from_the_counts():
    for true in (0.5, 5.0):
        counts = votes(3000, 10, total=true)
        probs, totals = shares(counts)
        prior = totals - counts.sum(1)
        assert prior[0] == pytest.approx(true, rel=0.25)
        base = (counts.sum(0) + 1) / (counts.sum() + 3)
        np.testing.assert_allclose(probs, (counts + prior[:, None] * base) / totals[:, None])
    few, behind = shares(np.array([[3.0, 0, 0], [0, 3, 0], [1, 2, 0]]))
    assert (few > 0).all()
    assert behind.shape == (3,)


def test_few_counts_are_worth_less_by_the_moments_of_what_is_not_known():
    """q ~ Dir(m p) with p ~ Dir(A s) has the variance of one Dirichlet of m A / (m + A + 1)."""
    s = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    for m, total in ((5.0, 3.5), (20.0, 51.5)):
        chance = np.random.default_rng(0)
        true = chance.dirichlet(total * s.numpy(), 40_000)
        grown = torch.from_numpy(chance.gamma(m * true))
        q = grown / grown.sum(1, keepdim=True)
        worth = counted_concentration(m, 1.0, torch.tensor(total, dtype=torch.float64))
        assert float(worth) == pytest.approx(m * total / (m + total + 1))
        torch.testing.assert_close(q.mean(0), s, atol=0.01, rtol=0)
        torch.testing.assert_close(q.var(0), Dirichlet(worth * s).variance, atol=0, rtol=0.04)
    many = counted_concentration(2.0, 10.0, torch.tensor([3.0, 51.0, 1e9, torch.inf]))
    assert (many.diff() >= 0).all()
    assert float(10 * many[0]) < 3
    assert many[3] == 2.0


@pytest.mark.parametrize("discount", [0.0, 2.0])
@pytest.mark.parametrize("partial", [False, True])
def test_with_counts_scaled_the_component_narrows_as_the_formula_says(discount, partial):
    counts = votes(6)
    other = make_table(
        "network", np.full((6, 2), 0.5), kind="probs", ids=IDS, classes=CLASSES[:2], partial=True
    )
    prior = Prior(concentration=3.0, power=4.0, discount=discount)
    for scale in (1, 10):
        people = table(scale * counts)
        said = align([people, other] if partial else [people], IDS, CLASSES)
        data = training(said)
        terms = prior_terms(data, prior)
        p, totals = people.values.exp(), people.totals
        worth = 3.0 * totals / (3.0 * 4.0 + totals + 1)
        if discount:
            entropy = -(p * p.log()).sum(-1)
            worth = worth * (1 - entropy / np.log(3)).clamp(1e-4, 1) ** discount
        torch.testing.assert_close(
            terms.pseudo_counts[0, :, :3], worth[:, None] * p, rtol=1e-4, atol=1e-5
        )
        if not partial:
            log_q = torch.randn(6, 3).log_softmax(-1)
            expected = Dirichlet(1 + worth[:, None] * p).log_prob(log_q.exp())
            found = mixture_log_density(terms, log_q)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def training(said) -> TrainingSet:
    k, n = said.values.shape[:2]
    return TrainingSet(
        features=torch.zeros(n, 1),
        labels=torch.full((n,), -1),
        values=said.values,
        log_weights=torch.full((k, n), -np.log(k)),
        observation=said.observation,
        totals=said.totals,
    )


def test_totals_follow_their_rows(tmp_path):
    counts = votes(6) * np.arange(1, 7)[:, None]
    network = make_table("network", votes(6) + 1, kind="logits", ids=IDS, classes=CLASSES)
    people = table(counts[:4], IDS[:4])
    said = align([network, people], IDS[::-1], CLASSES, missing="mask")
    expected = torch.tensor([torch.inf, torch.inf, *people.totals.flip(0).tolist()])
    assert said.totals[1].equal(expected)
    assert said.totals[0].isinf().all()
    some = said.at(("w", "u"))
    assert some.totals[1].equal(people.totals[[2, 0]])
    save_outputs(tmp_path / "s", said)
    assert load_outputs(tmp_path / "s").totals.equal(said.totals)
    parts = said.at(IDS[:3]), replace(said.at(IDS[3:]), totals=None)
    both = joined_outputs(*parts)
    assert both.totals[:, :3].equal(said.at(IDS[:3]).totals)
    assert both.totals[:, 3:].isinf().all()
    data, prior = training(said), Prior(2.0)
    rows = torch.tensor([4, 1])
    batch = Minibatches(data, prior, [torch.Generator()]).at(rows[None])
    few = prior_terms(data.subset(rows), prior)
    torch.testing.assert_close(batch.terms.pseudo_counts[0], few.pseudo_counts)
    plain = CATEGORICAL.terms(data.said(rows), 2.0, 1.0, 0.0)
    torch.testing.assert_close(few.pseudo_counts[0], plain.pseudo_counts[0])
    assert (few.pseudo_counts[1].sum(-1) < 0.95 * plain.pseudo_counts[1].sum(-1))[0]


@pytest.mark.parametrize(
    ("row", "got"),
    [
        ([2, -1, 3], "-1"),
        ([2, 0.5, 1], "0.5"),
        ([0, 0, 0], "nothing but 0"),
        ([1, np.nan, 2], "NaN"),
    ],
)
def test_bad_counts_are_one_message(row, got):
    counts = votes(6)
    counts[[2, 4]] = row
    with pytest.raises(InputError, match=f"got {got}.* for id 'w' .2 such rows") as error:
        table(counts)
    assert len(error.value.faults) == 1


def test_counts_have_no_place_where_only_the_most_probable_are_kept():
    with pytest.raises(InputError, match="no most probable classes beside counts"):
        align([table(votes(6))], IDS, CLASSES, top=2)
    with pytest.raises(InputError, match="among mean, but got 'counts'"):
        make_table("t", [[1.0]], kind="counts", ids=["a"], classes=["y"], family="regression")


def test_other_totals_are_another_run(tmp_path):
    said = align([table(votes(6))], IDS, CLASSES)
    data = make_dataset(np.zeros((6, 2)), classes=CLASSES, ids=IDS)
    student = make_student(torch.nn.Linear(2, 3), example=data.inputs)
    for _ in range(2):
        claim(tmp_path, (), student, said, {"data": data})
    more = replace(said, totals=2 * said.totals)
    with pytest.raises(InputError, match="what differs: teachers"):
        claim(tmp_path, (), student, more, {"data": data})


def test_a_run_reads_counts_from_a_table(tmp_path, monkeypatch, capsys):
    path = configure(tmp_path)
    lines = (tmp_path / "one.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    counted = [f"{c[0]},{round(10 * float(c[1]))},{round(10 * float(c[2]))}" for c in cells]
    (tmp_path / "one.csv").write_text("\n".join([lines[0], *counted]) + "\n")
    values = yaml.safe_load(path.read_text())
    values["own"]["teachers"]["one"]["kind"] = "counts"
    path.write_text(yaml.safe_dump(values))
    code, _, error = call(monkeypatch, capsys, "distill", path, "--out", tmp_path / "r")
    assert code == 0, error
    totals = load_outputs(tmp_path / "r" / "teachers").totals
    assert totals[1].isinf().all()
    assert bool(((totals[0] > 10) & (totals[0] < 20)).all())
    values["own"]["teachers"]["one"] = {"factory": "a:b", "kind": "counts"}
    path.write_text(yaml.safe_dump(values))
    code, _, error = call(monkeypatch, capsys, "distill", path, "--out", tmp_path / "q")
    assert code == 2
    assert "own.teachers.one.kind" in error
